package durable

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"example.org/mediaproxy/internal/report"
	"example.org/mediaproxy/test/internal/module"
	peers "example.org/mediaproxy/test/internal/servers"
	"example.org/mediaproxy/test/internal/site"
	"example.org/mediaproxy/test/servers"
)

func TestMain(m *testing.M) { os.Exit(site.Main(m, 4)) }

const (
	dispatcherIP, relayIP = "127.20.1.9", "127.20.1.1"

	rate  = 50 // calls a second
	lives = 2 * time.Second
)

// books are the servers that finished calls are stored in: both away for some time.
type books struct {
	t      *testing.T
	db     *servers.Server
	radius *peers.FreeRADIUS
	away   bool
}

func openBooks(t *testing.T) *books {
	b := &books{t: t, db: servers.MariaDB(t), radius: peers.StartFreeRADIUS(t, peers.RadiusOptions{})}
	b.db.Do("CREATE DATABASE calls", "CREATE USER mp@'127.0.0.1' IDENTIFIED BY 'secret'", "GRANT CREATE, SELECT, INSERT, UPDATE ON calls.* TO mp@'127.0.0.1'")
	return b
}

func (b *books) settings() []string {
	return []string{"accounting = database, radius", "[Database]", fmt.Sprintf("dburi = mysql://mp:secret@127.0.0.1:%d/calls", b.db.Port),
		"[Radius]", "config_file = " + peers.ClientConf(b.t, "", b.radius.Addr)}
}

// set makes the servers go or come back.
func (b *books) set(away bool) {
	switch {
	case away == b.away:
	case away:
		b.db.Kill()
		b.radius.Stop(b.t)
	default:
		b.db.Start()
		b.radius.Start(b.t)
	}
	b.away = away
}

// rows are the calls in the database: how many rows each has, and for what reasons it ended.
func (b *books) rows() (rows map[string]int, reasons map[string]int) {
	rows, reasons = map[string]int{}, map[string]int{}
	list, err := b.db.Admin.QueryContext(b.t.Context(), "SELECT call_id, JSON_UNQUOTE(JSON_EXTRACT(CONVERT(info USING utf8mb4), '$.reason')) FROM calls.media_sessions")
	if err != nil {
		b.t.Logf("read the table: %v", err)
		return rows, reasons
	}
	defer list.Close()
	for list.Next() {
		var id, reason string
		if err := list.Scan(&id, &reason); err != nil {
			b.t.Fatal(err)
		}
		rows[id]++
		reasons[reason]++
	}
	return rows, reasons
}

// sent are the calls that the RADIUS server has taken, and how often.
func (b *books) sent() map[string]int {
	sent := map[string]int{}
	for _, r := range b.radius.Records(b.t) {
		sent[r["Acct-Session-Id"]]++
	}
	return sent
}

// round is who is killed while calls go on, how often.
type round struct {
	name  string
	kills int
	// start returns what starts the victim, again and again, and the storm's socket.
	start func(*testing.T, *site.Site, []string) (func() *site.Process, string)
}

func rounds() []round {
	kills := 3
	if os.Getenv("MEDIAPROXY_TEST") == "soak" {
		kills = 20
	}
	return []round{
		{"dispatcher", kills, func(t *testing.T, s *site.Site, settings []string) (func() *site.Process, string) {
			start := func() *site.Process { return s.DispatcherAt(dispatcherIP, settings...) }
			d := start()
			s.RelayAt("r1", relayIP, dispatcherIP, "fast_path = off")
			first := true
			return func() *site.Process {
				if first {
					first = false
					return d
				}
				return start()
			}, filepath.Join(d.Dir, "dispatcher.sock")
		}},
		{"relay", kills, func(t *testing.T, s *site.Site, settings []string) (func() *site.Process, string) {
			d := s.DispatcherAt(dispatcherIP, settings...)
			return func() *site.Process { return s.RelayAt("r1", relayIP, dispatcherIP, "fast_path = off") }, filepath.Join(d.Dir, "dispatcher.sock")
		}},
	}
}

// Each finished call is stored once in effect, although the dispatcher or the relay is
// killed at random moments and the database and the RADIUS server are away for half of the time; no call ends
// meanwhile, and none is unknown.
func TestNothingIsLost(t *testing.T) {
	for _, r := range rounds() {
		t.Run(r.name, func(t *testing.T) { r.run(t) })
	}
}

func (r round) run(t *testing.T) {
	s := site.New(t, site.Options{})
	b := openBooks(t)
	start, socket := r.start(t, s, b.settings())
	victim := start()
	storm := &storm{t: t, socket: socket, over: make(chan struct{})}
	storm.restarted()
	done := make(chan struct{})
	go func() { defer close(done); storm.run() }()
	for n := range r.kills {
		time.Sleep(time.Second + time.Duration(n*337%1000)*time.Millisecond) // the storm goes on
		b.set(n%2 == 0)
		storm.killed()
		victim.Kill()
		victim = start()
		storm.restarted()
	}
	time.Sleep(time.Second)
	close(storm.over)
	<-done
	b.set(false)
	r.compare(t, b, storm)
}

// missing are the calls that are not in a list.
func missing(calls []string, in map[string]int) []string {
	return slices.DeleteFunc(slices.Clone(calls), func(id string) bool { return in[id] > 0 })
}

// compare counts what was stored.
func (r round) compare(t *testing.T, b *books, storm *storm) {
	answered, tally := storm.results()
	eventually(t, "all calls are in the database", func() string {
		rows, _ := b.rows()
		return strings.Join(missing(answered, rows), " ")
	})
	eventually(t, "all calls are with the RADIUS server", func() string { return strings.Join(missing(answered, b.sent()), " ") })
	ctl := func(args ...string) (string, int) {
		return site.Run(t, append([]string{"ctl", "--runtime-dir", filepath.Dir(storm.socket)}, args...)...)
	}
	eventually(t, "nothing waits", func() string {
		out, code := ctl("accounting", "--json")
		var list []report.Backend
		if code != 0 || json.Unmarshal([]byte(out), &list) != nil || len(list) != 2 || list[0].Waiting+list[1].Waiting != 0 {
			return out
		}
		return ""
	})
	rows, reasons := b.rows()
	sent, doubles := b.sent(), 0
	for _, id := range answered {
		if rows[id] != 1 {
			t.Errorf("call %s has %d rows", id, rows[id])
		}
		doubles += sent[id] - 1
	}
	if len(rows) != len(answered) || len(sent) != len(answered) || len(reasons) != 1 || reasons[report.ReasonRemoved] != len(answered) {
		t.Errorf("%d calls in the database, %d with the RADIUS server, %d were answered; they ended by %v", len(rows), len(sent), len(answered), reasons)
	}
	if tally.unknown > 0 || tally.late > 0 {
		t.Errorf("%d requests were refused more than 1 s after a restart, %d not answered within %v", tally.unknown, tally.late, module.Timeout)
	}
	out, _ := ctl("accounting")
	t.Logf("%d calls, %d kills of the %s: %d rows, %d calls with the RADIUS server, %d of their records came again; %d requests, of these %d cut off, %d refused near a kill, %d later, %d late, %d while the machine stood still (%d times); slowest answer %v\n%s",
		len(answered), r.kills, r.name, len(rows), len(sent), doubles, tally.requests, tally.cut, tally.early, tally.unknown, tally.late, tally.stood, len(storm.stalls), tally.slowest, out)
}

// eventually waits until nothing is left, longer than other tests do: what was being stored
// when its process was killed is given to the next one some seconds later.
func eventually(t *testing.T, what string, left func() string) {
	t.Helper()
	for end := time.Now().Add(2 * time.Minute); ; time.Sleep(100 * time.Millisecond) {
		text := left()
		if text == "" {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("not within 2 minutes: %s; left is %s", what, text)
		}
	}
}
