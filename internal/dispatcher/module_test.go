package dispatcher

import (
	"errors"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"example.org/mediaproxy/internal/wire/control"
	"example.org/mediaproxy/internal/wire/relaylink"
)

func TestBadRequests(t *testing.T) {
	good := offer("good")
	without := func(name string) string {
		var kept []string
		for _, line := range strings.SplitAfter(offer("bad"), "\r\n") {
			if !strings.HasPrefix(line, name+": ") {
				kept = append(kept, line)
			}
		}
		return strings.Join(kept, "")
	}
	with := func(old, new string) string { return strings.Replace(offer("bad"), old, new, 1) }
	u := start(t, nil)
	r := u.relay("a")
	m := u.module()
	for _, tt := range []struct{ name, request, logged string }{
		{"unknown command", "dance\r\ncall_id: good\r\n\r\n", "unknown command"},
		{"no headers", "update\r\n\r\n", "header call_id (offset 0): missing or empty"},
		{"no Call-ID", without("call_id"), "header call_id (offset 0): missing or empty"},
		{"no From tag", without("from_tag"), "header from_tag (offset 0): missing or empty"},
		{"no CSeq", without("cseq"), "header cseq (offset 0): missing or empty"},
		{"bad CSeq", with("cseq: 1", "cseq: one"), "is not a number below 2^32"},
		{"no type", without("type"), "header type (offset 0): missing or empty"},
		{"bad type", with("type: request", "type: wish"), "is neither request nor reply"},
		{"bad media", with(":4000:", ":x:"), "header media (offset 0)"},
		{"bad address", with("192.0.2.1:", "192.0.2.256:"), "is not an IP address"},
		{"no colon and space", with("call_id: ", "call_id:"), "line 4 (offset 36)"},
		{"folded", with("cseq: 1", " cseq: 1"), "white space"},
		{"remove without Call-ID", "remove\r\nfrom_tag: f\r\n\r\n", "header call_id (offset 0): missing or empty"},
		{"remove of an unknown call", remove("nobody", "f", ""), "remove of a call that is not known"},
		{"no media for an unknown call", message{call: "x", from: "f", noMedia: true}.String(), "has no media to make one with"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := m.ask(tt.request); got != "error" {
				t.Errorf("%q got %q", tt.request, got)
			}
			if !u.logged(strings.ReplaceAll(tt.logged, `"`, `\"`)) {
				t.Errorf("%q is not in the log", tt.logged)
			}
			if got := m.ask(good); got != ports {
				t.Errorf("the connection does not serve after it: %q", got)
			}
		})
	}
	for _, c := range r.got {
		if get(c, "call_id") == "bad" || c.Name == "dance" {
			t.Errorf("the relay was bothered with %+v", c)
		}
	}
}

func TestBytesAreBytes(t *testing.T) {
	u := start(t, nil)
	r := u.relay("a")
	m := u.module()
	const agent = "M\xfcller\x00\t\x7f\xff"
	if got := m.ask(strings.Replace(offer("c\xff"), "Phone/1.0", agent, 1)); got != ports {
		t.Fatal(got)
	}
	if got := get(r.got[len(r.got)-1], "user_agent"); got != agent {
		t.Errorf("the relay got %q", got)
	}
	if got := m.ask(remove("c\xff", "f", "")); got != "removed" {
		t.Error(got)
	}
}

func TestLongLines(t *testing.T) {
	u := start(t, nil)
	u.relay("a")
	agent := func(n int) string {
		return strings.Replace(offer("c"), "user_agent: Phone/1.0", "user_agent: "+strings.Repeat("x", n-len("user_agent: ")), 1)
	}
	m := u.module()
	if got := m.ask(agent(control.MaxLine)); got != ports {
		t.Errorf("a line of 16 KiB: %q", got)
	}
	if got := m.ask(agent(control.MaxLine + 1)); got != "error" {
		t.Errorf("a longer line: %q", got)
	}
	m.conn.SetReadDeadline(time.Now().Add(patience))
	if _, err := m.in.ReadByte(); err == nil {
		t.Error("the connection goes on, but nobody knows where the next request starts")
	}
	if got := u.module().ask(offer("c2")); got != ports {
		t.Errorf("another connection: %q", got)
	}
}

func TestPipelinedAndPiecemeal(t *testing.T) {
	u := start(t, nil)
	u.relay("a")
	m := u.module()
	all := offer("c1") + "nonsense\r\n\r\n" + remove("c1", "f", "") + remove("c1", "f", "") + offer("c2")
	for i := range all {
		m.send(all[i : i+1])
	}
	for i, want := range []string{ports, "error", "removed", "error", ports} {
		if got := m.receive(); got != want {
			t.Errorf("reply %d: %q, want %q", i, got, want)
		}
	}
	m.send(all)
	for i, want := range []string{ports, "error", "removed", "error", ports} {
		if got := m.receive(); got != want {
			t.Errorf("pipelined reply %d: %q, want %q", i, got, want)
		}
	}
}

func TestPanicStaysInItsRequest(t *testing.T) {
	u := start(t, func(c *Config) { c.Selector = buggy{} })
	u.relay("a")
	m := u.module()
	if got := m.ask(offer("bug")); got != "error" {
		t.Errorf("got %q", got)
	}
	if got := m.ask(offer("c")); got != ports {
		t.Errorf("got %q", got)
	}
	if got := m.ask(offer("bug")); got != "error" {
		t.Errorf("the second message of the call got %q", got)
	}
	if u.Stats().Panics != 2 || !u.logged("bug in this program") {
		t.Errorf("%+v", u.Stats())
	}
}

// buggy panics for one call.
type buggy struct{}

func (buggy) Order(c Call, _ []Candidate) {
	if c.CallID == "bug" {
		panic("on purpose")
	}
}

func TestModuleSocket(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "s")
	mode := func() fs.FileMode {
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		return info.Mode()
	}
	first, err := listenUnix(path, os.Getgid(), true)
	if err != nil {
		t.Fatal(err)
	}
	if mode() != fs.ModeSocket|0o660 {
		t.Errorf("mode %v", mode())
	}
	if _, err := listenUnix(path, 0, false); err == nil || !strings.Contains(err.Error(), "another dispatcher is running") {
		t.Errorf("a socket in use: %v", err)
	}
	first.Close() // leaves the file, as a crash would
	second, err := listenUnix(path, 0, false)
	if err != nil {
		t.Fatalf("a stale socket: %v", err)
	}
	second.Close()
	os.Remove(path)
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := listenUnix(path, 0, false); err == nil || !strings.Contains(err.Error(), "is no socket") {
		t.Errorf("a file: %v", err)
	}
	if left, err := filepath.Glob(filepath.Join(dir, ".socket-*")); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v %v", left, err)
	}
}

func TestOrderlyStop(t *testing.T) {
	u := start(t, nil)
	held := make(chan relaylink.Command, 1)
	r := u.relay("a", handling(func(c relaylink.Command) (string, bool) {
		if c.Name == relaylink.Update {
			held <- c
		}
		return "", c.Name == relaylink.Update
	}))
	idle, busy, operator := u.module(), u.module(), u.manager()
	busy.send(offer("c"))
	c := <-held
	stopped := make(chan struct{})
	go func() { u.stop(); close(stopped) }()
	for _, m := range []*module{idle} {
		m.conn.SetReadDeadline(time.Now().Add(patience))
		if _, err := m.in.ReadByte(); err == nil || os.IsTimeout(err) {
			t.Errorf("an idle connection is not closed: %v", err)
		}
	}
	if _, err := net.Dial("unix", u.SocketPath()); !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("the socket still takes connections: %v", err)
	}
	r.answer(c, r.usual(c))
	if got := busy.receive(); got != ports {
		t.Errorf("the busy connection got %q", got)
	}
	<-stopped
	operator.conn.SetReadDeadline(time.Now().Add(patience))
	if _, err := operator.in.ReadByte(); err == nil || os.IsTimeout(err) {
		t.Errorf("the operator is not disconnected: %v", err)
	}
	if _, err := os.Lstat(u.SocketPath()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("socket file: %v", err)
	}
}

func TestConfigProblems(t *testing.T) {
	_, err := New(Config{RelayTimeout: -1}, slog.New(slog.DiscardHandler))
	for _, want := range []string{"no path for the module's socket", "no address to listen on for relays", "no TLS for relays", "relay timeout is negative"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q is missing in: %v", want, err)
		}
	}
}

func TestRelayWithoutCertificate(t *testing.T) {
	u := start(t, nil)
	conn, err := net.Dial("tcp", u.RelayAddr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.Write([]byte("GET / HTTP/1.0\r\n\r\n"))
	eventually(t, "it is refused", func() bool { return u.logged("TLS handshake (is its certificate of our CA") })
	u.relay("a")
}
