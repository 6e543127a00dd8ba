package hangup

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// proxy is the end of a SIP proxy: it notes what it is asked and answers as told.
type proxy struct {
	conn net.PacketConn
	path string

	mu    sync.Mutex
	asked []string
}

// answers says what comes back for a method and its parameters as JSON; empty: nothing.
type answers func(method, params string) string

const (
	yes      = `"result":"OK"`
	notFound = `"error":{"code":404,"message":"Requested Dialog not found"}`
)

func listen(t *testing.T, path string, answer answers) *proxy {
	t.Helper()
	network := "unixgram"
	if strings.HasPrefix(path, "127.") {
		network = "udp"
	}
	conn, err := net.ListenPacket(network, path)
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{conn: conn, path: path}
	if network == "udp" {
		p.path = "udp:" + conn.LocalAddr().String()
	}
	done := make(chan struct{})
	go func() { defer close(done); p.serve(t, answer) }()
	t.Cleanup(func() { conn.Close(); <-done })
	return p
}

func (p *proxy) serve(t *testing.T, answer answers) {
	b := make([]byte, 8192)
	for {
		n, from, err := p.conn.ReadFrom(b)
		if err != nil {
			return
		}
		var r struct {
			Version string          `json:"jsonrpc"`
			ID      string          `json:"id"`
			Method  string          `json:"method"`
			Params  json.RawMessage `json:"params"`
		}
		if err := json.Unmarshal(b[:n], &r); err != nil || r.Version != "2.0" {
			t.Errorf("request %s: %v", b[:n], err)
		}
		p.mu.Lock()
		p.asked = append(p.asked, r.Method+string(r.Params))
		p.mu.Unlock()
		what := answer(r.Method, string(r.Params))
		if strings.HasPrefix(what, `"`) {
			what = fmt.Sprintf("{\n\t\"jsonrpc\":\t\"2.0\",\n\t%s,\n\t\"id\":\t\"%s\"\n}\n", what, r.ID)
		}
		if what != "" {
			p.conn.WriteTo([]byte(what), from)
		}
	}
}

// wasAsked wants just these requests, in this order.
func (p *proxy) wasAsked(t *testing.T, want ...string) {
	t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	if !slices.Equal(p.asked, want) {
		t.Errorf("asked\n%s\nwant\n%s", strings.Join(p.asked, "\n"), strings.Join(want, "\n"))
	}
	p.asked = nil
}

type under struct {
	*Hangup
	log   *logged
	local string
}

type logged struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logged) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(b)
}

func (l *logged) has(parts ...string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	for line := range strings.Lines(l.b.String()) {
		if !slices.ContainsFunc(parts, func(p string) bool { return !strings.Contains(line, p) }) {
			return true
		}
	}
	return false
}

func start(t *testing.T, cfg Config) *under {
	t.Helper()
	u := &under{log: &logged{}, local: filepath.Join(t.TempDir(), "own.sock")}
	cfg.Local = u.local
	if cfg.Answer == 0 {
		cfg.Answer = 5 * time.Second
	}
	if cfg.Backoff == 0 {
		cfg.Backoff = 10 * time.Millisecond
	}
	u.Hangup = New(cfg, slog.New(slog.NewTextHandler(u.log, &slog.HandlerOptions{Level: slog.LevelDebug})))
	t.Cleanup(func() {
		if err := u.Close(); err != nil {
			t.Error(err)
		}
		if _, err := os.Stat(u.local); err == nil {
			t.Error("our socket is left behind")
		}
	})
	return u
}

func socketPath(t *testing.T) string { return filepath.Join(t.TempDir(), "proxy.sock") }

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within 10 s: %s", what)
		}
	}
}

// until all dialogs have met their fate.
func (u *under) until(t *testing.T, want Stats) {
	t.Helper()
	eventually(t, fmt.Sprintf("%+v", want), func() bool { return u.Stats() == want })
}

var (
	fromOpenSIPS = Dialog{CallID: "c1", FromTag: "f", ToTag: "t", ID: "13116830126763"}
	fromKamailio = Dialog{CallID: "c1", FromTag: "f", ToTag: "t", ID: "3054:-4779"}
)

// OpenSIPS 3.1 and later refuse the id that their own module sends, and take it in
// another form, which is the first one from then on.
func TestOpenSIPS(t *testing.T) {
	p := listen(t, socketPath(t), func(_, params string) string {
		if params == `["eeb.ba21"]` {
			return yes
		}
		return notFound
	})
	u := start(t, Config{Sockets: []string{p.path}})
	u.End(fromOpenSIPS)
	u.until(t, Stats{Ended: 1})
	p.wasAsked(t, `dlg_end_dlg["13116830126763"]`, `dlg_end_dlg["eeb.ba21"]`)
	u.End(fromOpenSIPS)
	u.until(t, Stats{Ended: 2})
	p.wasAsked(t, `dlg_end_dlg["eeb.ba21"]`)
	gone := fromOpenSIPS
	gone.ID, gone.CallID = "1", "c2"
	u.End(gone)
	u.until(t, Stats{Ended: 2, Unknown: 1})
	p.wasAsked(t, `dlg_end_dlg["0.1"]`, `dlg_end_dlg["1"]`, `dlg_end_dlg["c2"]`)
	if !u.log.has("level=WARN", "no such dialog", "call_id=c2", "404 Requested Dialog not found") {
		t.Error("the log does not say so")
	}
}

// The Call-ID is what every version knows, and all there is if the id cannot be read.
func TestByCallID(t *testing.T) {
	p := listen(t, socketPath(t), func(_, params string) string {
		if params == `["c1"]` {
			return yes
		}
		return `"error":{"code":500,"message":"Operation failed"}`
	})
	u := start(t, Config{Dialect: OpenSIPS, Sockets: []string{p.path}})
	u.End(fromKamailio) // OpenSIPS before 3.0.1 sends pairs
	u.until(t, Stats{Ended: 1})
	odd := fromOpenSIPS
	odd.ID = "what"
	u.End(odd)
	u.until(t, Stats{Ended: 2})
	p.wasAsked(t, `dlg_end_dlg["13121125084501"]`, `dlg_end_dlg["eeb.55deffff"]`, `dlg_end_dlg["c1"]`, `dlg_end_dlg["c1"]`)
	u.End(fromOpenSIPS) // the Call-ID is what this proxy takes
	u.until(t, Stats{Ended: 3})
	p.wasAsked(t, `dlg_end_dlg["c1"]`)
}

// Kamailio reads numbers, not strings, and has a second command for a dialog that it
// knows by other names only.
func TestKamailio(t *testing.T) {
	p := listen(t, socketPath(t), func(method, _ string) string {
		if method == "dlg.terminate_dlg" {
			return `"result": {}`
		}
		return `"error":{"code":404,"message":"Dialog not found"}`
	})
	u := start(t, Config{Sockets: []string{"/does/not/exist", p.path}})
	u.End(fromKamailio)
	u.until(t, Stats{Ended: 1})
	p.wasAsked(t, `dlg.end_dlg[3054,-4779]`, `dlg.terminate_dlg["c1","f","t"]`)
	u = start(t, Config{Dialect: Kamailio, Sockets: []string{p.path}})
	u.End(Dialog{CallID: "c1", FromTag: "f", ID: "what"})
	u.until(t, Stats{Unknown: 1})
	if !u.log.has("level=WARN", "dialect in section [Hangup]") {
		t.Error("a dialog without a name is not said")
	}
}

func TestKamailioHasNoSuchDialog(t *testing.T) {
	p := listen(t, "127.0.0.1:0", func(method, _ string) string {
		if method == "dlg.terminate_dlg" {
			return `"error":{"code":500,"message":"Couldnt find callid in dialog"}`
		}
		return `"error":{"code":404,"message":"Dialog not found"}`
	})
	u := start(t, Config{Sockets: []string{p.path}})
	u.End(fromKamailio)
	u.until(t, Stats{Unknown: 1})
	p.wasAsked(t, `dlg.end_dlg[3054,-4779]`, `dlg.terminate_dlg["c1","f","t"]`)
}

// To a UDP port anybody may write: only the proxy's answers count.
func TestAnswersOfOthers(t *testing.T) {
	other, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	started := make(chan *under, 1)
	p := listen(t, "127.0.0.1:0", func(string, string) string {
		u := <-started
		u.line.mu.Lock()
		port := u.line.conn.LocalAddr().(*net.UDPAddr).Port
		u.line.mu.Unlock()
		other.WriteTo([]byte("500 of a stranger"), &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: port})
		return yes
	})
	u := start(t, Config{Sockets: []string{p.path}, Tries: 1})
	started <- u
	u.End(fromOpenSIPS)
	u.until(t, Stats{Ended: 1})
}

// A proxy that is started late ends the dialog late.
func TestProxyComesBack(t *testing.T) {
	path := socketPath(t)
	u := start(t, Config{Sockets: []string{path}, Tries: 1000, Backoff: time.Millisecond})
	u.End(fromOpenSIPS)
	eventually(t, "it was tried", func() bool { return u.log.has("not ended yet", "no socket at "+path) })
	listen(t, path, func(string, string) string { return yes })
	u.until(t, Stats{Ended: 1})
}

func TestGivesUpLoudly(t *testing.T) {
	silent := func(string, string) string { return "" }
	for name, c := range map[string]struct {
		answer answers
		log    []string
	}{
		"no socket": {nil, []string{"no socket", "jsonrpcs"}},
		"silence":   {silent, []string{"did not answer", "socket_group"}},
		"refusal":   {func(string, string) string { return `"error":{"code":403,"message":"no"}` }, []string{"403 no", "dialect"}},
		"nonsense":  {func(string, string) string { return "nonsense" }, []string{"did not answer"}},
		"plain":     {func(string, string) string { return "500 Internal error\n" }, []string{"500 Internal error"}},
	} {
		t.Run(name, func(t *testing.T) {
			path := socketPath(t)
			if c.answer != nil {
				listen(t, path, c.answer)
			}
			u := start(t, Config{Sockets: []string{path}, Answer: 50 * time.Millisecond, Tries: 3, Backoff: time.Millisecond})
			u.End(fromOpenSIPS)
			u.until(t, Stats{Failed: 1})
			if !u.log.has(append(c.log, "level=ERROR", "call_id=c1", "tries=3")...) {
				t.Errorf("the log does not say so:\n%s", u.log.b.String())
			}
		})
	}
}

// Whoever asks never waits, however long the proxy takes, and Close does not either.
func TestNobodyWaits(t *testing.T) {
	p := listen(t, socketPath(t), func(string, string) string { return "" })
	u := start(t, Config{Sockets: []string{p.path}, Answer: time.Hour, Waiting: 20})
	for i := range 30 {
		d := fromOpenSIPS
		d.CallID = fmt.Sprint("c", i)
		u.End(d)
	}
	u.until(t, Stats{Failed: 10, Waiting: 20})
	if !u.log.has("level=ERROR", "too many wait", "call_id=c29") {
		t.Error("the log does not say that calls are left alone")
	}
	eventually(t, "eight are asked for at once", func() bool { p.mu.Lock(); defer p.mu.Unlock(); return len(p.asked) == 8 })
	if err := u.Close(); err != nil {
		t.Error(err)
	}
	if got := u.Stats(); got.Waiting != 0 || got.Failed != 10 {
		t.Errorf("after Close: %+v", got)
	}
	u.End(fromOpenSIPS)
	if got := u.Stats().Waiting; got != 0 {
		t.Errorf("%d wait after Close", got)
	}
}

// Our socket is the proxy's group's, and one of a former process is in nobody's way.
func TestOurSocket(t *testing.T) {
	p := listen(t, socketPath(t), func(string, string) string { return yes })
	gid := os.Getgid()
	if os.Geteuid() == 0 {
		gid = 12345
	}
	u := start(t, Config{Sockets: []string{p.path}, GID: gid, Group: true})
	former, err := net.ListenPacket("unixgram", u.local)
	if err != nil {
		t.Fatal(err)
	}
	former.Close()
	u.End(fromOpenSIPS)
	u.until(t, Stats{Ended: 1})
	info, err := os.Stat(u.local)
	if err != nil || info.Mode().Perm() != 0o660 {
		t.Errorf("%v, %v", info, err)
	}
	if got := int(info.Sys().(*syscall.Stat_t).Gid); got != gid {
		t.Errorf("group %d, want %d", got, gid)
	}
}
