package config

import (
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// DatabaseURI is a database and how to get at it.
type DatabaseURI struct {
	Kind           string // "mysql", "postgres", "sqlite" or "mssql"
	User, Password string
	Host           string // empty: this host
	Port           uint16 // 0: the usual one
	Name           string // of the database; of sqlite the absolute path of its file
	Params         map[string]string
}

// databaseKinds are the schemes of a dburi and what each may say behind a question mark.
var databaseKinds = map[string]struct {
	kind   string
	params []string
}{
	"mysql":      {"mysql", []string{"unix_socket", "tls"}},
	"postgres":   {"postgres", postgresParams},
	"postgresql": {"postgres", postgresParams},
	"sqlite":     {"sqlite", nil},
	"mssql":      {"mssql", []string{"encrypt", "TrustServerCertificate", "certificate"}},
}

var postgresParams = []string{"host", "sslmode", "sslrootcert", "sslcert", "sslkey", "search_path"}

// idleParams are words of the original's database library that change nothing here.
var idleParams = []string{"autoCommit", "cache", "charset", "debug", "debugOutput", "driver", "sqlobject_encoding", "timeout", "use_unicode"}

const (
	databaseForms = "mysql://USER:PASSWORD@HOST/DATABASE, postgres://USER:PASSWORD@HOST/DATABASE, mssql://USER:PASSWORD@HOST/DATABASE or sqlite:/PATH"
	databaseChars = "in a user name or password the characters / ? # @ : % have to be written as %2F %3F %23 %40 %3A %25 (and in this file each % twice)"
)

// ParseDatabaseURI reads a dburi. Its errors never show any of it but the scheme, because
// a password is somewhere in it.
func ParseDatabaseURI(s string) (u DatabaseURI, err error) {
	if _, err := oneLine(s); err != nil {
		return u, errors.New("want " + databaseForms)
	}
	scheme, _, _ := strings.Cut(s, ":")
	known, ok := databaseKinds[strings.ToLower(scheme)]
	switch {
	case ok:
	case slices.Contains([]string{"firebird", "sybase", "maxdb"}, strings.ToLower(scheme)):
		return u, fmt.Errorf("%s is not supported; there are mysql (also for MariaDB), postgres, mssql and sqlite", strings.ToLower(scheme))
	default:
		return u, errors.New("want " + databaseForms)
	}
	parsed, err := url.Parse(escapePercent(s))
	if err != nil || parsed.Fragment != "" || strings.Contains(s, "#") {
		return u, errors.New("it cannot be taken apart; want " + databaseForms + "; " + databaseChars)
	}
	u.Kind = known.kind
	if u.Params, err = databaseParams(parsed.RawQuery, known.params); err != nil {
		return DatabaseURI{}, err
	}
	if u.Kind == "sqlite" {
		return u.withFile(parsed)
	}
	return u.withServer(parsed)
}

// escapePercent makes a percent sign that begins no escape one that stands for itself, as
// the original takes it.
func escapePercent(s string) string {
	hex := func(i int) bool { return i < len(s) && strings.IndexByte("0123456789abcdefABCDEF", s[i]) >= 0 }
	var b strings.Builder
	for i := range len(s) {
		b.WriteByte(s[i])
		if s[i] == '%' && !(hex(i+1) && hex(i+2)) {
			b.WriteString("25")
		}
	}
	return b.String()
}

func databaseParams(query string, allowed []string) (map[string]string, error) {
	values, err := url.ParseQuery(query)
	if err != nil {
		return nil, errors.New("what is behind the question mark cannot be read; " + databaseChars)
	}
	params := map[string]string{}
	for name, value := range values {
		switch {
		case slices.Contains(allowed, name) && len(value) == 1 && value[0] != "" && !strings.ContainsFunc(value[0], unicode.IsControl):
			params[name] = value[0]
		case slices.Contains(allowed, name):
			return nil, fmt.Errorf("%s has to have one value", name)
		case slices.Contains(idleParams, name):
		case len(allowed) == 0:
			return nil, errors.New("nothing may follow the path; a question mark in it is written as %3F (in this file %%3F)")
		default: // the name is not shown: it may be the end of a password
			return nil, fmt.Errorf("behind the question mark there may be %s; %s", strings.Join(allowed, ", "), databaseChars)
		}
	}
	return params, nil
}

// withFile is sqlite:/path or sqlite:///path.
func (u DatabaseURI) withFile(parsed *url.URL) (DatabaseURI, error) {
	if parsed.User != nil || parsed.Host != "" || parsed.Opaque != "" || !filepath.IsAbs(parsed.Path) || parsed.Path == "/:memory:" ||
		strings.HasSuffix(parsed.Path, "/") || strings.ContainsFunc(parsed.Path, unicode.IsControl) {
		return DatabaseURI{}, errors.New("want the absolute path of a file, as in sqlite:/var/lib/mediaproxy/calls.db")
	}
	u.Name = parsed.Path
	return u, nil
}

func (u DatabaseURI) withServer(parsed *url.URL) (DatabaseURI, error) {
	want := func(what string) (DatabaseURI, error) {
		return DatabaseURI{}, fmt.Errorf("%s; want %s://USER:PASSWORD@HOST/DATABASE; %s", what, u.Kind, databaseChars)
	}
	u.Name = strings.TrimPrefix(parsed.Path, "/")
	if u.Name == "" || strings.ContainsFunc(u.Name, func(r rune) bool { return unicode.IsControl(r) || r == '/' }) {
		return want("it names no database")
	}
	u.Host = parsed.Hostname()
	ip, err := netip.ParseAddr(u.Host)
	if err != nil && strings.ContainsFunc(u.Host, func(r rune) bool { return r >= 0x80 || !isHostByte(byte(r)) }) || err == nil && ip.Is4In6() {
		return want("the host is neither a name nor an address")
	}
	if port := parsed.Port(); port != "" {
		n, err := strconv.ParseUint(port, 10, 16)
		if err != nil || n == 0 {
			return want("the port is not one")
		}
		u.Port = uint16(n)
	}
	if parsed.User == nil || parsed.User.Username() == "" {
		return want("it names no user")
	}
	u.User = parsed.User.Username()
	u.Password, _ = parsed.User.Password()
	if strings.ContainsFunc(u.User+u.Password, unicode.IsControl) {
		return want("there is a control character in it")
	}
	return u, nil
}

func isHostByte(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' || c == '.' || c == '_'
}

// databaseURI is kept as text; the room that opens databases reads it again.
var databaseURI = kind[string]{
	word: "scheme://user:password@host/database",
	parse: func(s string) (string, error) {
		_, err := ParseDatabaseURI(s)
		return s, err
	},
	print: path.print,
}

// longestSQLName is what PostgreSQL takes; the other servers take more.
const longestSQLName = 63

// sqlName is a table or a column. It is always quoted, so that spaces and reserved words
// are welcome.
var sqlName = kind[string]{
	word: "name of a table or column",
	parse: func(s string) (string, error) {
		bad := func(r rune) bool {
			return unicode.IsControl(r) || r > 0xffff || r == utf8.RuneError || strings.ContainsRune("\"`[].", r)
		}
		if s == "" || len(s) > longestSQLName || strings.ContainsFunc(s, bad) {
			return "", fmt.Errorf("want 1 to %d bytes without quotes, brackets and full stop; the schema of a table is given by dburi, as in postgres://.../DATABASE?search_path=SCHEMA", longestSQLName)
		}
		return s, nil
	},
	print: path.print,
}

// checkDatabase refuses a back-end that is not told where its database is, and two columns
// of the same name.
func (l *loader) checkDatabase() {
	l.checkColumns()
	if !slices.Contains(l.c.Dispatcher.Accounting, "database") || l.c.Database.URI != "" {
		return
	}
	if l.merged[settingName{"Database", "dburi"}].value != "" {
		return // its own problem is enough
	}
	l.problems = append(l.problems, l.c.Invalid("Dispatcher", "accounting",
		errors.New("database is named, but dburi in section [Database] is not set; for example dburi = sqlite:/var/lib/mediaproxy/calls.db or dburi = mysql://mediaproxy:PASSWORD@localhost/mediaproxy")))
}

func (l *loader) checkColumns() {
	c := l.c.Database
	taken := map[string]string{"id": "the number of a row", "record_id": "the id of a call"}
	for _, set := range []bool{false, true} { // a default is not to blame
		for _, column := range []struct{ key, name string }{
			{"callid_column", c.CallIDColumn}, {"fromtag_column", c.FromTagColumn}, {"totag_column", c.ToTagColumn}, {"info_column", c.InfoColumn},
		} {
			if _, isSet := l.c.Where("Database", column.key); isSet != set {
				continue
			}
			name := strings.ToLower(column.name)
			if other := taken[name]; other != "" {
				d := Default().Database // all of them: one alone may meet another column again
				l.c.Database.CallIDColumn, l.c.Database.FromTagColumn, l.c.Database.ToTagColumn, l.c.Database.InfoColumn = d.CallIDColumn, d.FromTagColumn, d.ToTagColumn, d.InfoColumn
				l.problems = append(l.problems, l.c.Invalid("Database", column.key, fmt.Errorf("%q is the column of %s already; want another name", column.name, other)))
			}
			taken[name] = column.key
		}
	}
}
