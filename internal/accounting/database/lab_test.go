package database

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"go.uber.org/goleak"

	"example.org/mediaproxy/test/servers"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// password has what a dburi has to encode.
const (
	password = `pä$$:/@%'"zebra`
	encoded  = `p%C3%A4$$%3A%2F%40%25'%22zebra`
)

// lab is one kind of server.
type lab struct {
	*dialect
	server *servers.Server // nil: SQLite
	made   atomic.Int64    // databases
}

func labs(t *testing.T) map[string]*lab {
	return map[string]*lab{
		"sqlite":     {dialect: sqliteDialect},
		"mariadb":    {dialect: mysqlDialect, server: servers.MariaDB(t)},
		"postgresql": {dialect: postgresDialect, server: servers.Postgres(t)},
	}
}

// database makes an empty one, and its user.
func (l *lab) database(t *testing.T) (uri string) {
	name := fmt.Sprintf("calls%d", l.made.Add(1))
	secret := strings.ReplaceAll(password, "'", "''")
	switch l.dialect {
	case mysqlDialect:
		l.server.Do("CREATE DATABASE "+name+" CHARACTER SET latin1", fmt.Sprintf("CREATE USER %s@'127.0.0.1' IDENTIFIED BY '%s'", name, secret), fmt.Sprintf("GRANT ALL ON %s.* TO %s@'127.0.0.1'", name, name))
		return fmt.Sprintf("mysql://%s:%s@127.0.0.1:%d/%s", name, encoded, l.server.Port, name)
	case postgresDialect:
		l.server.Do("CREATE USER "+name+" PASSWORD '"+secret+"'", "CREATE DATABASE "+name+" OWNER "+name)
		return fmt.Sprintf("postgresql://%s:%s@127.0.0.1:%d/%s?sslmode=disable", name, encoded, l.server.Port, name)
	}
	return "sqlite:" + strings.ReplaceAll(filepath.Join(t.TempDir(), "100%25 äöü%3F.db"), " ", "%20")
}

var plain = Table{Name: "media_sessions", CallID: "call_id", FromTag: "from_tag", ToTag: "to_tag", Info: "info"}

// strange names are what one can configure at most.
var strange = Table{Name: "order by $1 'x' ünï", CallID: "call id", FromTag: "from", ToTag: "select", Info: "$x ${y} ?"}

// join is a merge that keeps both, once.
func join(stored, added []byte) ([]byte, error) {
	for _, line := range bytes.Split(stored, []byte("\n")) {
		if bytes.Equal(line, added) {
			return stored, nil
		}
	}
	return bytes.Join([][]byte{stored, added}, []byte("\n")), nil
}

// logged is where a DB writes to.
type logged struct {
	bytes.Buffer
	*slog.Logger
}

func newLog() *logged {
	l := &logged{}
	l.Logger = slog.New(slog.NewTextHandler(&l.Buffer, nil))
	return l
}

func open(t *testing.T, uri string, table Table, log *logged) *DB {
	t.Helper()
	if log == nil {
		log = newLog()
	}
	db, err := Open(uri, table, join, log.Logger)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
		noSecret(t, log.String())
	})
	return db
}

// noSecret fails if the password is in a text.
func noSecret(t *testing.T, text string) {
	t.Helper()
	for _, secret := range []string{password, encoded, "zebra"} {
		if strings.Contains(text, secret) {
			t.Errorf("the password is shown: %s", text)
		}
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// row is one with a document that names it.
func row(id string) Row {
	to := "to-" + id
	return Row{RecordID: id, CallID: "call-" + id, FromTag: "from-" + id, ToTag: &to, Info: []byte(`{"record_id": "` + id + `", "duration": 61, "caller_ua": "a \"quoted\" \\ \u00e4"}`)}
}

func partial(r Row) Row {
	r.Partial = true
	r.Info = bytes.Replace(r.Info, []byte("}"), []byte(`, "partial": true}`), 1)
	return r
}

func (r Row) with(change func(*Row)) Row { change(&r); return r }

// read returns all that the table has, without the ids of rows.
func read(t *testing.T, db *DB) []Row {
	t.Helper()
	d, tab := db.dialect, db.table
	columns := []string{tab.CallID, tab.FromTag, tab.ToTag, tab.Info}
	have, err := db.columns(t.Context())
	must(t, err)
	withID := d.hasColumn(have, recordColumn)
	if withID {
		columns = append(columns, recordColumn)
	}
	rows, err := db.sql.QueryContext(t.Context(), fmt.Sprintf("SELECT %s FROM %s ORDER BY id", d.rawAll(columns...), d.raw(tab.Name)))
	must(t, err)
	defer rows.Close()
	var all []Row
	for rows.Next() {
		var r Row
		into := []any{&r.CallID, &r.FromTag, &r.ToTag, &r.Info}
		if withID {
			into = append(into, &r.RecordID)
		}
		must(t, rows.Scan(into...))
		r.Partial = isPartial(r.Info)
		all = append(all, r)
	}
	must(t, rows.Err())
	return all
}

func exec(t *testing.T, db *DB, statements ...string) {
	t.Helper()
	for _, s := range statements {
		if _, err := db.sql.ExecContext(t.Context(), s); err != nil {
			t.Fatalf("%s: %v", s, err)
		}
	}
}

// as opens a connection of a test's own.
func (l *lab) as(t *testing.T, uri string) *DB { return open(t, uri, plain, nil) }

// soon is a context that ends long after every time-out of ours.
func soon(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 3*workTime)
	t.Cleanup(cancel)
	return ctx
}
