package database

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// original makes the table as another program does.
func (l *lab) original(t *testing.T, db *DB) {
	tab, q := db.table, l.raw
	columns := fmt.Sprintf("%s VARCHAR(255) NOT NULL, %s VARCHAR(64) NOT NULL, %s VARCHAR(64)", q(tab.CallID), q(tab.FromTag), q(tab.ToTag))
	index := "(" + l.rawAll(tab.CallID, tab.FromTag, tab.ToTag) + ")"
	name, info := q(tab.Name), q(tab.Info)
	switch l.dialect {
	case mysqlDialect:
		exec(t, db, "CREATE TABLE "+name+" (id INT PRIMARY KEY AUTO_INCREMENT, "+columns+", "+info+" MEDIUMBLOB NOT NULL, UNIQUE INDEX callid_idx "+index+") ENGINE=MyISAM CHARACTER SET latin1")
	case postgresDialect:
		exec(t, db, "CREATE TABLE "+name+" (id SERIAL PRIMARY KEY, "+columns+", "+info+" BYTEA NOT NULL)", "CREATE UNIQUE INDEX media_sessions_callid_idx ON "+name+index)
	default:
		exec(t, db, "CREATE TABLE "+name+" (id INTEGER PRIMARY KEY AUTOINCREMENT, "+columns+", "+info+" CHAR(16777215) NOT NULL)", "CREATE UNIQUE INDEX media_sessions_callid_idx ON "+name+index)
	}
}

func originalTable(t *testing.T, l *lab) {
	for name, table := range map[string]Table{"plain": plain, "strange": strange} {
		t.Run(name, func(t *testing.T) {
			db := open(t, l.database(t), table, nil)
			l.original(t, db)
			mergedRows(t, l, db)
		})
	}
}

func mergedRows(t *testing.T, l *lab, db *DB) {
	into := fmt.Sprintf("INSERT INTO %s (%s) VALUES ", l.raw(db.table.Name), l.rawAll(db.table.CallID, db.table.FromTag, db.table.ToTag, db.table.Info))
	exec(t, db, into+"('call-r1', 'from-r1', 'to-r1', 'old 1')", into+"('call-r2', 'from-r2', NULL, 'old 2')")
	noTag := row("r2").with(func(r *Row) { r.ToTag = nil })
	second := row("r1").with(func(r *Row) { r.RecordID = "other"; r.Info = []byte(`{"record_id": "other"}`) })
	rows := []Row{row("r1"), noTag, row("r3"), second, row("grüße 😀")}
	for range 2 {
		must(t, db.Store(t.Context(), rows))
	}
	got := read(t, db)
	var infos []string
	for _, r := range got {
		infos = append(infos, string(r.Info))
	}
	want := []string{"old 1\n" + string(row("r1").Info) + "\n" + string(second.Info), "old 2\n" + string(noTag.Info), string(row("r3").Info), string(row("grüße 😀").Info)}
	if diff := cmp.Diff(want, infos); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	if l.dialect == mysqlDialect && !strings.HasPrefix(got[3].CallID, "call-gr??e ?~") {
		t.Errorf("in latin1 the Call-ID is %q", got[3].CallID)
	}
}

// guide is where people are told what to type.
func guide(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile("../../../docs/accounting-database.md")
	must(t, err)
	return string(text)
}

// A table of the original that is changed as the documentation says is like one of ours.
func convertedTable(t *testing.T, l *lab) {
	db := open(t, l.database(t), plain, nil)
	l.original(t, db)
	must(t, db.Store(t.Context(), []Row{row("r1")}))
	statements := map[*dialect][]string{
		mysqlDialect:    {"ALTER TABLE media_sessions DROP INDEX callid_idx", "ALTER TABLE media_sessions ENGINE=InnoDB"},
		postgresDialect: {"DROP INDEX media_sessions_callid_idx"},
		sqliteDialect:   {"DROP INDEX media_sessions_callid_idx"},
	}[l.dialect]
	add := "ALTER TABLE media_sessions ADD record_id VARCHAR(64) NULL UNIQUE"
	if l.dialect == sqliteDialect { // which adds no unique column
		add = "ALTER TABLE media_sessions ADD record_id VARCHAR(64) NULL"
		statements = append(statements, "CREATE UNIQUE INDEX media_sessions_record ON media_sessions (record_id)")
	}
	for _, s := range append(statements, add) {
		if !strings.Contains(guide(t), s) {
			t.Errorf("the documentation does not say: %s", s)
		}
	}
	exec(t, db, append([]string{add}, statements...)...)
	db.forget() // the dispatcher is started anew
	second := row("r2").with(func(r *Row) { r.CallID, r.FromTag, r.ToTag = "call-r1", "from-r1", row("r1").ToTag })
	for range 2 {
		must(t, db.Store(t.Context(), []Row{partial(second), second}))
	}
	rows, err := db.sql.QueryContext(t.Context(), "SELECT record_id, info FROM media_sessions ORDER BY id")
	must(t, err)
	defer rows.Close()
	var got []string
	for rows.Next() {
		var id *string
		var info []byte
		must(t, rows.Scan(&id, &info))
		if id == nil {
			id = new(string)
		}
		got = append(got, *id+string(info))
	}
	must(t, rows.Err())
	if diff := cmp.Diff([]string{string(row("r1").Info), "r2" + string(second.Info)}, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

// MariaDB's usual collations take these for the same key, and the index of the original
// has one row for it.
func confusedKeys(t *testing.T, l *lab) {
	db := open(t, l.database(t), plain, nil)
	l.original(t, db)
	rows := []Row{}
	for i, id := range []string{"abc", "ABC", "Abc", "abc "} {
		rows = append(rows, row(fmt.Sprint("r", i)).with(func(r *Row) { r.CallID, r.FromTag, r.ToTag = id, "f", nil }))
	}
	for range 2 {
		must(t, db.Store(t.Context(), rows))
	}
	got := read(t, db)
	if len(got) != len(rows) {
		t.Fatalf("%d rows, want %d: %+v", len(got), len(rows), got)
	}
	for i, r := range got {
		if string(r.Info) != string(rows[i].Info) || !strings.HasPrefix(r.CallID, strings.TrimSpace(rows[i].CallID)) {
			t.Errorf("row %d: %q %s", i, r.CallID, r.Info)
		}
	}
}
