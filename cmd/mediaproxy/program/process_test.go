package program

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"example.org/mediaproxy/internal/config"
	"example.org/mediaproxy/internal/pki"
)

// patience is how long a test waits for what must come. Machines may be slow.
const patience = 30 * time.Second

// The test binary is also the program under test: with this variable set it is what
// its first argument names.
const actVariable = "MEDIAPROXY_TEST_ACT"

func TestMain(m *testing.M) {
	if os.Getenv(actVariable) != "" {
		os.Exit(Main(os.Args, os.Stdout, os.Stderr))
	}
	goleak.VerifyTestMain(m)
}

// site is the folders of one test.
type site struct{ config, run, state, certs string }

func newSite(t *testing.T) site {
	t.Helper()
	dir := t.TempDir()
	s := site{config: filepath.Join(dir, "etc"), run: filepath.Join(dir, "run"), state: filepath.Join(dir, "state"), certs: filepath.Join(dir, "etc/tls")}
	if err := os.Mkdir(s.config, 0o755); err != nil {
		t.Fatal(err)
	}
	// What a relay that was killed, or keeps its calls, left in the kernel.
	t.Cleanup(func() { os.RemoveAll(filepath.Join(config.Default().Relay.BPFDir, pinName(s.state))) })
	return s
}

// write makes a configuration from the lines of each section.
func (s site) write(t *testing.T, dispatcher, relay string) {
	t.Helper()
	text := fmt.Sprintf("[Dispatcher]\nstate_dir = %s\n%s\n[Relay]\nstate_dir = %s\n%s\n", s.state, dispatcher, s.state, relay)
	if err := os.WriteFile(filepath.Join(s.config, "config.ini"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func (s site) certificates(t *testing.T) {
	t.Helper()
	if _, err := pki.Create(s.certs, pki.Options{}); err != nil {
		t.Fatal(err)
	}
}

func (s site) args(command ...string) []string {
	return append(command, "--config-dir", s.config, "--runtime-dir", s.run)
}

func (s site) pid(t *testing.T, name string) int {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(s.run, name+".pid"))
	if err != nil {
		t.Fatal(err)
	}
	var pid int
	if _, err := fmt.Sscanf(string(text), "%d\n", &pid); err != nil || pid <= 1 {
		t.Fatalf("PID file holds %q", text)
	}
	return pid
}

// process is a running program and what it printed.
type process struct {
	cmd  *exec.Cmd
	done chan struct{}

	mu       sync.Mutex // guards what follows
	out, err bytes.Buffer
}

type lockedWriter struct {
	p  *process
	to *bytes.Buffer
}

func (w lockedWriter) Write(b []byte) (int, error) {
	w.p.mu.Lock()
	defer w.p.mu.Unlock()
	return w.to.Write(b)
}

// start runs the program; it is killed at the end of the test if it still runs.
func start(t *testing.T, env []string, args ...string) *process {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	p := &process{done: make(chan struct{})}
	p.cmd = &exec.Cmd{
		Path: self, Args: args, Env: append(append(os.Environ(), actVariable+"=1", "GORACE=atexit_sleep_ms=0"), env...),
		Stdout: lockedWriter{p, &p.out}, Stderr: lockedWriter{p, &p.err},
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { // ends with the program; Cleanup waits
		defer close(p.done)
		p.cmd.Wait()
	}()
	t.Cleanup(func() {
		p.cmd.Process.Kill()
		<-p.done
		if t.Failed() {
			t.Logf("%v printed:\n%s%s", args, p.stdout(), p.stderr())
		}
	})
	return p
}

func (p *process) stdout() string { p.mu.Lock(); defer p.mu.Unlock(); return p.out.String() }
func (p *process) stderr() string { p.mu.Lock(); defer p.mu.Unlock(); return p.err.String() }

// exit waits for the end and returns the exit code.
func (p *process) exit(t *testing.T) int {
	t.Helper()
	select {
	case <-p.done:
		return p.cmd.ProcessState.ExitCode()
	case <-time.After(patience):
		t.Fatal("the program does not end")
		return 0
	}
}

// says waits until the program has printed a text.
func (p *process) says(t *testing.T, text string) {
	t.Helper()
	eventually(t, "it says "+text, func() bool { return strings.Contains(p.stdout()+p.stderr(), text) })
}

func (p *process) signal(t *testing.T, s syscall.Signal) {
	t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		t.Fatal(err)
	}
}

func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !is(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within %v: %s", patience, what)
		}
	}
}

func exists(path string) bool { _, err := os.Lstat(path); return err == nil }

// freePort is a TCP port of loopback that nobody has, below those that the kernel gives
// to whoever asks for any: other tests do meanwhile.
func freePort(t *testing.T) int {
	t.Helper()
	for range 100 {
		port := 10000 + rand.IntN(20000)
		if l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port)); err == nil {
			l.Close()
			return port
		}
	}
	t.Fatal("no free port")
	return 0
}
