package badinput

import (
	"crypto/tls"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"example.org/mediaproxy/internal/pki"
	"example.org/mediaproxy/internal/wire/relaylink"
	"example.org/mediaproxy/test/internal/site"
)

// pair loads a certificate of a folder for a client that trusts everybody.
func pair(t *testing.T, dir, name string) *tls.Config {
	t.Helper()
	cert, err := tls.LoadX509KeyPair(filepath.Join(dir, pki.CertFile(name)), filepath.Join(dir, pki.KeyFile(name)))
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Config{Certificates: []tls.Certificate{cert}, InsecureSkipVerify: true, NextProtos: []string{relaylink.ALPN}}
}

func issue(t *testing.T, dir, name string, o pki.Options) {
	t.Helper()
	if _, err := pki.Issue(dir, name, o); err != nil {
		t.Fatal(err)
	}
}

func revoke(t *testing.T, dir, name string) {
	t.Helper()
	if _, _, err := pki.Revoke(dir, filepath.Join(dir, pki.CertFile(name)), pki.Options{}); err != nil {
		t.Fatal(err)
	}
}

// TestPeers: who may not connect as a relay.
func TestPeers(t *testing.T) {
	t.Parallel()
	s := newStage(t, 6)
	stranger := site.New(t, site.Options{}).Certs
	issue(t, s.Certs, "expired", pki.Options{Lifetime: 1})
	issue(t, s.Certs, "revoked", pki.Options{})
	s.logs(s.d, func() { revoke(t, s.Certs, "revoked") }, "certificates reloaded")
	old := pair(t, s.Certs, pki.Relay)
	old.MinVersion, old.MaxVersion = tls.VersionTLS10, tls.VersionTLS11
	address := s.net + "9:25060"
	for _, tt := range []struct {
		name   string
		tls    *tls.Config // nil: not even TLS
		logged string
	}{
		{"no certificate", &tls.Config{InsecureSkipVerify: true}, "client didn't provide a certificate"},
		{"another authority", pair(t, stranger, pki.Relay), "not issued by the authority in ca.pem"},
		{"expired", pair(t, s.Certs, "expired"), "certificate not valid at this time"},
		{"revoked", pair(t, s.Certs, "revoked"), "certificate revoked"},
		{"TLS 1.1", old, "unsupported versions"},
		{"no TLS", nil, "first record does not look like a TLS handshake"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s.logs(s.d, func() {
				conn, err := net.Dial("tcp", address)
				if err != nil {
					t.Fatal(err)
				}
				defer conn.Close()
				conn.SetDeadline(time.Now().Add(site.Patience))
				if tt.tls == nil {
					fmt.Fprint(conn, "GET / HTTP/1.1\r\n\r\n")
				} else {
					conn = tls.Client(conn, tt.tls)
				}
				for buf := make([]byte, 100); err == nil; { // TLS 1.3 refuses with the first read
					_, err = conn.Read(buf)
				}
			}, "relay refused", "peer=127.0.0.1:", tt.logged)
			s.serves()
		})
	}
}

// greeted connects as a relay and greets.
func greeted(t *testing.T, s *stage, certificate, hello string) *site.Line {
	t.Helper()
	conn, err := tls.Dial("tcp", s.net+"9:25060", pair(t, s.Certs, certificate))
	if err != nil {
		t.Fatal(err)
	}
	l := site.NewLine(t, conn)
	l.Send(hello)
	return l
}

// drained is a relay that gets no calls.
func drained(name, instance string) string {
	return fmt.Sprintf(`hello {"name": %q, "instance": %q, "version": "1", "features": [], "ip": "192.0.2.1", "ips": ["192.0.2.1"], "capacity": 1, `+
		`"labels": [], "draining": true, "load": {"sessions": 0, "streams": 0, "bps": 0, "ports_free": 0}}`+"\r\n", name, instance)
}

// TestRevokedWhileConnected: the connection of a relay ends within the interval of
// verification, and those of others stay.
func TestRevokedWhileConnected(t *testing.T) {
	t.Parallel()
	s := newStage(t, 7)
	issue(t, s.Certs, "second", pki.Options{})
	l := greeted(t, s, "second", drained("r2", "x"))
	s.d.Log.Await(t, "relay connected", "relay=r2")
	revoke(t, s.Certs, "second")
	s.d.Log.Await(t, "connection closed: its peer is no longer acceptable", "certificate revoked")
	s.d.Log.Await(t, "relay connection lost", "relay=r2")
	l.Conn.Close()
	s.serves()
	if n := s.d.Log.Count("relay connection lost", "relay=r1"); n != 0 {
		t.Errorf("the other relay lost its connection %d times", n)
	}
}

// TestRelayLines: a relay with a certificate that talks nonsense.
func TestRelayLines(t *testing.T) {
	t.Parallel()
	s := newStage(t, 8)
	for _, tt := range []struct{ name, hello, logged string }{
		{"no greeting", "ping {}\r\n", "read the relay's hello"},
		{"greeting that is no JSON", "hello there\r\n", "relay refused"},
		{"greeting without a name", "hello {}\r\n", "name"},
		{"name that no line can carry", drained("r\n2", "x"), "has control characters"},
		{"name of another", drained("r1", "x"), "is in use by a relay connected from 127.0.0.1: give each relay its own name ([Relay] name)"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s.logs(s.d, func() { greeted(t, s, pki.Relay, tt.hello) }, "relay refused", tt.logged)
			s.serves()
		})
	}
	l := greeted(t, s, pki.Relay, drained("r2", "x"))
	s.d.Log.Await(t, "relay connected", "relay=r2")
	for _, tt := range []struct{ name, line, logged string }{
		{"one word", "nonsense", "line of the relay cannot be read"},
		{"binary", "\x00\xff\x00", "line of the relay cannot be read"},
		{"a record that is cut off", `expired {"call_id": "up"`, "report of an expired call cannot be read"},
		{"a record of the wrong type", `expired {"call_id": 7}`, "report of an expired call cannot be read"},
		{"a load that is cut off", `ping {"sessions": 1`, "load of the relay cannot be read"},
		{"a second greeting", `hello {"name": "r1"}`, "relay greets a second time"},
		{"an answer that nobody waits for", "4711 127.0.0.1 4000", "answer to no command that waits"},
		{"an answer whose number is none", "soon 127.0.0.1 4000", "answer to no command that waits"},
		{"the end of a call that it never had", `expired {"call_id": "up", "from_tag": "a", "record_id": "x1", "reason": "timeout", "streams": []}`, "report of a call that is not known"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s.logs(s.d, func() { l.Send(tt.line + "\r\n") }, tt.logged, "relay=r2")
			s.serves()
		})
	}
}

// TestDispatcherLines: the same the other way round. The relay has a second
// dispatcher, which speaks the plain protocol badly.
func TestDispatcherLines(t *testing.T) {
	t.Parallel()
	s := newStage(t, 9)
	listener, err := tls.Listen("tcp", "127.0.0.1:0", s.Store(pki.Dispatcher).ServerConfig(pki.Passport{}))
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	stranger, err := tls.Listen("tcp", "127.0.0.1:0", pair(t, site.New(t, site.Options{}).Certs, pki.Dispatcher))
	if err != nil {
		t.Fatal(err)
	}
	defer stranger.Close()
	handshakes := make(chan struct{})
	go func() { // ends with the listener
		defer close(handshakes)
		for {
			conn, err := stranger.Accept()
			if err != nil {
				return
			}
			conn.Read(make([]byte, 1))
			conn.Close()
		}
	}()
	r := s.RelayAt("r2", s.net+"2", fmt.Sprintf("%s9, %s, %s", s.net, listener.Addr(), stranger.Addr()))
	conn, err := listener.Accept()
	if err != nil {
		t.Fatal(err)
	}
	l := site.NewLine(t, conn)
	for _, tt := range []struct{ name, text, answer, logged string }{
		{"no command", "nonsense", "", "line from dispatcher skipped"},
		{"three words", "one two three", "", "line from dispatcher skipped"},
		{"unknown command", "dance 1\r\ncall_id: x\r\n", "1 error", "unknown command"},
		{"no headers", "update 2\r\n", "2 error", "header call_id (offset 0): missing or empty"},
		{"CSeq in words", "update 3\r\ncall_id: x\r\nfrom_tag: a\r\ntype: request\r\ncseq: one\r\n", "3 error", "is not a number below 2^32"},
		{"media in words", "update 4\r\ncall_id: x\r\nfrom_tag: a\r\ntype: request\r\ncseq: 1\r\nmedia: music\r\n", "4 error", "is not a direction"},
		{"a remove of nothing", "remove 5\r\n", "5 error", "header call_id (offset 0): missing or empty"},
		{"a header without colon", "remove 6\r\ncall_id\r\n", "6 error", "line from dispatcher skipped"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s.logs(r, func() {
				l.Send(tt.text + "\r\n")
				for tt.answer != "" {
					got := l.Receive()
					if got == tt.answer {
						break
					}
					if got != "ping" {
						t.Errorf("got %q, want %q", got, tt.answer)
						break
					}
					l.Send("pong\r\n")
				}
			}, tt.logged)
			s.serves()
		})
	}
	s.logs(r, func() { l.Send("update 7\r\ncall_id: " + strings.Repeat("x", 17000) + "\r\n") }, "connection to dispatcher lost", "limit 16384 bytes")
	r.Log.Await(t, "certificate problem with dispatcher; check [TLS] certs_path and the passports on both sides", stranger.Addr().String(), "not issued by the authority in ca.pem")
	s.serves()
	stranger.Close()
	<-handshakes
}

// TestPassports: a certificate of our authority is not enough.
func TestPassports(t *testing.T) {
	t.Parallel()
	s := newStage(t, 10)
	dir := s.Folder("r2", "[Relay]", "name = r2", "relay_ip = "+s.net+"2", "dispatchers = "+s.net+"9", "passport = CN:MediaProxy boss", "state_dir = "+s.Certs+"-r2")
	r := s.Start("relay", dir)
	r.Log.Await(t, "certificate problem with dispatcher", "passport does not match")
	s.d.Log.Await(t, "relay refused", "bad certificate")
	s.serves()
}

// TestCertificateFolders: programs that cannot start say what to do, and running ones
// keep what they have.
func TestCertificateFolders(t *testing.T) {
	t.Parallel()
	remove := func(t *testing.T, path string) {
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
	}
	write := func(t *testing.T, path, text string) {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, tt := range []struct {
		name, file string
		breakIt    func(t *testing.T, path string)
		want       string
	}{
		{"no authority", "ca.pem", remove, "ca.pem: there is no such file; make a set with: mediaproxy certs"},
		{"no list of revoked certificates", "crl.pem", remove, "crl.pem: there is no such file"},
		{"no certificate", "relay.crt", remove, "relay.crt: there is no such file"},
		{"no key", "relay.key", remove, "relay.key: there is no such file"},
		{"empty list", "crl.pem", func(t *testing.T, path string) { write(t, path, "") }, "crl.pem: the file is empty"},
		{"authority that is none", "ca.pem", func(t *testing.T, path string) { write(t, path, "hello\n") }, "ca.pem: not PEM: no line -----BEGIN CERTIFICATE-----"},
		{"key of another", "relay.key", func(t *testing.T, path string) {
			key, err := os.ReadFile(filepath.Join(filepath.Dir(path), "dispatcher.key"))
			if err != nil {
				t.Fatal(err)
			}
			write(t, path, string(key))
		}, "relay.key: is the key of another certificate than relay.crt"},
		{"certificate cut off", "relay.crt", func(t *testing.T, path string) {
			if err := os.Truncate(path, 100); err != nil {
				t.Fatal(err)
			}
		}, "relay.crt: the "},
		{"certificate of another authority", "ca.pem", func(t *testing.T, path string) {
			ca, err := os.ReadFile(filepath.Join(site.New(t, site.Options{}).Certs, "ca.pem"))
			if err != nil {
				t.Fatal(err)
			}
			write(t, path, string(ca))
		}, "ca.pem"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := site.New(t, site.Options{})
			tt.breakIt(t, filepath.Join(s.Certs, tt.file))
			dir := s.Folder("r", "[Relay]", "relay_ip = 127.18.0.1", "dispatchers = 127.18.0.9", "state_dir = "+s.Certs+"-state")
			out, code := site.Run(t, "relay", "--config-dir", dir, "--runtime-dir", dir)
			if code != 1 || !strings.Contains(out, tt.want) {
				t.Errorf("got code %d and\n%s\nwant 1 and %q", code, out, tt.want)
			}
		})
	}
	t.Run("while they run", func(t *testing.T) {
		t.Parallel()
		s := newStage(t, 11)
		s.T = t
		path := filepath.Join(s.Certs, "crl.pem")
		good, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		write(t, path, "hello\n")
		s.d.Log.Await(t, "certificates: ", "crl.pem: not PEM")
		s.r.Log.Await(t, "certificates: ", "crl.pem: not PEM")
		s.serves()
		write(t, path, string(good))
		s.serves()
	})
}
