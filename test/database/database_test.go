package database

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"example.org/mediaproxy/internal/wire/control"
	"example.org/mediaproxy/test/internal/module"
	"example.org/mediaproxy/test/internal/site"
	"example.org/mediaproxy/test/servers"
)

func TestMain(m *testing.M) { os.Exit(site.Main(m, 2)) }

const dispatcherIP, relayIP = "127.20.3.9", "127.20.3.1"

func TestCallsAreInTheDatabase(t *testing.T) {
	server := servers.MariaDB(t)
	server.Do("CREATE DATABASE calls", "CREATE USER mp@'127.0.0.1' IDENTIFIED BY 'a%b@c'", "GRANT CREATE, SELECT, INSERT, UPDATE ON calls.* TO mp@'127.0.0.1'")
	s := site.New(t, site.Options{})
	settings := []string{"accounting = database", "[Database]", fmt.Sprintf("dburi = mysql://mp:a%%%%25b%%%%40c@127.0.0.1:%d/calls", server.Port), "sessions_table = finished calls"}
	d := s.DispatcherAt(dispatcherIP, settings...)
	s.RelayAt("r1", relayIP, dispatcherIP, "fast_path = off")
	rows := func() (n int) {
		if err := server.Admin.QueryRowContext(t.Context(), "SELECT COUNT(*) FROM calls.`finished calls`").Scan(&n); err != nil {
			t.Log(err)
		}
		return n
	}
	call(t, d, "first")
	site.Eventually(t, "the first call is stored", func() bool { return rows() == 1 })
	server.Kill()
	for n := range 10 {
		call(t, d, fmt.Sprint("while it is away ", n))
	}
	d.Kill()
	d = s.DispatcherAt(dispatcherIP, settings...)
	call(t, d, "last")
	server.Start()
	site.Eventually(t, "all calls are stored", func() bool { return rows() == 12 })
	out, code := d.Ctl("accounting", "export", "--json")
	if code != 0 || strings.Count(out, "\n") != 12 || strings.Count(out, `"timed_out": false`) != 12 || !strings.Contains(out, `"call_id": "while it is away 9"`) {
		t.Errorf("exit code %d: %s", code, out)
	}
}

// call is one that is answered and hung up. What is refused while a dispatcher starts is
// asked again.
func call(t *testing.T, d *site.Process, id string) {
	t.Helper()
	ask := func(what func(*module.Client) error) {
		t.Helper()
		site.Eventually(t, "an answer about "+id, func() bool {
			c, err := module.Dial(filepath.Join(d.Dir, "dispatcher.sock"), module.Timeout)
			if err != nil {
				return false
			}
			defer c.Close()
			return what(c) == nil
		})
	}
	for i, kind := range []control.Kind{control.KindRequest, control.KindReply} {
		ask(func(c *module.Client) error {
			_, err := c.Update(control.Update{Kind: kind, CallID: id, FromTag: "a", ToTag: "b"[:i], CSeq: 1, FromURI: "alice@example.com", ToURI: "bob@example.com",
				UserAgent: "Phone/1.0", HasMedia: true, Media: []control.Media{{Type: "audio", Addr: netip.MustParseAddr("127.0.0.1"), Port: 4000, Direction: "sendrecv"}}})
			return err
		})
	}
	ask(func(c *module.Client) error { return c.Remove(control.Remove{CallID: id, FromTag: "a", ToTag: "b"}) })
}
