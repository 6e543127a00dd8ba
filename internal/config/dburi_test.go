package config

import (
	"maps"
	"net/url"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
)

func TestParseDatabaseURI(t *testing.T) {
	none := map[string]string{}
	for _, c := range []struct {
		in   string
		want DatabaseURI
		err  string
	}{
		{"mysql://u:p@db.example.com/calls", DatabaseURI{"mysql", "u", "p", "db.example.com", 0, "calls", none}, ""},
		{"MySQL://u:p%40%2F%25%3A@192.0.2.1:3307/calls", DatabaseURI{"mysql", "u", "p@/%:", "192.0.2.1", 3307, "calls", none}, ""},
		{"mysql://u@/calls?unix_socket=/run/mysqld/mysqld.sock", DatabaseURI{"mysql", "u", "", "", 0, "calls", map[string]string{"unix_socket": "/run/mysqld/mysqld.sock"}}, ""},
		{"mysql://u:p@h/calls?charset=utf8&debug=1", DatabaseURI{"mysql", "u", "p", "h", 0, "calls", none}, ""},
		{"postgres://u:p@[2001:db8::1]:5433/my%20calls", DatabaseURI{"postgres", "u", "p", "2001:db8::1", 5433, "my calls", none}, ""},
		{"postgresql://u:p@h/calls?sslmode=disable", DatabaseURI{"postgres", "u", "p", "h", 0, "calls", map[string]string{"sslmode": "disable"}}, ""},
		{"mssql://u:p@h/calls", DatabaseURI{"mssql", "u", "p", "h", 0, "calls", none}, ""},
		{"sqlite:/var/lib/x.db", DatabaseURI{Kind: "sqlite", Name: "/var/lib/x.db", Params: none}, ""},
		{"sqlite:///var/lib/a%20b%3F.db", DatabaseURI{Kind: "sqlite", Name: "/var/lib/a b?.db", Params: none}, ""},
		{"", DatabaseURI{}, "sqlite:/PATH"},
		{"calls.db", DatabaseURI{}, "want mysql://"},
		{"oracle://u:secret@h/d", DatabaseURI{}, "want mysql://"},
		{"firebird://u:secret@h/d", DatabaseURI{}, "firebird is not supported; there are mysql (also for MariaDB), postgres, mssql and sqlite"},
		{"sybase://u:secret@h/d", DatabaseURI{}, "sybase is not supported"},
		{"maxdb://u:secret@h/d", DatabaseURI{}, "maxdb is not supported"},
		{"mysql://u:sec#ret@h/d", DatabaseURI{}, "%23"},
		{"mysql://u:sec/ret@h/d", DatabaseURI{}, "%2F"},
		{"mysql://u:sec?ret@h/d", DatabaseURI{}, "%3F"},
		{"mysql://u:sec%ret%2@h/d", DatabaseURI{"mysql", "u", "sec%ret%2", "h", 0, "d", none}, ""},
		{"mysql://u:secret@h", DatabaseURI{}, "names no database"},
		{"mysql://u:secret@h/a/b", DatabaseURI{}, "names no database"},
		{"mysql://h/d", DatabaseURI{}, "names no user"},
		{"mysql://u:secret@h:0/d", DatabaseURI{}, "port"},
		{"mysql://u:secret@h:70000/d", DatabaseURI{}, "port"},
		{"mysql://u:secret@h_é/d", DatabaseURI{}, "host"},
		{"mysql://u:secret@h/d?sslmode=x", DatabaseURI{}, "unix_socket, tls"},
		{"mysql://u:secret@h/d?tls=", DatabaseURI{}, "tls has to have one value"},
		{"mysql:u:secret@h/d", DatabaseURI{}, "names no database"},
		{"sqlite:x.db", DatabaseURI{}, "absolute path"},
		{"sqlite://x/y.db", DatabaseURI{}, "absolute path"},
		{"sqlite:/:memory:", DatabaseURI{}, "absolute path"},
		{"sqlite:/x?secret", DatabaseURI{}, "%%3F"},
	} {
		got, err := ParseDatabaseURI(c.in)
		if (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
			t.Errorf("%s: %v, want %q", c.in, err, c.err)
		}
		if err != nil && (strings.Contains(err.Error(), "secret") || strings.Contains(err.Error(), "ret")) {
			t.Errorf("%s: the password is in: %v", c.in, err)
		}
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("%s: -want +got:\n%s", c.in, diff)
		}
	}
}

func FuzzParseDatabaseURI(f *testing.F) {
	for _, s := range []string{"mysql://u:p%40@h:1/d?tls=true", "postgresql://u:p@[::1]/d?host=/x", "sqlite:/x/y.db", "mssql://u:p@h/d", "mysql://u:p#@h/d"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		u, err := ParseDatabaseURI(s)
		if err != nil {
			if _, rest, ok := strings.Cut(s, ":"); ok {
				user := rest[:max(0, strings.LastIndexByte(rest, '@'))]
				if len(user) > 12 && !strings.Contains(databaseForms+databaseChars, user) && strings.Contains(err.Error(), user) {
					t.Fatalf("%q: %v", s, err)
				}
			}
			return
		}
		if !utf8.ValidString(u.Kind) || u.Name == "" || strings.ContainsAny(u.Name+u.User+u.Password+u.Host, "\x00\n") {
			t.Fatalf("%q: %+v", s, u)
		}
		// It means the same when it is written anew.
		again := url.URL{Scheme: u.Kind, Path: u.Name}
		if u.Kind != "sqlite" {
			again.User, again.Host, again.Path = url.UserPassword(u.User, u.Password), u.Host, "/"+u.Name
			if strings.Contains(u.Host, ":") {
				again.Host = "[" + u.Host + "]"
			}
		}
		q := url.Values{}
		for name, value := range u.Params {
			q.Set(name, value)
		}
		again.RawQuery = q.Encode()
		v, err := ParseDatabaseURI(again.String())
		v.Port = u.Port
		same := u.Kind == v.Kind && u.User == v.User && u.Password == v.Password && u.Host == v.Host && u.Name == v.Name && maps.Equal(u.Params, v.Params)
		if err != nil || !same {
			t.Fatalf("%q: %+v; as %q: %+v, %v", s, u, again.String(), v, err)
		}
	})
}
