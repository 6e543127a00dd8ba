package database

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
)

// layout is how the table is made.
type layout struct {
	shared                         bool // one row for each (call id, from tag, to tag): there is no record_id
	record, callID, fromTag, toTag limit
}

// limit is what a column of text takes.
type limit struct {
	characters int
	ascii      bool // other characters may be lost
}

// Lengths of the columns, unless the table says otherwise.
var ours = layout{record: limit{64, true}, callID: limit{255, false}, fromTag: limit{64, false}, toTag: limit{64, false}}

var errAbsent = errors.New("there is no such table")

// look returns the table's layout. A table that is not there is made, or errAbsent.
func (db *DB) look(ctx context.Context, create bool) (*layout, error) {
	db.mu.Lock()
	defer db.mu.Unlock()
	if db.layout != nil {
		return db.layout, nil
	}
	if db.dialect.prepare != nil {
		if err := db.dialect.prepare(db.uri); err != nil {
			return nil, err
		}
	}
	columns, err := db.columns(ctx)
	if db.dialect.fault(err) == noTable {
		if !create {
			return nil, errAbsent
		}
		if err = db.createLocked(ctx); err == nil {
			columns, err = db.columns(ctx)
		}
	}
	if err != nil {
		return nil, err
	}
	l := ours
	l.shared = !db.dialect.hasColumn(columns, recordColumn)
	if err := db.checkColumns(columns); err != nil {
		return nil, err
	}
	if err := errors.Join(db.measure(ctx, &l), db.checkUnique(ctx, l)); err != nil {
		return nil, err
	}
	db.layout = &l
	return db.layout, nil
}

func (db *DB) forget() {
	db.mu.Lock()
	defer db.mu.Unlock()
	db.layout = nil
}

// columns are asked for as everything else is, so that the server looks for the table
// where it will look for it later.
func (db *DB) columns(ctx context.Context) ([]string, error) {
	rows, err := db.sql.QueryContext(ctx, "SELECT * FROM "+db.dialect.raw(db.table.Name)+" WHERE 1 = 0")
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	columns, err := rows.Columns()
	return columns, errors.Join(err, rows.Err())
}

func (db *DB) checkColumns(columns []string) error {
	for _, c := range []struct{ name, setting string }{
		{db.table.CallID, "callid_column"}, {db.table.FromTag, "fromtag_column"}, {db.table.ToTag, "totag_column"}, {db.table.Info, "info_column"},
	} {
		if !db.dialect.hasColumn(columns, c.name) {
			return refused{fmt.Errorf("%s: table %q has no column %q; it has %s: set %s in section [Database] to the right one, or sessions_table to another table",
				db.where(), db.table.Name, c.name, strings.Join(columns, ", "), c.setting)}
		}
	}
	if !db.dialect.hasColumn(columns, idColumn) {
		return refused{fmt.Errorf("%s: table %q has no column %q, the number of a row that the server gives: set sessions_table in section [Database] to another table, which is made if it is not there",
			db.where(), db.table.Name, idColumn)}
	}
	return nil
}

// measure finds out what the columns take.
func (db *DB) measure(ctx context.Context, l *layout) error {
	if db.dialect.lengths == "" {
		return nil
	}
	rows, err := db.sql.QueryContext(ctx, db.dialect.lengths, db.table.Name)
	if err != nil {
		return err
	}
	defer rows.Close()
	columns := map[string]*limit{recordColumn: &l.record, db.table.CallID: &l.callID, db.table.FromTag: &l.fromTag, db.table.ToTag: &l.toTag}
	for rows.Next() {
		var name string
		var length sql.NullInt64
		var charset sql.NullString
		if err := rows.Scan(&name, &length, &charset); err != nil {
			return err
		}
		for column, l := range columns {
			if !db.dialect.sameColumn(name, column) {
				continue
			}
			if length.Valid && length.Int64 > 0 && length.Int64 < longestText {
				l.characters = int(length.Int64)
			}
			l.ascii = l.ascii || charset.String != unicodeText
		}
	}
	return rows.Err()
}

// checkUnique is for a server that would store a record twice without a word.
func (db *DB) checkUnique(ctx context.Context, l layout) error {
	if l.shared || db.dialect.unique == "" {
		return nil
	}
	n := 0
	if err := db.sql.QueryRowContext(ctx, db.dialect.unique, db.table.Name, recordColumn).Scan(&n); err != nil {
		return err
	}
	if n == 0 {
		return refused{fmt.Errorf("%s: %s", db.where(), db.lacksUnique())}
	}
	return nil
}

func (db *DB) lacksUnique() string {
	return fmt.Sprintf("column %s of table %q has no unique index: make one, it tells what is stored already", recordColumn, db.table.Name)
}

const (
	unicodeText = "utf8mb4" // the character set that takes everything
	longestText = 1 << 15   // more is no limit
)

// createLocked makes the table. Another dispatcher may do so at the same moment. Without
// the right to, the whole definition is logged, for somebody who has it.
func (db *DB) createLocked(ctx context.Context) error {
	statements := db.dialect.define(db)
	err := db.create(ctx, statements)
	switch db.dialect.fault(err) {
	case exists:
		return nil
	case denied, readOnly:
		if !db.printed {
			db.printed = true
			db.log.Error("the table of finished calls cannot be made; somebody with the right to has to, with this definition",
				"database", db.where(), "error", err, "definition", strings.Join(statements, ";\n")+";")
		}
		return refused{fmt.Errorf("%s: table %q is not there and cannot be made: %w (the user %s needs the right CREATE; or somebody else makes the table, whose definition is in the log, and gives the rights SELECT, INSERT and UPDATE on it)",
			db.where(), db.table.Name, err, db.uri.User)}
	case other:
		if err == nil {
			db.log.Info("table of finished calls made", "database", db.where(), "table", db.table.Name)
		}
	}
	return err
}

// create runs the statements in one transaction: where that undoes a table too, none is
// left without its index.
func (db *DB) create(ctx context.Context, statements []string) error {
	tx, err := db.sql.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback() // without effect after Commit
	for _, s := range statements {
		if _, err := tx.ExecContext(ctx, s); err != nil {
			return err
		}
	}
	return tx.Commit()
}

// indexName is unique in a schema, in which tables have their own names.
func (db *DB) indexName() string {
	const end = "_calls_idx"
	return fit(db.table.Name, limit{characters: 63 - len(end)}) + end
}

func (db *DB) pageQuery(_ *layout, after int64, rows int) (string, []any) {
	d := db.dialect
	sb := d.flavor.NewSelectBuilder()
	sb.Select(d.q(idColumn), d.q(db.table.Info)).From(d.q(db.table.Name))
	sb.Where(sb.GreaterThan(d.raw(idColumn), after)).OrderByAsc(d.q(idColumn)).Limit(rows)
	return sb.BuildWithFlavor(d.flavor)
}
