package program

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"example.org/mediaproxy/internal/wire/control"
	"example.org/mediaproxy/test/internal/module"
	"example.org/mediaproxy/test/internal/netlab"
)

// Build compiles the program as the Makefile does, plus build tags, and returns its
// path. It is gone after the test.
func Build(t testing.TB, tags ...string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "mediaproxy")
	cmd := exec.Command("go", "build", "-trimpath", "-tags", strings.Join(tags, ","), "-o", path, "example.org/mediaproxy/cmd/mediaproxy")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build the program: %v\n%s", err, out)
	}
	return path
}

// Settings are keys and values for a section of config.ini.
type Settings map[string]string

// Pair is a dispatcher with one relay.
type Pair struct {
	Socket string // for modules

	binary, dir       string
	dispatcher, relay *exec.Cmd
	logs              [2]*log
}

// Start runs a dispatcher and a relay on a host until the test ends, and waits until
// they serve calls. Their logs are printed when the test fails.
func Start(t testing.TB, binary string, host *netlab.Host, relay Settings) *Pair {
	t.Helper()
	p := &Pair{binary: binary, dir: t.TempDir()}
	p.Socket = filepath.Join(p.dir, "dispatcher.sock")
	p.certificates(t)
	p.configuration(t, relay)
	for i, role := range []string{"dispatcher", "relay"} {
		p.logs[i] = &log{}
		cmd := exec.Command(binary, role, "--config-dir", p.dir, "--runtime-dir", p.dir)
		cmd.Stdout, cmd.Stderr = p.logs[i], p.logs[i]
		t.Cleanup(func() {
			if t.Failed() {
				t.Logf("log of the %s:\n%s", role, p.logs[i].tail(40))
			}
		})
		host.Start(cmd)
		if role == "dispatcher" {
			p.dispatcher = cmd
		} else {
			p.relay = cmd
		}
	}
	p.waitUntilServing(t)
	return p
}

// RelayPID is the process that moves the packets.
func (p *Pair) RelayPID() int { return p.relay.Process.Pid }

// RelayLog is what the relay has written so far.
func (p *Pair) RelayLog() string { return p.logs[1].String() }

func (p *Pair) certificates(t testing.TB) {
	t.Helper()
	if out, err := exec.Command(p.binary, "certs", filepath.Join(p.dir, "tls")).CombinedOutput(); err != nil {
		t.Fatalf("make certificates: %v\n%s", err, out)
	}
}

func (p *Pair) configuration(t testing.TB, relay Settings) {
	t.Helper()
	var b strings.Builder
	fmt.Fprintf(&b, "[TLS]\ncerts_path = %s\n", filepath.Join(p.dir, "tls"))
	fmt.Fprintf(&b, "[Dispatcher]\nsocket_path = %s\nlisten = 127.0.0.1\nmanagement_use_tls = no\nstrict_config = yes\nstate_dir = %s\n", p.Socket, filepath.Join(p.dir, "dispatcher"))
	fmt.Fprintf(&b, "[Relay]\ndispatchers = 127.0.0.1\nreconnect_delay = 1\nstrict_config = yes\nstate_dir = %s\n", filepath.Join(p.dir, "relay"))
	for key, value := range relay {
		fmt.Fprintf(&b, "%s = %s\n", key, value)
	}
	if err := os.WriteFile(filepath.Join(p.dir, "config.ini"), []byte(b.String()), 0o600); err != nil {
		t.Fatal(err)
	}
}

// waitUntilServing asks until a call gets ports. The ports carry nothing, so they are
// as new afterwards.
func (p *Pair) waitUntilServing(t testing.TB) {
	t.Helper()
	var last error
	for deadline := time.Now().Add(15 * time.Second); time.Now().Before(deadline); {
		if last = p.tryCall(); last == nil {
			return
		}
		select {
		case <-t.Context().Done():
			t.FailNow()
		case <-time.After(50 * time.Millisecond):
		}
	}
	t.Fatalf("dispatcher and relay do not serve: %v", last)
}

func (p *Pair) tryCall() error {
	c, err := module.Dial(p.Socket, module.Timeout)
	if err != nil {
		return err
	}
	defer c.Close()
	media, err := control.ParseMedia("audio:192.0.2.1:4000:sendrecv:ice=no")
	if err != nil {
		return err
	}
	u := control.Update{Kind: control.KindRequest, CallID: "are-you-there", FromTag: "f", CSeq: 1, UserAgent: "test", FromURI: "a@example.org", ToURI: "b@example.org", HasMedia: true, Media: media}
	if _, err := c.Update(u); err != nil {
		return err
	}
	return c.Remove(control.Remove{CallID: u.CallID, FromTag: u.FromTag})
}

// log collects what a program prints.
type log struct {
	mu   sync.Mutex // guards what follows
	text bytes.Buffer
}

func (l *log) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

func (l *log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

func (l *log) tail(lines int) string {
	all := strings.SplitAfter(l.String(), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "")
}
