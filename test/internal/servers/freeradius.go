// Package servers runs the servers that finished calls are stored in, each as a process of
// the test with files of its own.
package servers

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// FreeRADIUS is a server of accounting with folders of its own: a process of the test, on a
// port of loopback. It writes each record that it takes into a file.
type FreeRADIUS struct {
	Addr netip.AddrPort

	program, dir string
	mu           sync.Mutex // guards what follows
	cmd          *exec.Cmd
	exited       chan struct{}
	log          bytes.Buffer
}

// RadiusOptions of a server. The zero value is one on 127.0.0.1 with the secret "testing".
type RadiusOptions struct {
	Addr       netip.Addr
	Secret     string
	Dictionary string // definitions besides the server's own; empty: RadiusDictionary
}

// RadiusDictionary has the attributes of finished calls, with the numbers that OpenSIPS uses
// for tags.
const RadiusDictionary = `ATTRIBUTE	Sip-From-Tag	206	string
ATTRIBUTE	Sip-To-Tag	207	string
ATTRIBUTE	Media-Codecs	233	string
ATTRIBUTE	Media-Info	234	string
ATTRIBUTE	Sip-User-Agents	235	string
ATTRIBUTE	Sip-Applications	236	string
ATTRIBUTE	Sip-Post-Dial-Delay	237	integer
`

const radiusConfig = `prefix = /usr
raddbdir = %[1]s
logdir = %[1]s
run_dir = %[1]s
max_request_time = 30
cleanup_delay = 2
hostname_lookups = no
security {
	allow_vulnerable_openssl = yes
	status_server = no
}
client tests {
	ipaddr = %[2]s
	secret = "%[4]s"
}
modules {
	detail {
		filename = %[1]s/records
		header = "record"
		permissions = 0600
	}
}
server default {
	listen {
		type = acct
		ipaddr = %[2]s
		port = %[3]d
	}
	accounting {
		detail
	}
}
`

// StartFreeRADIUS runs a server until the test ends.
func StartFreeRADIUS(t testing.TB, o RadiusOptions) *FreeRADIUS {
	t.Helper()
	program, err := exec.LookPath("freeradius")
	if err != nil {
		if program, err = exec.LookPath("/usr/sbin/freeradius"); err != nil {
			t.Fatal("freeradius is missing (Debian package freeradius): run test/setup/install.sh")
		}
	}
	if !o.Addr.IsValid() {
		o.Addr = netip.MustParseAddr("127.0.0.1")
	}
	if o.Secret == "" {
		o.Secret = "testing"
	}
	if o.Dictionary == "" {
		o.Dictionary = RadiusDictionary
	}
	s := &FreeRADIUS{program: program, dir: t.TempDir(), Addr: freePort(t, o.Addr)}
	for name, text := range map[string]string{
		"radiusd.conf": fmt.Sprintf(radiusConfig, s.dir, o.Addr, s.Addr.Port(), o.Secret),
		"dictionary":   o.Dictionary,
	} {
		if err := os.WriteFile(filepath.Join(s.dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() {
		s.Stop(t)
		if t.Failed() {
			t.Logf("freeradius on %s said:\n%s", s.Addr, s.Log())
		}
	})
	s.Start(t)
	return s
}

// freePort finds a UDP port that nobody has just now, below those that the system gives to
// clients: one of them could take it while the server is stopped.
func freePort(t testing.TB, a netip.Addr) netip.AddrPort {
	t.Helper()
	var err error
	for range 100 {
		to := netip.AddrPortFrom(a, uint16(12000+rand.N(18000)))
		var conn *net.UDPConn
		if conn, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(to)); err == nil {
			conn.Close()
			return to
		}
	}
	t.Fatal(err)
	return netip.AddrPort{}
}

// Start runs the server, again after Stop, and waits until it serves.
func (s *FreeRADIUS) Start(t testing.TB) {
	t.Helper()
	s.mu.Lock()
	s.log.Reset()
	s.cmd = exec.Command(s.program, "-fxx", "-l", "stdout", "-d", s.dir)
	s.cmd.Stdout, s.cmd.Stderr = logWriter{s}, logWriter{s}
	err := s.cmd.Start()
	cmd, exited := s.cmd, make(chan struct{})
	s.exited = exited
	s.mu.Unlock()
	if err != nil {
		t.Fatalf("start freeradius: %v", err)
	}
	go func() {
		defer close(exited)
		cmd.Wait()
	}()
	for deadline := time.Now().Add(30 * time.Second); !strings.Contains(s.Log(), "Ready to process requests"); {
		select {
		case <-exited:
			t.Fatalf("freeradius ended:\n%s", s.Log())
		case <-time.After(20 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			t.Fatalf("freeradius does not serve after 30 s:\n%s", s.Log())
		}
	}
}

// Stop ends the server: nothing listens on its port then.
func (s *FreeRADIUS) Stop(t testing.TB) {
	t.Helper()
	s.mu.Lock()
	cmd, exited := s.cmd, s.exited
	s.cmd = nil
	s.mu.Unlock()
	if cmd == nil {
		return
	}
	cmd.Process.Signal(syscall.SIGCONT) // Freeze may have been the last
	cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-exited:
	case <-time.After(10 * time.Second):
		cmd.Process.Kill()
		<-exited
	}
}

// Freeze makes the server silent with its port still open, and Thaw ends that.
func (s *FreeRADIUS) Freeze(t testing.TB) { s.signal(t, syscall.SIGSTOP) }

// Thaw lets a frozen server go on.
func (s *FreeRADIUS) Thaw(t testing.TB) { s.signal(t, syscall.SIGCONT) }

func (s *FreeRADIUS) signal(t testing.TB, sig syscall.Signal) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.cmd.Process.Signal(sig); err != nil {
		t.Fatal(err)
	}
}

// Log is what the server has said since its last start.
func (s *FreeRADIUS) Log() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.log.String()
}

// Records are those that it has taken, the oldest first: names of attributes and their
// values as the server prints them, without quotes.
func (s *FreeRADIUS) Records(t testing.TB) []map[string]string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(s.dir, "records"))
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	var records []map[string]string
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSpace(line)
		if line == "record" {
			records = append(records, map[string]string{})
			continue
		}
		if name, value, ok := strings.Cut(line, " = "); ok && len(records) > 0 {
			records[len(records)-1][name] = strings.Trim(value, `"`)
		}
	}
	return records
}

// ClientConf writes the configuration of a client of these servers, in a folder of its own,
// and returns the path of its client.conf. The dictionary has RadiusDictionary.
func ClientConf(t testing.TB, more string, addrs ...netip.AddrPort) string {
	t.Helper()
	dir := t.TempDir()
	var conf, secrets strings.Builder
	for _, a := range addrs {
		fmt.Fprintf(&conf, "acctserver\t%s\n", a)
	}
	seen := map[netip.Addr]bool{}
	for _, a := range addrs {
		if !seen[a.Addr()] {
			fmt.Fprintf(&secrets, "%s\ttesting\n", a.Addr())
		}
		seen[a.Addr()] = true
	}
	conf.WriteString("servers\tservers\ndictionary\tdictionary\nradius_timeout\t1\nradius_retries\t2\n" + more)
	for name, text := range map[string]string{"client.conf": conf.String(), "servers": secrets.String(), "dictionary": RadiusDictionary} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return filepath.Join(dir, "client.conf")
}

// logWriter takes what the server says.
type logWriter struct{ s *FreeRADIUS }

func (w logWriter) Write(b []byte) (int, error) {
	w.s.mu.Lock()
	defer w.s.mu.Unlock()
	return w.s.log.Write(b)
}
