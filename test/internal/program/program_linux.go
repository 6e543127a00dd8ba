package program

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
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
	path := filepath.Join(folder(t), "mediaproxy")
	cmd := exec.Command("go", "build", "-trimpath", "-tags", strings.Join(tags, ","), "-o", path, "example.org/mediaproxy/cmd/mediaproxy")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build the program: %v\n%s", err, out)
	}
	return path
}

// folder is a new one that programs of other users may enter. Its name is short, because
// paths of UNIX sockets have to be.
func folder(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "mpp")
	if err == nil {
		err = os.Chmod(dir, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// Settings are keys and values for a section of config.ini.
type Settings map[string]string

// Options of a pair.
type Options struct {
	Relay Settings
	// Wrap is a program with its arguments that starts the relay in its own place, with
	// fewer rights for example.
	Wrap []string
	// User is whom the relay's files belong to; 0: root.
	User int
	Env  []string // of the relay, besides the test's
}

// Pair is a dispatcher with one relay.
type Pair struct {
	Socket string // for modules

	binary, dir       string
	host              *netlab.Host
	options           Options
	dispatcher, relay *exec.Cmd
	logs              [2]*log
}

// Start runs a dispatcher and a relay on a host until the test ends, and waits until
// they serve calls. Their logs are printed when the test fails.
func Start(t testing.TB, binary string, host *netlab.Host, relay Settings) *Pair {
	t.Helper()
	return StartWith(t, binary, host, Options{Relay: relay})
}

// StartWith is Start for a relay in special circumstances.
func StartWith(t testing.TB, binary string, host *netlab.Host, o Options) *Pair {
	t.Helper()
	p := &Pair{binary: binary, dir: folder(t), host: host, options: o, logs: [2]*log{{}, {}}}
	p.Socket = filepath.Join(p.dir, "dispatcher.sock")
	p.certificates(t)
	p.configuration(t, o.Relay)
	p.give(t, o.User)
	if _, ok := o.Relay["bpf_dir"]; !ok {
		t.Cleanup(func() { p.discardPins(t) })
	}
	for i, role := range []string{"dispatcher", "relay"} {
		t.Cleanup(func() {
			if t.Failed() {
				t.Logf("log of the %s:\n%s", role, p.logs[i].tail(40))
			}
		})
	}
	p.dispatcher = p.command("dispatcher", binary)
	host.Start(p.dispatcher)
	p.wait(t, "the dispatcher does not serve", func() error { _, err := os.Stat(p.Socket); return err })
	p.StartRelay(binary)
	// A call gets ports. They carry nothing, so they are as new afterwards.
	p.wait(t, "dispatcher and relay do not serve", p.tryCall)
	return p
}

// command is one of the programs, not started yet.
func (p *Pair) command(role, binary string) *exec.Cmd {
	args := []string{binary, role, "--config-dir", p.dir, "--runtime-dir", p.runtime(role)}
	out := p.logs[0]
	if role == "relay" {
		args, out = append(slices.Clone(p.options.Wrap), args...), p.logs[1]
	}
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Stdout, cmd.Stderr = out, out
	if role == "relay" {
		cmd.Env = append(os.Environ(), p.options.Env...)
	}
	return cmd
}

// StartRelay starts the relay, or the one after StopRelay, from any binary.
func (p *Pair) StartRelay(binary string) {
	p.relay = p.command("relay", binary)
	p.host.Start(p.relay)
}

// StopRelay sends the relay a signal and waits until its process is gone.
func (p *Pair) StopRelay(signal syscall.Signal) {
	p.relay.Process.Signal(signal)
	_ = p.relay.Wait() // its end is what the signal asked for
}

// SecondRelay starts the relay once more beside the one that runs, and returns what it
// printed until it ended.
func (p *Pair) SecondRelay() (printed string, exit int) {
	cmd := p.command("relay", p.binary)
	var out log
	cmd.Stdout, cmd.Stderr = &out, &out
	for i, arg := range cmd.Args {
		if arg == "--runtime-dir" {
			cmd.Args[i+1] = p.runtime("second")
		}
	}
	p.host.Start(cmd)
	_ = cmd.Wait() // its exit code tells
	return out.String(), cmd.ProcessState.ExitCode()
}

// RelayPID is the process that moves the packets.
func (p *Pair) RelayPID() int { return p.relay.Process.Pid }

// RelayLog is what the relay has written so far.
func (p *Pair) RelayLog() string { return p.logs[1].String() }

// Pins is where the relay's kernel table is while it lives.
func (p *Pair) Pins() string { return filepath.Join(pinned, pinName(p.state("relay"))) }

// pinned is the default of bpf_dir.
const pinned = "/sys/fs/bpf/mediaproxy"

// pinName is the relay's: everything but letters and digits becomes "_".
func pinName(stateDir string) string {
	return regexp.MustCompile(`[^a-zA-Z0-9]`).ReplaceAllString(strings.Trim(stateDir, "/"), "_")
}

// discardPins fails the test if the relay left its kernel table behind, and removes it.
func (p *Pair) discardPins(t testing.TB) {
	if _, err := os.Stat(p.Pins()); err == nil {
		t.Errorf("the relay left %s behind", p.Pins())
		os.RemoveAll(p.Pins())
	}
}

// Ctl types a command of an operator and returns what it printed.
func (p *Pair) Ctl(args ...string) (string, error) {
	out, err := exec.Command(p.binary, append([]string{"ctl", "--runtime-dir", p.runtime("dispatcher")}, args...)...).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("ctl %s: %w\n%s", strings.Join(args, " "), err, out)
	}
	return string(out), nil
}

// Documents reads what a command of an operator answers.
func Documents[T any](p *Pair, args ...string) (docs []T, err error) {
	out, err := p.Ctl(append(args, "--json")...)
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal([]byte(out), &docs); err != nil {
		return nil, fmt.Errorf("ctl %s: %w\n%s", strings.Join(args, " "), err, out)
	}
	return docs, nil
}

func (p *Pair) state(role string) string   { return filepath.Join(p.dir, role) }
func (p *Pair) runtime(role string) string { return filepath.Join(p.dir, role+"-run") }

// give makes the folders that the relay writes to, and hands them with its certificate
// to a user.
func (p *Pair) give(t testing.TB, user int) {
	t.Helper()
	for _, dir := range []string{p.state("relay"), p.runtime("relay")} {
		if err := errors.Join(os.MkdirAll(dir, 0o755), os.Chown(dir, user, user)); err != nil {
			t.Fatal(err)
		}
	}
	for _, file := range []string{"config.ini", "tls/relay.crt", "tls/relay.key"} {
		if err := os.Chown(filepath.Join(p.dir, file), user, user); err != nil {
			t.Fatal(err)
		}
	}
}

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
	fmt.Fprintf(&b, "[Dispatcher]\nsocket_path = %s\nlisten = 127.0.0.1\nmanagement_use_tls = no\nstrict_config = yes\nstate_dir = %s\n", p.Socket, p.state("dispatcher"))
	fmt.Fprintf(&b, "[Relay]\ndispatchers = 127.0.0.1\nreconnect_delay = 1\nstrict_config = yes\nstate_dir = %s\n", p.state("relay"))
	if relay["on_stop"] == "" {
		b.WriteString("on_stop = end\n") // calls that the test leaves behind end with the relay
	}
	for key, value := range relay {
		fmt.Fprintf(&b, "%s = %s\n", key, value)
	}
	if err := os.WriteFile(filepath.Join(p.dir, "config.ini"), []byte(b.String()), 0o600); err != nil {
		t.Fatal(err)
	}
}

// wait asks until there is no error any more.
func (p *Pair) wait(t testing.TB, what string, ready func() error) {
	t.Helper()
	var last error
	for deadline := time.Now().Add(15 * time.Second); time.Now().Before(deadline); {
		if last = ready(); last == nil {
			return
		}
		select {
		case <-t.Context().Done():
			t.FailNow()
		case <-time.After(50 * time.Millisecond):
		}
	}
	t.Fatalf("%s: %v", what, last)
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
