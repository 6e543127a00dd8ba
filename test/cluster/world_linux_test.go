package cluster

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"example.org/mediaproxy/internal/pki"
	"example.org/mediaproxy/internal/report"
	"example.org/mediaproxy/test/internal/netlab"
)

const booksIP = "198.51.100.9"

func dispatcherIP(i int) string { return fmt.Sprintf("203.0.113.%d", 11+i) }
func relayIP(i int) string      { return fmt.Sprintf("192.0.2.%d", 21+i) }
func name(i int) string         { return fmt.Sprintf("sip%d.example.com", i) }

// world is three dispatchers, two relays and the receiver of finished calls, each on a host
// of its own.
type world struct {
	*testing.T
	binary, dir string
	books       *books
	dispatchers [3]*process
	relays      [2]*process
}

// process is a dispatcher or a relay.
type process struct {
	host *netlab.Host
	role string
	dir  string // configuration and runtime folder
	log  *os.File
	cmd  *exec.Cmd
}

func newWorld(t *testing.T, binary, settings string) *world {
	t.Helper()
	dir, err := os.MkdirTemp("", "mpc") // short: paths of UNIX sockets are
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	w := &world{T: t, binary: binary, dir: dir}
	if _, err := pki.Create(filepath.Join(dir, "tls"), pki.Options{}); err != nil {
		t.Fatal(err)
	}
	lab := netlab.New(t)
	w.books = openBooks(t, lab.Host("books", netip.MustParseAddr(booksIP)))
	var dispatchers, peers []string
	for i := range w.dispatchers {
		dispatchers = append(dispatchers, dispatcherIP(i))
		peers = append(peers, dispatcherIP(i))
	}
	for i := range w.dispatchers {
		w.dispatchers[i] = w.process(lab.Host(fmt.Sprint("d", i), netip.MustParseAddr(dispatcherIP(i))), "dispatcher", fmt.Sprintf(
			"[Dispatcher]\nlisten = %s\nlisten_management = 127.0.0.1\nmanagement_use_tls = no\naccounting = webhook\nstate_dir = %s/d%d-state\n"+
				"[Webhook]\nurl = http://%s/\n[Cluster]\nname = %s\nlisten = %s\npeers = %s\n%s",
			dispatcherIP(i), dir, i, net.JoinHostPort(booksIP, "80"), name(i), dispatcherIP(i), strings.Join(peers, ", "), settings))
	}
	for i := range w.relays {
		w.relays[i] = w.process(lab.Host(fmt.Sprint("r", i), netip.MustParseAddr(relayIP(i))), "relay", fmt.Sprintf(
			"[Relay]\nname = relay%d\nrelay_ip = %s\ndispatchers = %s\nreconnect_delay = 1\nkeepalive_interval = 2\nfast_path = off\non_stop = end\nstate_dir = %s/r%d-state\n",
			i, relayIP(i), strings.Join(dispatchers, ", "), dir, i))
	}
	for _, p := range append(w.dispatchers[:], w.relays[:]...) {
		w.start(p)
	}
	for i := range w.dispatchers {
		w.serving(i)
	}
	eventually(t, "the cluster has a leader and a map", func() bool {
		return w.cluster(0).Leader != "" && w.cluster(0).MapOpen && w.cluster(1).MapOpen && w.cluster(2).MapOpen
	})
	return w
}

func (w *world) process(host *netlab.Host, role, config string) *process {
	w.Helper()
	p := &process{host: host, role: role, dir: filepath.Join(w.dir, host.Name())}
	if err := os.MkdirAll(p.dir, 0o755); err != nil {
		w.Fatal(err)
	}
	text := "[TLS]\ncerts_path = " + filepath.Join(w.dir, "tls") + "\n" + config
	if err := os.WriteFile(filepath.Join(p.dir, "config.ini"), []byte(text), 0o600); err != nil {
		w.Fatal(err)
	}
	log, err := os.Create(filepath.Join(p.dir, "log"))
	if err != nil {
		w.Fatal(err)
	}
	p.log = log
	w.Cleanup(func() {
		if w.Failed() {
			text, _ := os.ReadFile(log.Name())
			all := slices.DeleteFunc(strings.SplitAfter(string(text), "\n"), func(line string) bool { return strings.Contains(line, "reason=removed") })
			w.Logf("log of %s:\n%s", host.Name(), strings.Join(all[max(0, len(all)-60):], ""))
		}
		log.Close()
	})
	return p
}

func (w *world) start(p *process) {
	w.Helper()
	p.cmd = exec.Command(w.binary, p.role, "--config-dir", p.dir, "--runtime-dir", p.dir)
	p.cmd.Stdout, p.cmd.Stderr = p.log, p.log
	p.host.Start(p.cmd)
}

// kill ends a dispatcher as a crash does.
func (w *world) kill(i int) {
	p := w.dispatchers[i]
	p.cmd.Process.Signal(syscall.SIGKILL)
	_ = p.cmd.Wait() // its end is what was asked for
}

// serving waits until both relays are connected to a dispatcher.
func (w *world) serving(i int) {
	w.Helper()
	eventually(w, "both relays are connected to "+name(i), func() bool {
		var relays []report.Relay
		return w.ctl(i, &relays, "summary") && len(relays) == 2 && relays[0].Status == "active" && relays[1].Status == "active"
	})
}

// ctl asks a dispatcher what an operator would.
func (w *world) ctl(i int, answer any, args ...string) bool {
	out, err := exec.Command(w.binary, append([]string{"ctl", "--runtime-dir", w.dispatchers[i].dir, "--json"}, args...)...).Output()
	return err == nil && json.Unmarshal(out, answer) == nil
}

func (w *world) cluster(i int) (c report.Cluster) {
	var list []report.Cluster
	if w.ctl(i, &list, "cluster") && len(list) == 1 {
		c = list[0]
	}
	return c
}

// waiting is how many finished calls wait at a dispatcher to be stored; -1: not known.
func (w *world) waiting(i int) int {
	var list []report.Backend
	if !w.ctl(i, &list, "accounting") || len(list) != 1 {
		return -1
	}
	return int(list[0].Waiting)
}

// cut takes a dispatcher's connections with the others away; mend gives them back.
func (w *world) cut(i int) {
	w.Helper()
	var others []string
	for j := range w.dispatchers {
		if j != i {
			others = append(others, dispatcherIP(j))
		}
	}
	set := strings.Join(others, ", ")
	w.dispatchers[i].host.NFT(fmt.Sprintf(`table inet cut {
		chain in { type filter hook input priority 0; ip saddr { %s } drop; }
		chain out { type filter hook output priority 0; ip daddr { %s } drop; }
	}`, set, set))
}

func (w *world) mend(i int) {
	w.Helper()
	w.dispatchers[i].host.NFT("delete table inet cut")
}

// has counts lines of all dispatchers' logs with these words.
func (w *world) has(words string) (n int) {
	for _, p := range w.dispatchers {
		text, err := os.ReadFile(p.log.Name())
		if err != nil {
			w.Fatal(err)
		}
		n += strings.Count(string(text), words)
	}
	return n
}

// books is the web server to which finished calls are posted. What it said yes to it keeps
// by record.
type books struct {
	away atomic.Bool

	mu      sync.Mutex // guards what follows
	records map[string]report.Session
	posts   int
}

func openBooks(t *testing.T, host *netlab.Host) *books {
	t.Helper()
	b := &books{records: map[string]report.Session{}}
	var listener net.Listener
	if err := host.Do(func() (err error) {
		listener, err = net.Listen("tcp", net.JoinHostPort(booksIP, "80"))
		return err
	}); err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		var s report.Session
		if err != nil || json.Unmarshal(body, &s) != nil || s.RecordID == "" || r.Header.Get("Idempotency-Key") != s.RecordID {
			t.Errorf("posted: %s, %v", body, err)
			return
		}
		if b.away.Load() {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		b.mu.Lock()
		defer b.mu.Unlock()
		b.posts++
		b.records[s.RecordID] = s
	})}
	ended := make(chan struct{})
	go func() { defer close(ended); server.Serve(listener) }()
	t.Cleanup(func() { server.Close(); <-ended })
	return b
}

// rows are the records of each call.
func (b *books) rows() map[string][]report.Session {
	b.mu.Lock()
	defer b.mu.Unlock()
	rows := map[string][]report.Session{}
	for _, s := range b.records {
		rows[s.CallID] = append(rows[s.CallID], s)
	}
	return rows
}

// patience is longer than a report waits for the dispatcher that it belongs to.
const patience = 60 * time.Second

func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !ok(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited %v in vain: %s", patience, what)
		}
	}
}
