package database

import (
	"database/sql"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
)

// What every server has to do, against real ones.
func TestServers(t *testing.T) {
	for name, l := range labs(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, c := range []struct {
				name string
				test func(*testing.T, *lab)
			}{
				{"rows are stored once", storedOnce},
				{"the whole takes the place of a part", partialReplaced},
				{"strange names", strangeNames},
				{"two dispatchers begin at once", twoBegin},
				{"values that do not fit", unfit},
				{"all or none", allOrNone},
				{"table of the original", originalTable},
				{"keys that the server confuses", confusedKeys},
				{"table of the original, converted", convertedTable},
				{"queries of the documentation", documentedQueries},
				{"columns are missing", missingColumns},
				{"no unique index", noUniqueIndex},
				{"table dropped meanwhile", dropped},
				{"no right to make a table", noRight},
				{"no right to write", readRight},
				{"wrong password", wrongPassword},
				{"pages", pages},
				{"killed and frozen", away},
			} {
				t.Run(c.name, func(t *testing.T) { c.test(t, l) })
			}
		})
	}
}

func storedOnce(t *testing.T, l *lab) {
	db := open(t, l.database(t), plain, nil)
	noTag := row("r2").with(func(r *Row) { r.ToTag = nil })
	empty := ""
	emptyTag := row("r3").with(func(r *Row) { r.ToTag = &empty })
	want := []Row{row("r1"), noTag, emptyTag}
	for range 2 {
		must(t, db.Store(t.Context(), want))
	}
	must(t, db.Store(t.Context(), []Row{noTag, row("r4"), row("r1"), row("r4")}))
	if diff := cmp.Diff(append(want, row("r4")), read(t, db)); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	many := []Row{}
	for i := range 3*batch + 5 {
		many = append(many, row(fmt.Sprint("m", i)))
	}
	must(t, db.Store(t.Context(), many[:batch/2]))
	must(t, db.Store(t.Context(), many))
	if diff := cmp.Diff(append(append(want, row("r4")), many...), read(t, db)); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func partialReplaced(t *testing.T, l *lab) {
	db := open(t, l.database(t), plain, nil)
	whole := row("r1").with(func(r *Row) { r.ToTag = nil })
	for _, c := range []struct {
		store, want []Row
	}{
		{[]Row{partial(row("r1"))}, []Row{partial(row("r1"))}},
		{[]Row{partial(row("r1")), row("r2")}, []Row{partial(row("r1")), row("r2")}},
		{[]Row{whole}, []Row{whole, row("r2")}},
		{[]Row{partial(row("r1")), partial(row("r2"))}, []Row{whole, row("r2")}},
		{[]Row{row("r1")}, []Row{whole, row("r2")}}, // a second whole one changes nothing
		{[]Row{partial(row("r3")), row("r3"), partial(row("r3"))}, []Row{whole, row("r2"), row("r3")}},
	} {
		must(t, db.Store(t.Context(), c.store))
		if diff := cmp.Diff(c.want, read(t, db)); diff != "" {
			t.Fatalf("after %+v: -want +got:\n%s", c.store, diff)
		}
	}
}

func strangeNames(t *testing.T, l *lab) {
	db := open(t, l.database(t), strange, nil)
	for _, rows := range [][]Row{{partial(row("r1"))}, {row("r1"), row("r2")}} {
		must(t, db.Store(t.Context(), rows))
	}
	if diff := cmp.Diff([]Row{row("r1"), row("r2")}, read(t, db)); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func twoBegin(t *testing.T, l *lab) {
	uri := l.database(t)
	dbs := []*DB{open(t, uri, plain, nil), open(t, uri, plain, nil)}
	var wg sync.WaitGroup
	for i, db := range dbs {
		wg.Go(func() {
			for j := range 20 { // an outbox tries again what a deadlock has refused
				for db.Store(t.Context(), []Row{row(fmt.Sprint("r", i, j)), row(fmt.Sprint("both", j))}) != nil && t.Context().Err() == nil {
				}
			}
		})
	}
	wg.Wait()
	if n := len(read(t, dbs[0])); n != 60 {
		t.Errorf("%d rows, want 60", n)
	}
}

func unfit(t *testing.T, l *lab) {
	db := open(t, l.database(t), plain, nil)
	long := strings.Repeat("ä€😀", 200)
	to := strings.Repeat("t", 65)
	rows := []Row{
		row("r1").with(func(r *Row) { r.CallID, r.ToTag = long, &to }),
		row("r2").with(func(r *Row) { r.CallID, r.FromTag = long+"!", "nul\x00 and \xff" }),
		row("r3").with(func(r *Row) { r.CallID = "grüße 😀" }),
		row(strings.Repeat("i", 70)),
		row(strings.Repeat("i", 71)),
	}
	for range 2 {
		must(t, db.Store(t.Context(), rows))
	}
	got := read(t, db)
	if len(got) != len(rows) {
		t.Fatalf("%d rows, want %d", len(got), len(rows))
	}
	for i, r := range got {
		for what, v := range map[string]string{"record": r.RecordID, "call": r.CallID, "from": r.FromTag, "to": *r.ToTag} {
			if !utf8.ValidString(v) || strings.Contains(v, "\x00") {
				t.Errorf("row %d: %s is %q", i, what, v)
			}
		}
		if string(r.Info) != string(rows[i].Info) {
			t.Errorf("row %d: %s", i, r.Info)
		}
	}
	if got[0].CallID == got[1].CallID || utf8.RuneCountInString(got[0].CallID) != 255 || !strings.HasPrefix(got[0].CallID, "ä€😀") {
		t.Errorf("Call-IDs %q, %q", got[0].CallID, got[1].CallID)
	}
	if got[2].CallID != "grüße 😀" || got[3].RecordID == got[4].RecordID || utf8.RuneCountInString(*got[0].ToTag) != 64 {
		t.Errorf("values %+v", got[2:])
	}
}

// A row that the server refuses takes the others of its batch along.
func allOrNone(t *testing.T, l *lab) {
	db := open(t, l.database(t), plain, nil)
	must(t, db.Store(t.Context(), []Row{row("r1")}))
	exec(t, db, fmt.Sprintf("CREATE UNIQUE INDEX one ON %s (%s)", l.raw("media_sessions"), l.raw("from_tag")))
	double := row("r9").with(func(r *Row) { r.FromTag = "from-r1" })
	rows := []Row{}
	for i := range batch + 10 {
		rows = append(rows, row(fmt.Sprint("m", i)))
	}
	if err := db.Store(t.Context(), append(rows, double)); err == nil {
		t.Error("a row was stored that the index forbids")
	}
	if diff := cmp.Diff([]Row{row("r1")}, read(t, db)); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func documentedQueries(t *testing.T, l *lab) {
	db := open(t, l.database(t), plain, nil)
	doc := `{"from_uri": "\u00e4@example.com\u0000", "start_time": %s, "duration": 61, "streams": [{"caller_bytes": 7}, {"caller_bytes": 9007199254740993}]}`
	for i, start := range []string{"1700000000.25", "1800000000.5"} { // of 2023 and 2027
		must(t, db.Store(t.Context(), []Row{row(fmt.Sprint("r", i)).with(func(r *Row) { r.Info = fmt.Appendf(nil, doc, start) })}))
	}
	mark := map[*dialect]string{sqliteDialect: "unixepoch(", postgresDialect: "jsonb_array_elements", mysqlDialect: "JSON_VALUE"}[l.dialect]
	for _, block := range strings.Split(guide(t), "```\n") {
		if !strings.HasPrefix(block, "SELECT") || !strings.Contains(block, mark) {
			continue
		}
		rows, err := db.sql.QueryContext(t.Context(), block)
		must(t, err)
		defer rows.Close()
		columns, err := rows.Columns()
		must(t, err)
		var calls []string
		for rows.Next() {
			values := make([]any, len(columns))
			for i := range values {
				values[i] = new(sql.NullString)
			}
			must(t, rows.Scan(values...))
			calls = append(calls, values[0].(*sql.NullString).String+" "+values[3].(*sql.NullString).String)
			if sum := values[len(values)-1].(*sql.NullString).String; len(columns) == 5 && sum != "9007199254741000" {
				t.Errorf("bytes %s", sum)
			}
		}
		must(t, rows.Err())
		if diff := cmp.Diff([]string{"call-r1 61"}, calls); diff != "" {
			t.Errorf("-want +got:\n%s", diff)
		}
		return
	}
	t.Error("there is no query for this server")
}

func missingColumns(t *testing.T, l *lab) {
	uri := l.database(t)
	exec(t, l.as(t, uri), "CREATE TABLE media_sessions (id INT, call_id VARCHAR(255), from_tag VARCHAR(64), to_tag VARCHAR(64))",
		"CREATE TABLE other (call_id VARCHAR(255), from_tag VARCHAR(64), to_tag VARCHAR(64), info TEXT)")
	other := plain
	other.Name = "other"
	for _, c := range []struct {
		table Table
		want  []string
	}{
		{plain, []string{`no column "info"`, "call_id, from_tag", "info_column"}},
		{other, []string{`no column "id"`, "sessions_table"}},
	} {
		refusal(t, open(t, uri, c.table, nil).Store(t.Context(), []Row{row("r1")}), c.want...)
	}
}

// refusal is an error that says these things, and no password.
func refusal(t *testing.T, err error, want ...string) {
	t.Helper()
	if err == nil {
		t.Fatal("no error")
	}
	noSecret(t, err.Error())
	for _, w := range want {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("%q is not in: %v", w, err)
		}
	}
}

// Without the index MariaDB would store a record twice without a word.
func noUniqueIndex(t *testing.T, l *lab) {
	uri := l.database(t)
	exec(t, l.as(t, uri), "CREATE TABLE media_sessions (id INT, call_id VARCHAR(255), from_tag VARCHAR(64), to_tag VARCHAR(64), info TEXT, record_id VARCHAR(64))")
	refusal(t, open(t, uri, plain, nil).Store(t.Context(), []Row{row("r1")}), "record_id", "unique index")
}

func dropped(t *testing.T, l *lab) {
	db := open(t, l.database(t), plain, nil)
	must(t, db.Store(t.Context(), []Row{row("r1")}))
	exec(t, db, "DROP TABLE media_sessions")
	if page, err := db.Page(t.Context(), 0, 10); err == nil && len(page) > 0 {
		t.Errorf("page %+v", page)
	}
	must(t, db.Store(t.Context(), []Row{row("r2")}))
	if diff := cmp.Diff([]Row{row("r2")}, read(t, db)); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	// Somebody restores a table of the original.
	exec(t, db, "DROP TABLE media_sessions")
	l.original(t, db)
	must(t, db.Store(t.Context(), []Row{row("r3")}))
	if got := read(t, db); len(got) != 1 || got[0].CallID != "call-r3" {
		t.Errorf("rows %+v", got)
	}
}

func noRight(t *testing.T, l *lab) {
	uri := l.database(t)
	name := fmt.Sprintf("calls%d", l.made.Load())
	switch l.dialect {
	case mysqlDialect:
		l.server.Do("REVOKE ALL ON "+name+".* FROM "+name+"@'127.0.0.1'", "GRANT SELECT, INSERT, UPDATE ON "+name+".* TO "+name+"@'127.0.0.1'")
	case postgresDialect:
		l.server.Do("ALTER DATABASE " + name + " OWNER TO postgres") // whose schema nobody else may write to
	default:
		t.Log("a file has no such rights; see the missing folder")
		dir := t.TempDir()
		refusal(t, open(t, "sqlite:"+dir+"/missing/x.db", plain, nil).Store(t.Context(), []Row{row("r1")}), "missing/x.db", "dburi")
		return
	}
	log := newLog()
	db := open(t, uri, plain, log)
	for range 2 {
		refusal(t, db.Store(t.Context(), []Row{row("r1")}), "media_sessions", "CREATE", name, "SELECT, INSERT and UPDATE")
	}
	if n := strings.Count(log.String(), "CREATE TABLE"); n != 1 {
		t.Errorf("the definition is in the log %d times:\n%s", n, log.String())
	}
	// What is in the log makes the table.
	statements := db.dialect.define(db)
	for _, s := range statements {
		if !strings.Contains(log.String(), strings.Trim(fmt.Sprintf("%q", s), `"`)) {
			t.Errorf("%s is not in %s", s, log.String())
		}
	}
	if l.dialect == mysqlDialect {
		l.server.Do("USE " + name + "; " + strings.Join(statements, "; "))
	} else {
		l.server.DoIn(name, append(statements, "GRANT SELECT, INSERT, UPDATE ON media_sessions TO "+name)...)
	}
	for _, r := range []Row{partial(row("r1")), row("r1")} { // these rights are all that is needed
		must(t, db.Store(t.Context(), []Row{r}))
	}
	if diff := cmp.Diff([]Row{row("r1")}, read(t, db)); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func readRight(t *testing.T, l *lab) {
	uri := l.database(t)
	name := fmt.Sprintf("calls%d", l.made.Load())
	db := open(t, uri, plain, nil)
	must(t, db.Store(t.Context(), []Row{row("r1")}))
	switch l.dialect {
	case mysqlDialect:
		l.server.Do("REVOKE ALL ON "+name+".* FROM "+name+"@'127.0.0.1'", "GRANT SELECT ON "+name+".* TO "+name+"@'127.0.0.1'")
	case postgresDialect:
		l.server.DoIn(name, "ALTER TABLE media_sessions OWNER TO postgres", "GRANT SELECT ON media_sessions TO "+name)
	default:
		exec(t, db, "PRAGMA query_only = 1")
		refusal(t, db.Store(t.Context(), []Row{row("r2")}), db.uri.Name, "able to write")
		exec(t, db, "PRAGMA query_only = 0")
		must(t, db.Store(t.Context(), []Row{row("r2")}))
		return
	}
	db = open(t, uri, plain, nil) // MariaDB asks for rights when a connection is made
	refusal(t, db.Store(t.Context(), []Row{row("r2")}), "GRANT SELECT, INSERT, UPDATE ON", "media_sessions", "127.0.0.1")
}

func wrongPassword(t *testing.T, l *lab) {
	uri := l.database(t)
	if l.dialect == sqliteDialect {
		path := t.TempDir() + "/text.db"
		must(t, os.WriteFile(path, []byte(strings.Repeat("this is no database\n", 100)), 0o600))
		refusal(t, open(t, "sqlite:"+path, plain, nil).Store(t.Context(), []Row{row("r1")}), path, "not a database")
		return
	}
	name := fmt.Sprintf("calls%d", l.made.Load())
	refusal(t, open(t, strings.Replace(uri, encoded, encoded+"x", 1), plain, nil).Store(t.Context(), []Row{row("r1")}), "user and password", name)
	port := fmt.Sprint(l.server.Port)
	refusal(t, open(t, strings.Replace(uri, port+"/"+name, port+"/absent", 1), plain, nil).Store(t.Context(), []Row{row("r1")}), "absent")
}

func pages(t *testing.T, l *lab) {
	db := open(t, l.database(t), strange, nil)
	if page, err := db.Page(t.Context(), 0, 10); err != nil || len(page) > 0 {
		t.Fatalf("without a table: %+v, %v", page, err)
	}
	want := []string{}
	for i := range 25 {
		r := row(fmt.Sprint("r", i))
		must(t, db.Store(t.Context(), []Row{r}))
		want = append(want, string(r.Info))
	}
	got, after := []string{}, int64(0)
	for {
		page, err := db.Page(t.Context(), after, 10)
		must(t, err)
		if len(page) == 0 {
			break
		}
		if len(page) > 10 {
			t.Fatalf("%d rows", len(page))
		}
		for _, s := range page {
			if s.ID <= after {
				t.Fatalf("id %d after %d", s.ID, after)
			}
			after = s.ID
			got = append(got, string(s.Info))
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}
