package site

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// binary is the program under test, built by Main.
var binary string

// Main builds the program and runs the tests of a package, of which this many at once.
func Main(m *testing.M, parallel int) int {
	flag.Parse()
	// Tests of programs wait for them more than for the processor.
	flag.Set("test.parallel", fmt.Sprint(parallel))
	dir, err := os.MkdirTemp("", "mpb")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	binary = filepath.Join(dir, "mediaproxy")
	build := exec.Command("go", "build", "-trimpath", "-o", binary, "example.org/mediaproxy/cmd/mediaproxy")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "build the program: %v\n%s", err, out)
		return 1
	}
	return m.Run()
}

// Run runs the program to its end and returns what it printed and its exit code.
func Run(t testing.TB, args ...string) (output string, code int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), Patience)
	defer cancel()
	out, err := exec.CommandContext(ctx, binary, args...).CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatalf("mediaproxy %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	if ctx.Err() != nil {
		t.Fatalf("mediaproxy %s does not end\n%s", strings.Join(args, " "), out)
	}
	if exit != nil {
		return string(out), exit.ExitCode()
	}
	return string(out), 0
}

// Process is a dispatcher or a relay of its own.
type Process struct {
	Log *Log
	Dir string // configuration and runtime folder

	t     testing.TB
	cmd   *exec.Cmd
	ended chan struct{}
}

// Folder makes a configuration folder. The lines begin with a section.
func (s *Site) Folder(name string, lines ...string) string {
	s.t.Helper()
	dir := filepath.Join(s.dir, name)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		s.t.Fatal(err)
	}
	text := "[TLS]\nverify_interval = 1\ncerts_path = " + s.Certs + "\n" + strings.Join(lines, "\n") + "\n"
	if err := os.WriteFile(filepath.Join(dir, "config.ini"), []byte(text), 0o600); err != nil {
		s.t.Fatal(err)
	}
	return dir
}

// Start runs a command of the program until the test ends.
func (s *Site) Start(command, dir string) *Process {
	s.t.Helper()
	p := &Process{Log: &Log{}, Dir: dir, t: s.t, ended: make(chan struct{})}
	p.cmd = exec.Command(binary, command, "--config-dir", dir, "--runtime-dir", dir, "--debug")
	p.cmd.Stdout, p.cmd.Stderr = p.Log, p.Log
	if err := p.cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	go func() { p.cmd.Wait(); close(p.ended) }() // ends with the process, which Cleanup waits for
	s.t.Cleanup(func() {
		p.Signal(syscall.SIGCONT)
		p.Signal(syscall.SIGTERM)
		select {
		case <-p.ended:
		case <-time.After(Patience):
			s.t.Errorf("%s does not end on TERM", command)
			p.Kill()
		}
		p.Log.printed(s.t, command+" in "+filepath.Base(dir))
	})
	return p
}

// Signal sends a signal, unless the process is gone.
func (p *Process) Signal(sig syscall.Signal) {
	select {
	case <-p.ended:
	default:
		p.cmd.Process.Signal(sig)
	}
}

// Freeze stops the process in the middle of whatever it does, and waits until it stands.
func (p *Process) Freeze() {
	p.t.Helper()
	p.Signal(syscall.SIGSTOP)
	Eventually(p.t, "the process stands still", func() bool {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.cmd.Process.Pid))
		// The state comes after the name, which is in brackets (proc(5)).
		return err == nil && strings.HasPrefix(string(stat[strings.LastIndexByte(string(stat), ')')+1:]), " T")
	})
}

// Thaw lets it go on.
func (p *Process) Thaw() { p.Signal(syscall.SIGCONT) }

// Kill ends the process as a crash does, and waits for its end.
func (p *Process) Kill() {
	p.Signal(syscall.SIGKILL)
	<-p.ended
}

// PID is the process's number.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Alive says whether the process still runs.
func (p *Process) Alive() bool {
	select {
	case <-p.ended:
		return false
	default:
		return true
	}
}

// DispatcherAt runs a dispatcher that listens on its standard ports of an address, and
// waits until it is ready. Its socket is dispatcher.sock in its folder.
func (s *Site) DispatcherAt(ip string, more ...string) *Process {
	s.t.Helper()
	dir := s.Folder("d", append([]string{"[Dispatcher]", "listen = " + ip, "listen_management = " + ip, "management_use_tls = no",
		"state_dir = " + filepath.Join(s.dir, "d-state")}, more...)...)
	p := s.Start("dispatcher", dir)
	p.Log.Await(s.t, "dispatcher ready")
	return p
}

// StateOf is where RelayAt has the relay of that name keep what outlives it.
func (s *Site) StateOf(name string) string { return filepath.Join(s.dir, name+"-state") }

// RelayAt runs a relay of that name on an address, linked to a dispatcher at another.
func (s *Site) RelayAt(name, ip, dispatcher string, more ...string) *Process {
	s.t.Helper()
	dir := s.Folder(name, append([]string{"[Relay]", "name = " + name, "relay_ip = " + ip, "dispatchers = " + dispatcher,
		"reconnect_delay = 1", "state_dir = " + s.StateOf(name)}, more...)...)
	p := s.Start("relay", dir)
	p.Log.Await(s.t, "connected to dispatcher")
	return p
}

// Module connects to the socket of a dispatcher that is a process.
func (p *Process) Module() *Line {
	p.t.Helper()
	return Dial(p.t, "unix", filepath.Join(p.Dir, "dispatcher.sock"))
}

// Ctl types a command of an operator on the dispatcher's host.
func (p *Process) Ctl(args ...string) (output string, code int) {
	p.t.Helper()
	return Run(p.t, append([]string{"ctl", "--runtime-dir", p.Dir}, args...)...)
}

// Manage asks on the management port, which is that of DispatcherAt.
func (p *Process) Manage(ip, command string) string {
	p.t.Helper()
	conn, err := net.Dial("tcp", net.JoinHostPort(ip, "25061"))
	if err != nil {
		p.t.Fatal(err)
	}
	defer conn.Close()
	return NewLine(p.t, conn).Ask(command + "\r\n")
}
