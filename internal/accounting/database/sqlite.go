package database

import (
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"os"
	"strings"

	"github.com/huandu/go-sqlbuilder"
	"modernc.org/sqlite"
	codes "modernc.org/sqlite/lib"

	"example.org/mediaproxy/internal/config"
)

var sqliteDialect = &dialect{
	server: "SQLite", flavor: sqlbuilder.SQLite, textInfo: true, // SQLite reads JSON in text
	connections: 1, // it has one writer at a time
	open:        openSQLite, prepare: makeFile, define: defineSQLite, code: sqliteFault,
	once: `ON CONFLICT ("record_id") DO NOTHING`,
	rights: func(db *DB) string {
		return fmt.Sprintf("the program's user has to be able to write %s, and into its folder", db.uri.Name)
	},
}

// openSQLite: in write-ahead mode readers and the writer do not wait for each other; FULL
// has every commit on the disk, as a record that was stored is gone from the outbox.
func openSQLite(u config.DatabaseURI) (*sql.DB, error) {
	q := url.Values{"_txlock": {"immediate"}, "_pragma": {"busy_timeout(5000)", "journal_mode(WAL)", "synchronous(FULL)"}}
	return sql.Open("sqlite", (&url.URL{Scheme: "file", Path: u.Name, RawQuery: q.Encode()}).String())
}

// makeFile makes the file as others must not read it: it tells who called whom.
func makeFile(u config.DatabaseURI) error {
	f, err := os.OpenFile(u.Name, os.O_CREATE|os.O_RDWR, 0o640)
	if err != nil {
		return refused{fmt.Errorf("open the SQLite database: %w (dburi in section [Database] names a file in a folder that this user may write to)", err)}
	}
	return f.Close()
}

func defineSQLite(db *DB) []string {
	t, q := db.table, db.dialect.raw
	return []string{
		fmt.Sprintf("CREATE TABLE IF NOT EXISTS %s (\n  \"id\" INTEGER PRIMARY KEY AUTOINCREMENT,\n  \"record_id\" VARCHAR(64) NOT NULL UNIQUE,\n"+
			"  %s VARCHAR(255) NOT NULL,\n  %s VARCHAR(64) NOT NULL,\n  %s VARCHAR(64) NULL,\n  %s TEXT NOT NULL\n)",
			q(t.Name), q(t.CallID), q(t.FromTag), q(t.ToTag), q(t.Info)),
		fmt.Sprintf("CREATE INDEX IF NOT EXISTS %s ON %s (%s)", q(db.indexName()), q(t.Name), db.dialect.rawAll(t.CallID, t.FromTag, t.ToTag)),
	}
}

func sqliteFault(err error) (fault, bool) {
	var e *sqlite.Error
	if !errors.As(err, &e) {
		return other, false
	}
	text := e.Error()
	switch e.Code() & 0xff { // the rest says more than we need
	case codes.SQLITE_BUSY, codes.SQLITE_LOCKED:
		return busy, true
	case codes.SQLITE_PERM, codes.SQLITE_AUTH, codes.SQLITE_CANTOPEN:
		return denied, true
	case codes.SQLITE_READONLY:
		return denied, true
	case codes.SQLITE_FULL:
		return readOnly, true
	case codes.SQLITE_CONSTRAINT:
		return duplicate, true
	case codes.SQLITE_ERROR, codes.SQLITE_SCHEMA: // these have no codes of their own
		switch {
		case strings.Contains(text, "no such table"):
			return noTable, true
		case strings.Contains(text, "no such column"), strings.Contains(text, "has no column named"):
			return noColumn, true
		case strings.Contains(text, "already exists"):
			return exists, true
		case strings.Contains(text, "ON CONFLICT clause does not match"):
			return noUnique, true
		}
	}
	return other, true
}
