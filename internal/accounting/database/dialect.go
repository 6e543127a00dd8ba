package database

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"

	"github.com/huandu/go-sqlbuilder"

	"example.org/mediaproxy/internal/config"
)

// dialect is what servers differ in.
type dialect struct {
	server      string // as people call it
	flavor      sqlbuilder.Flavor
	connections int // at the same time
	open        func(config.DatabaseURI) (*sql.DB, error)
	// prepare makes ready what has to be before the first contact. May be nil.
	prepare func(config.DatabaseURI) error
	// define returns the statements that make a table.
	define func(*DB) []string
	// lengths asks for name, length and character set of the columns of a table. Empty:
	// the server does not care.
	lengths string
	// unique counts the unique indexes of a table that have this column alone. Empty: the
	// server says so itself when there is none.
	unique string
	// once ends an INSERT that leaves a record alone which is there already. Empty:
	// rows are inserted one by one, each behind a condition.
	once     string
	lock     bool // SELECT ... FOR UPDATE
	textInfo bool // info is text, not bytes
	sameCase bool // names of columns have to agree in case
	code     func(error) (fault, bool)
	rights   func(*DB) string // that a user needs, as words of SQL
}

var dialects = map[string]*dialect{"sqlite": sqliteDialect, "mysql": mysqlDialect, "postgres": postgresDialect, "mssql": mssqlDialect}

// fault is what an error of a server is about.
type fault int

const (
	other fault = iota
	noTable
	noColumn
	exists
	denied
	login
	noDatabase
	noUnique // ON CONFLICT finds no unique index
	duplicate
	readOnly
	busy
	tooLarge
)

func (d *dialect) fault(err error) fault {
	if err == nil {
		return other
	}
	f, _ := d.code(err)
	return f
}

// refused is an error of this package, with its own words.
type refused struct{ error }

func (r refused) Unwrap() error { return r.error }

// explain adds what an operator can do.
func (db *DB) explain(err error) error {
	var own refused
	if err == nil || errors.As(err, &own) {
		return err
	}
	f, fromServer := db.dialect.code(err)
	hint := ""
	switch f {
	case denied:
		hint = "a right is missing: " + db.dialect.rights(db)
	case login:
		hint = "are user and password in dburi right, and may this user connect from this host?"
	case noDatabase:
		hint = "make the database, or name another in dburi"
	case noUnique:
		hint = db.lacksUnique()
	case readOnly:
		hint = "the database takes no changes: is it a replica, or its disk full?"
	case busy:
		hint = "somebody else keeps the table locked"
	case tooLarge:
		hint = "the server's limit for one statement is too small (max_allowed_packet of MySQL)"
	}
	var network net.Error
	switch {
	case fromServer:
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &network) && network.Timeout(), errors.Is(err, os.ErrDeadlineExceeded):
		hint = "the server does not answer in time: is it running and reachable?"
	case hint == "":
		hint = "is the server running, and are host and port in dburi right?"
	}
	if db.uri.Kind == "sqlite" && !fromServer {
		hint = ""
	}
	if hint == "" {
		return fmt.Errorf("%s: %w", db.where(), err)
	}
	return fmt.Errorf("%s: %w (%s)", db.where(), err, hint)
}

// where names the database without password.
func (db *DB) where() string {
	if db.uri.Kind == "sqlite" {
		return "SQLite database " + db.uri.Name
	}
	host := db.uri.Host
	if host == "" {
		host = "this host"
	}
	return fmt.Sprintf("%s database %s on %s", db.dialect.server, db.uri.Name, host)
}

// q quotes a name for those methods of a builder to which a dollar sign means something:
// Select, From, OrderBy, Update. All others take raw.
func (d *dialect) q(name string) string { return sqlbuilder.Escape(d.flavor.Quote(name)) }

// raw quotes a name.
func (d *dialect) raw(name string) string { return d.flavor.Quote(name) }

func (d *dialect) rawAll(names ...string) string {
	quoted := make([]string, len(names))
	for i, name := range names {
		quoted[i] = d.raw(name)
	}
	return strings.Join(quoted, ", ")
}

// sameColumn says whether two names mean the same column.
func (d *dialect) sameColumn(a, b string) bool {
	return a == b || !d.sameCase && strings.EqualFold(a, b)
}

func (d *dialect) hasColumn(columns []string, name string) bool {
	return slices.ContainsFunc(columns, func(c string) bool { return d.sameColumn(c, name) })
}

// info is the value of the column info, in the type that the server wants.
func (d *dialect) info(b []byte) any {
	if d.textInfo {
		return string(b)
	}
	return b
}
