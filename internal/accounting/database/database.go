// Package database keeps rows about finished calls in one table of an SQL server: SQLite,
// MySQL and MariaDB, PostgreSQL, or Microsoft SQL Server.
//
//	id   record_id   call id   from tag   to tag   info
//
// The table is looked at when it is first needed, and made if it is not there, because a
// daemon starts while its database is down. One without record_id was made by another
// program, which has one row for each (call id, from tag, to tag): rows that agree in
// these are merged there.
//
// The package knows rows, not what info says. SQL Server is tested as text only.
package database

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"example.org/mediaproxy/internal/config"
)

// Table is what the table and its columns are called.
type Table struct{ Name, CallID, FromTag, ToTag, Info string }

// Columns that have the same name everywhere.
const (
	idColumn     = "id"
	recordColumn = "record_id"
)

// Row is one finished call.
type Row struct {
	RecordID, CallID, FromTag string
	ToTag                     *string // nil is NULL
	Info                      []byte  // JSON in ASCII
	// Partial rows give way to one of the same id that is not, and never the other way
	// round. What is stored is known by the member "partial" of its info.
	Partial bool
}

const (
	// workTime bounds all that is done at once with a server: one that is frozen is an
	// error like one that is down.
	workTime    = 10 * time.Second
	connectTime = 5 * time.Second
	// batch is how many rows go into one statement: six values each, of which every server
	// takes 2000.
	batch = 128
)

// DB is open until Close. Its methods may be called from anywhere.
type DB struct {
	// set in Open, read-only afterwards
	sql     *sql.DB
	dialect *dialect
	table   Table
	uri     config.DatabaseURI
	merge   func(stored, added []byte) ([]byte, error)
	log     *slog.Logger

	mu      sync.Mutex // guards what follows
	layout  *layout    // nil: not looked at
	printed bool       // the definition is in the log
}

// Open makes no contact: a server that is down now is no error. merge makes one info of
// two that belong into the same row; adding the same twice has to change nothing.
func Open(uri string, t Table, merge func(stored, added []byte) ([]byte, error), log *slog.Logger) (*DB, error) {
	u, err := config.ParseDatabaseURI(uri)
	if err != nil {
		return nil, fmt.Errorf("dburi in section [Database] is not valid: %w", err)
	}
	db := &DB{dialect: dialects[u.Kind], table: t, uri: u, merge: merge, log: log}
	if db.sql, err = db.dialect.open(u); err != nil {
		return nil, fmt.Errorf("dburi in section [Database]: %w", err)
	}
	db.sql.SetMaxOpenConns(db.dialect.connections)
	db.sql.SetConnMaxIdleTime(time.Minute)
	db.sql.SetConnMaxLifetime(10 * time.Minute) // so that a server that moved is found
	return db, nil
}

// Close ends the connections.
func (db *DB) Close() error { return db.sql.Close() }

// Store stores all rows, or none and says why. Rows that are stored already are left
// alone.
func (db *DB) Store(ctx context.Context, rows []Row) error {
	if len(rows) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, workTime)
	defer cancel()
	err := db.store(ctx, rows)
	if f := db.dialect.fault(err); f == noTable || f == noColumn { // it changed since it was looked at
		err = db.store(ctx, rows)
	}
	return db.explain(err)
}

func (db *DB) store(ctx context.Context, rows []Row) error {
	l, err := db.look(ctx, true)
	if err != nil {
		return err
	}
	if err = db.write(ctx, l, rows); err != nil {
		db.forget()
	}
	return err
}

// write stores rows in one transaction, where the server has such a thing.
func (db *DB) write(ctx context.Context, l *layout, rows []Row) error {
	tx, err := db.sql.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback() // without effect after Commit
	w := writer{db: db, tx: tx, layout: l}
	if l.shared {
		err = w.mergeAll(ctx, rows)
	} else {
		err = w.insertAll(ctx, rows)
	}
	if err != nil {
		return err
	}
	return tx.Commit()
}

// Stored is a row as it lies in the table.
type Stored struct {
	ID   int64
	Info []byte
}

// Page reads up to limit rows behind the one with this id, in the order of their ids,
// which begin above 0.
func (db *DB) Page(ctx context.Context, after int64, limit int) ([]Stored, error) {
	ctx, cancel := context.WithTimeout(ctx, workTime)
	defer cancel()
	page, err := db.page(ctx, after, limit)
	if err != nil {
		db.forget()
	}
	return page, db.explain(err)
}

func (db *DB) page(ctx context.Context, after int64, limit int) ([]Stored, error) {
	l, err := db.look(ctx, false)
	if errors.Is(err, errAbsent) {
		return nil, nil // no call was stored yet
	}
	if err != nil {
		return nil, err
	}
	query, args := db.pageQuery(l, after, limit)
	rows, err := db.sql.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var page []Stored
	for rows.Next() {
		var s Stored
		if err := rows.Scan(&s.ID, &s.Info); err != nil {
			return nil, err
		}
		page = append(page, s)
	}
	return page, rows.Err()
}
