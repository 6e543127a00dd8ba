package relay

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"math/big"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"example.org/mediaproxy/internal/wire/relaylink"
)

// authority issues certificates for one test.
type authority struct {
	t    testing.TB
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pool *x509.CertPool
}

func newAuthority(t testing.TB) *authority {
	a := &authority{t: t, pool: x509.NewCertPool()}
	der, key := a.make("authority", true, nil, nil)
	var err error
	if a.cert, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	a.key = key
	a.pool.AddCert(a.cert)
	return a
}

func (a *authority) make(name string, ca bool, parent *x509.Certificate, signer *ecdsa.PrivateKey) ([]byte, *ecdsa.PrivateKey) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: ca, BasicConstraintsValid: ca,
	}
	if parent == nil {
		parent, signer = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, signer)
	if err != nil {
		a.t.Fatal(err)
	}
	return der, key
}

func (a *authority) config(name string, alpn ...string) *tls.Config {
	der, key := a.make(name, false, a.cert, a.key)
	return &tls.Config{
		MinVersion: tls.VersionTLS12, NextProtos: alpn,
		Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}},
		ClientAuth:   tls.RequireAnyClientCert, InsecureSkipVerify: true, // names are not checked, chains are:
		VerifyConnection: func(s tls.ConnectionState) error {
			_, err := s.PeerCertificates[0].Verify(x509.VerifyOptions{Roots: a.pool, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}})
			return err
		},
	}
}

func dialTLS(config *tls.Config) Dial {
	return func(ctx context.Context, addr netip.AddrPort) (net.Conn, string, error) {
		nc, err := (&tls.Dialer{Config: config}).DialContext(ctx, "tcp", addr.String())
		if err != nil {
			return nil, "", err
		}
		return nc, nc.(*tls.Conn).ConnectionState().NegotiatedProtocol, nil
	}
}

// tlsDispatcher listens for relays; without ALPN names it is one of the original.
type tlsDispatcher struct {
	t    testing.TB
	ln   net.Listener
	addr netip.AddrPort
}

func listen(t testing.TB, config *tls.Config, addr string) *tlsDispatcher {
	t.Helper()
	ln, err := tls.Listen("tcp", addr, config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	return &tlsDispatcher{t: t, ln: ln, addr: netip.MustParseAddrPort(ln.Addr().String())}
}

// accept waits for a relay that completes the handshake.
func (l *tlsDispatcher) accept(t *testing.T) *remote {
	t.Helper()
	nc, err := l.ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	if err := nc.(*tls.Conn).HandshakeContext(t.Context()); err != nil {
		t.Fatal(err)
	}
	d := newRemote(t, l.addr, nc)
	t.Cleanup(d.close)
	return d
}

// startTLS runs a relay over real sockets, with short intervals.
func startTLS(t *testing.T, config *tls.Config, addrs ...netip.AddrPort) *rig {
	return start(t, func(_ *rig, c *Config) {
		c.Dispatchers = nil
		for _, a := range addrs {
			c.Dispatchers = append(c.Dispatchers, a.String())
		}
		c.Dial = dialTLS(config)
		c.ReconnectDelay, c.KeepaliveInterval, c.RepeatInterval = 50*time.Millisecond, 500*time.Millisecond, 500*time.Millisecond
	})
}

func TestLinksOverTLS(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	modern := listen(t, ca.config("dispatcher", relaylink.ALPN), "127.0.0.1:0")
	old := listen(t, ca.config("dispatcher"), "127.0.0.1:0")
	g := startTLS(t, ca.config("relay", relaylink.ALPN), modern.addr, old.addr)
	m, o := modern.accept(t), old.accept(t)
	m.greet("modern")
	m.offer("1", "m1")
	m.skipTo("1 203.0.113.9 50002")
	o.offer("1", "o1")
	o.skipTo("1 203.0.113.9 50002")
	m.command("list", "2")
	if line := m.skipTo("2 "); !strings.Contains(line, `"owner": "modern"`) || !strings.Contains(line, fmt.Sprintf(`"owner": "%v"`, old.addr)) {
		t.Errorf("got %s, want both owners", line)
	}

	// Both die mid-call and come back at the same addresses.
	for _, l := range []*tlsDispatcher{modern, old} {
		l.ln.Close()
	}
	m.close()
	o.close()
	g.calls.expire("m1")
	g.calls.expire("o1")
	modern = listen(t, ca.config("dispatcher", relaylink.ALPN), modern.addr.String())
	old = listen(t, ca.config("dispatcher"), old.addr.String())
	m = modern.accept(t)
	m.greet("modern")
	if doc := m.expired(); doc.CallID != "m1" || doc.RecordID == "" {
		t.Errorf("got report %+v, want m1", doc)
	}
	if doc := m.expired(); doc.CallID != "m1" {
		t.Errorf("got report of %s, want m1 repeated", doc.CallID)
	} else {
		m.send("ack " + doc.RecordID + "\r\n")
	}
	o = old.accept(t)
	if doc := o.expired(); doc.CallID != "o1" || doc.RecordID != "" {
		t.Errorf("got report %+v, want o1 in the plain form", doc)
	}
	o.skipTo("ping")
	for range 10 {
		o.send("pong\r\n") // also for the keep-alives between
	}
	waitFor(t, "all reports are acknowledged", func() bool { return g.relay.Stats().Waiting == 0 })
}

func waitFor(t *testing.T, what string, done func() bool) {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for !done() {
		if time.Now().After(deadline) {
			t.Fatalf("timed out waiting until %s", what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// TLS 1.3 tells a client that its certificate was refused only after its own
// handshake is over.
func TestCertificateProblems(t *testing.T) {
	ca, foreign := newAuthority(t), newAuthority(t)
	for _, c := range []struct {
		name              string
		relay, dispatcher *tls.Config
	}{
		{"relay's refused", foreign.config("relay", relaylink.ALPN), ca.config("dispatcher", relaylink.ALPN)},
		{"relay's refused by an old dispatcher", foreign.config("relay", relaylink.ALPN), ca.config("dispatcher")},
		{"dispatcher's refused", ca.config("relay", relaylink.ALPN), foreign.config("dispatcher", relaylink.ALPN)},
	} {
		t.Run(c.name, func(t *testing.T) {
			if strings.HasPrefix(c.name, "relay's") {
				c.relay.VerifyConnection = nil // only one side is to complain
			} else {
				c.dispatcher.VerifyConnection = nil
			}
			l := listen(t, c.dispatcher, "127.0.0.1:0")
			accepting := make(chan struct{})
			go func() {
				defer close(accepting)
				for {
					nc, err := l.ln.Accept()
					if err != nil {
						return
					}
					nc.(*tls.Conn).HandshakeContext(context.Background())
					nc.Close()
				}
			}()
			g := startTLS(t, c.relay, l.addr)
			waitFor(t, "the log names the problem", func() bool { return strings.Contains(g.log.String(), "certificate problem with dispatcher") })
			l.ln.Close()
			<-accepting
		})
	}
}
