package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"example.org/mediaproxy/test/bench/traffic"
)

// startTime is how long a program may take to be ready.
const startTime = 15 * time.Second

// process is a program under measurement. It ends with the bench.
type process struct {
	cmd  *exec.Cmd
	out  tail
	done chan struct{}
}

// place is where a program runs: on loopback with everything else, or as the host of
// a traffic bed.
type place struct {
	bed   *traffic.Bed // nil: loopback
	core  int          // the only processor it may use, -1: any
	wide  bool         // a relay has nearly all ports, on loopback of IPv6 as well
	books string       // back-ends of accounting; a cluster that has some runs beside one that has none, so its relay has an address of its own
}

var loopback = place{core: -1}

// do calls f with the thread there.
func (p place) do(f func() error) error {
	if p.bed == nil {
		return f()
	}
	return p.bed.In(f)
}

func (p place) addr() netip.Addr {
	switch {
	case p.bed == nil && p.books != "":
		return netip.MustParseAddr("127.0.0.3")
	case p.bed == nil:
		return netip.MustParseAddr("127.0.0.1")
	}
	return traffic.RelayAddr
}

func (p place) start(name string, args ...string) (q *process, err error) {
	err = p.do(func() error {
		if p.core < 0 {
			q, err = start(name, args...)
			return err
		}
		return traffic.Dedicated(p.core, func() error { q, err = start(name, args...); return err })
	})
	return q, err
}

func start(name string, args ...string) (*process, error) {
	p := &process{cmd: exec.Command(name, args...), done: make(chan struct{})}
	p.cmd.Stdout, p.cmd.Stderr = &p.out, &p.out
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		p.cmd.Wait()
		close(p.done)
	}()
	return p, nil
}

func (p *process) pid() int { return p.cmd.Process.Pid }

func (p *process) stop() {
	if p == nil {
		return
	}
	p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.done:
	case <-time.After(5 * time.Second):
		p.cmd.Process.Kill()
		<-p.done
	}
}

// kill is for a process that has nothing to tidy up.
func (p *process) kill() {
	p.cmd.Process.Kill()
	<-p.done
}

// until waits for a condition while the process lives.
func (p *process) until(what string, ready func() bool) error {
	ctx, cancel := context.WithTimeout(context.Background(), startTime)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !ready() {
		select {
		case <-p.done:
			return fmt.Errorf("%s ended before %s: %s", filepath.Base(p.cmd.Path), what, p.out.String())
		case <-ctx.Done():
			return fmt.Errorf("%s: no %s after %v: %s", filepath.Base(p.cmd.Path), what, startTime, p.out.String())
		case <-tick.C:
		}
	}
	return nil
}

// tail keeps the end of what a program printed.
type tail struct {
	mu sync.Mutex
	b  []byte
}

func (t *tail) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.b = append(t.b, b...)
	if len(t.b) > 4096 {
		t.b = append(t.b[:0], t.b[len(t.b)-2048:]...)
	}
	return len(b), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return strings.TrimSpace(string(t.b))
}

// last is the last line.
func (t *tail) last() string {
	text := t.String()
	return text[strings.LastIndexByte(text, '\n')+1:]
}

// cluster is a dispatcher and a relay, each a process of the real program.
type cluster struct {
	place
	dir        string
	dispatcher *process
	relay      *process
	socket     string // of the module
	management string // address
}

const configuration = `[Dispatcher]
socket_path = %[1]s/dispatcher.sock
listen = 127.0.0.1:%[2]d
listen_management = 127.0.0.1:%[3]d
management_use_tls = no
log_level = WARNING
state_dir = %[1]s/state
accounting = %[9]s

[Relay]
dispatchers = 127.0.0.1:%[2]d
name = bench
relay_ip = %[6]s
port_range = %[4]d:%[5]d
fast_path = %[7]s
bpf_dir = %[8]s
on_stop = end
log_level = WARNING
state_dir = %[1]s/state
# Many calls have no media, and are to stay nevertheless.
stream_timeout = 3600

[TLS]
certs_path = %[1]s/tls

[Database]
dburi = sqlite:%[1]s/calls.db
`

// Ports of the relay and of rtpengine: above what loopback clients of other
// programs are likely to have, and apart from each other.
const (
	relayPorts     = 40000
	relayPortsWide = 9000
	relayPortsEnd  = 60000
	enginePorts    = 20000
	enginePortsEnd = 32000
)

// startCluster runs dispatcher and relay and waits for their link.
func startCluster(s *settings, at place, fastPath string) (_ *cluster, err error) {
	program, err := filepath.Abs(s.program)
	if err != nil {
		return nil, err
	}
	if _, err := os.Stat(program); err != nil {
		return nil, fmt.Errorf("%w (make build makes it)", err)
	}
	c := &cluster{place: at}
	defer func() {
		if err != nil {
			c.stop()
		}
	}()
	if c.dir, err = os.MkdirTemp("", "mediaproxy-bench-"); err != nil {
		return nil, err
	}
	if out, err := exec.Command(program, "certs", c.dir+"/tls").CombinedOutput(); err != nil {
		return nil, fmt.Errorf("make certificates: %w: %s", err, bytes.TrimSpace(out))
	}
	free, err := freePorts(2)
	if err != nil {
		return nil, err
	}
	c.socket = c.dir + "/dispatcher.sock"
	c.management = fmt.Sprintf("127.0.0.1:%d", free[1])
	first, ips := relayPorts, at.addr().String()
	if at.wide {
		first = relayPortsWide
		if at.bed == nil {
			ips += ", ::1"
		}
	}
	text := fmt.Sprintf(configuration, c.dir, free[0], free[1], first, relayPortsEnd, ips, fastPath, c.pins(), at.books)
	if err := os.WriteFile(c.dir+"/config.ini", []byte(text), 0o600); err != nil {
		return nil, err
	}
	if c.dispatcher, err = (place{bed: at.bed, core: -1}).start(program, "dispatcher", "--config-dir", c.dir, "--runtime-dir", c.dir); err != nil {
		return nil, err
	}
	if err := c.dispatcher.until("the module's socket", func() bool { _, err := os.Stat(c.socket); return err == nil }); err != nil {
		return nil, err
	}
	if c.relay, err = at.start(program, "relay", "--config-dir", c.dir, "--runtime-dir", c.dir); err != nil {
		return nil, err
	}
	return c, c.relay.until("link to the dispatcher", func() bool {
		m, err := c.manage()
		if err != nil {
			return false
		}
		defer m.Close()
		line, err := m.ask("summary")
		return err == nil && bytes.Contains(line, []byte(`"`+at.addr().String()+`"`))
	})
}

// explain adds to an error what the programs said last.
func (c *cluster) explain(err *error) {
	if *err != nil {
		*err = fmt.Errorf("%w; dispatcher: %q; relay: %q", *err, c.dispatcher.out.last(), c.relay.out.last())
	}
}

func (c *cluster) stop() {
	c.relay.stop()
	c.dispatcher.stop()
	if c.dir != "" {
		os.RemoveAll(c.pins())
		os.RemoveAll(c.dir)
	}
}

// pins is the folder for the kernel table, which a killed relay leaves behind.
func (c *cluster) pins() string { return "/sys/fs/bpf/" + filepath.Base(c.dir) }

// manager is a connection of an operator.
type manager struct {
	net.Conn
	r *bufio.Reader
}

func (c *cluster) manage() (*manager, error) {
	var conn net.Conn
	err := c.do(func() (err error) { conn, err = net.Dial("tcp", c.management); return err })
	if err != nil {
		return nil, err
	}
	return &manager{conn, bufio.NewReaderSize(conn, 1<<20)}, nil
}

// ask returns the answer to a command, one line.
func (m *manager) ask(command string) ([]byte, error) {
	if _, err := m.Write([]byte(command + "\r\n")); err != nil {
		return nil, err
	}
	return m.r.ReadBytes('\n')
}

// freePorts finds TCP ports that nobody listens on.
func freePorts(n int) ([]int, error) {
	var ports []int
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		defer l.Close()
		ports = append(ports, l.Addr().(*net.TCPAddr).Port)
	}
	return ports, nil
}

// startEcho runs the peer of the control plane.
func startEcho(dir string) (*process, string, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, "", err
	}
	socket := dir + "/echo.sock"
	p, err := start(self, echoCommand, socket)
	if err != nil {
		return nil, "", err
	}
	err = p.until("its socket", func() bool { _, err := os.Stat(socket); return err == nil })
	if err != nil {
		p.stop()
		return nil, "", errors.Join(errors.New("start the echo server"), err)
	}
	return p, socket, nil
}
