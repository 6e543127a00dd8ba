package database

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/huandu/go-sqlbuilder"
)

// writer is one transaction.
type writer struct {
	db     *DB
	tx     *sql.Tx
	layout *layout
}

// key is what a row is found by, as the columns take it.
type key struct {
	callID, fromTag string
	toTag           *string
}

func (l *layout) key(r Row) key {
	k := key{callID: fit(r.CallID, l.callID), fromTag: fit(r.FromTag, l.fromTag)}
	if r.ToTag != nil {
		to := fit(*r.ToTag, l.toTag)
		k.toTag = &to
	}
	return k
}

func (k key) equal(other key) bool {
	return k.callID == other.callID && k.fromTag == other.fromTag &&
		(k.toTag == nil) == (other.toTag == nil) && (k.toTag == nil || *k.toTag == *other.toTag)
}

// insertAll writes to a table of ours. What is there already is left alone by the
// server, so that two dispatchers cannot disagree; only when that happened it is looked at.
func (w writer) insertAll(ctx context.Context, rows []Row) error {
	for part := range slices.Chunk(rows, batch) {
		inserted := int64(0)
		for _, statement := range w.db.inserts(w.layout, part) {
			n, err := w.exec(ctx, statement)
			if err != nil {
				return err
			}
			inserted += n
		}
		if inserted == int64(len(part)) {
			continue
		}
		if err := w.complete(ctx, part); err != nil {
			return err
		}
	}
	return nil
}

// statement is SQL with its values.
type statement struct {
	query string
	args  []any
}

func (w writer) exec(ctx context.Context, s statement) (changed int64, err error) {
	result, err := w.tx.ExecContext(ctx, s.query, s.args...)
	if err != nil {
		return 0, err
	}
	return result.RowsAffected()
}

// inserts makes one statement for all rows, or one for each.
func (db *DB) inserts(l *layout, rows []Row) []statement {
	d := db.dialect
	if d.once == "" {
		return db.conditionalInserts(l, rows)
	}
	ib := d.flavor.NewInsertBuilder()
	ib.InsertInto(d.raw(db.table.Name)).Cols(d.raw(recordColumn), d.raw(db.table.CallID), d.raw(db.table.FromTag), d.raw(db.table.ToTag), d.raw(db.table.Info))
	for _, r := range rows {
		ib.Values(db.values(l, r)...)
	}
	query, args := ib.SQL(d.once).Build()
	return []statement{{query, args}}
}

func (db *DB) values(l *layout, r Row) []any {
	k := l.key(r)
	return []any{fit(r.RecordID, l.record), k.callID, k.fromTag, k.toTag, db.dialect.info(r.Info)}
}

// complete looks at rows of which some were there before.
func (w writer) complete(ctx context.Context, rows []Row) error {
	stored, err := w.find(ctx, rows)
	if err != nil {
		return err
	}
	for _, r := range rows {
		s, there := stored[fit(r.RecordID, w.layout.record)]
		switch {
		case !there:
			return refused{fmt.Errorf("%s: table %q refuses record %s: has it another unique index than that of %s?", w.db.where(), w.db.table.Name, r.RecordID, recordColumn)}
		case r.Partial || !isPartial(s.Info):
			continue
		}
		if _, err := w.exec(ctx, w.db.replacement(w.layout, s.ID, r)); err != nil {
			return err
		}
		s.Info = r.Info
		stored[fit(r.RecordID, w.layout.record)] = s
	}
	return nil
}

func isPartial(info []byte) bool {
	var doc struct {
		Partial bool `json:"partial"`
	}
	return json.Unmarshal(info, &doc) == nil && doc.Partial
}

// find reads the rows of these records.
func (w writer) find(ctx context.Context, rows []Row) (map[string]Stored, error) {
	ids := make([]any, len(rows))
	for i, r := range rows {
		ids[i] = fit(r.RecordID, w.layout.record)
	}
	d := w.db.dialect
	sb := d.flavor.NewSelectBuilder()
	sb.Select(d.q(recordColumn), d.q(idColumn), d.q(w.db.table.Info)).From(d.q(w.db.table.Name)).Where(sb.In(d.raw(recordColumn), ids...))
	if d.lock {
		sb.ForUpdate()
	}
	query, args := sb.Build()
	result, err := w.tx.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, err
	}
	defer result.Close()
	stored := map[string]Stored{}
	for result.Next() {
		var id string
		var s Stored
		if err := result.Scan(&id, &s.ID, &s.Info); err != nil {
			return nil, err
		}
		stored[id] = s
	}
	return stored, result.Err()
}

// replacement puts a row into the place of a stored one.
func (db *DB) replacement(l *layout, id int64, r Row) statement {
	d, k := db.dialect, l.key(r)
	ub := d.flavor.NewUpdateBuilder()
	ub.Update(d.q(db.table.Name)).Set(
		ub.Assign(d.raw(db.table.CallID), k.callID), ub.Assign(d.raw(db.table.FromTag), k.fromTag),
		ub.Assign(d.raw(db.table.ToTag), k.toTag), ub.Assign(d.raw(db.table.Info), d.info(r.Info)),
	).Where(ub.Equal(d.raw(idColumn), id))
	query, args := ub.Build()
	return statement{query, args}
}

// mergeAll writes to a table of another program. Without transactions (MyISAM) a part may
// stay behind; merging it again changes nothing.
func (w writer) mergeAll(ctx context.Context, rows []Row) error {
	for _, r := range rows {
		if err := w.mergeOne(ctx, r); err != nil {
			return err
		}
	}
	return nil
}

func (w writer) mergeOne(ctx context.Context, r Row) error {
	k := w.layout.key(r)
	stored, found, err := w.findKey(ctx, k)
	if err == nil && found != nil && !found.equal(k) {
		// The server takes the key for that of another call, in which letters differ in case
		// for example, and has one row for both. Ours gets a key of its own.
		k.callID = digested(k.callID, r.CallID, w.layout.callID.characters)
		stored, found, err = w.findKey(ctx, k)
	}
	switch {
	case err != nil:
		return err
	case found == nil:
		_, err := w.exec(ctx, w.db.sharedInsert(k, r.Info))
		return err
	}
	merged, err := w.db.merge(stored.Info, r.Info)
	if err != nil {
		return refused{fmt.Errorf("%s: row %d of table %q is of the same call, but cannot be merged with: %w (mend or delete it)", w.db.where(), stored.ID, w.db.table.Name, err)}
	}
	if bytes.Equal(merged, stored.Info) {
		return nil
	}
	changed, err := w.exec(ctx, w.db.sharedUpdate(stored, merged))
	if err == nil && changed == 0 {
		err = refused{fmt.Errorf("%s: row %d of table %q was changed by somebody else meanwhile", w.db.where(), stored.ID, w.db.table.Name)}
	}
	return err
}

// findKey reads the oldest row with this key, and its key as it is stored.
func (w writer) findKey(ctx context.Context, k key) (s Stored, found *key, err error) {
	query := w.db.sharedFind(k)
	found = &key{}
	err = w.tx.QueryRowContext(ctx, query.query, query.args...).Scan(&s.ID, &found.callID, &found.fromTag, &found.toTag, &s.Info)
	if errors.Is(err, sql.ErrNoRows) {
		return s, nil, nil
	}
	return s, found, err
}

func (db *DB) sharedFind(k key) statement {
	d, t := db.dialect, db.table
	sb := d.flavor.NewSelectBuilder()
	sb.Select(d.q(idColumn), d.q(t.CallID), d.q(t.FromTag), d.q(t.ToTag), d.q(t.Info)).From(d.q(t.Name))
	sb.Where(sb.Equal(d.raw(t.CallID), k.callID), sb.Equal(d.raw(t.FromTag), k.fromTag), sameTag(&sb.Cond, d.raw(t.ToTag), k.toTag))
	sb.OrderByAsc(d.q(idColumn)).Limit(1)
	if d.lock {
		sb.ForUpdate()
	}
	query, args := sb.Build()
	return statement{query, args}
}

// sameTag is a condition in which NULL equals NULL.
func sameTag(c *sqlbuilder.Cond, column string, tag *string) string {
	if tag == nil {
		return c.IsNull(column)
	}
	return c.Equal(column, *tag)
}

func (db *DB) sharedInsert(k key, info []byte) statement {
	d, t := db.dialect, db.table
	ib := d.flavor.NewInsertBuilder()
	ib.InsertInto(d.raw(t.Name)).Cols(d.raw(t.CallID), d.raw(t.FromTag), d.raw(t.ToTag), d.raw(t.Info)).Values(k.callID, k.fromTag, k.toTag, d.info(info))
	query, args := ib.Build()
	return statement{query, args}
}

// sharedUpdate changes a row only if it still is what was read: MyISAM knows no locks
// between two statements.
func (db *DB) sharedUpdate(s Stored, merged []byte) statement {
	d, t := db.dialect, db.table
	ub := d.flavor.NewUpdateBuilder()
	ub.Update(d.q(t.Name)).Set(ub.Assign(d.raw(t.Info), d.info(merged))).Where(ub.Equal(d.raw(idColumn), s.ID))
	if d.flavor == sqlbuilder.MySQL {
		ub.Where(ub.Equal(d.raw(t.Info), s.Info))
	}
	query, args := ub.Build()
	return statement{query, args}
}
