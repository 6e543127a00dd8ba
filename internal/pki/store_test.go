package pki

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// open opens one side of a folder with a clock and a log.
func open(t testing.TB, dir, name string, c *clock, log *logBuffer) *Store {
	t.Helper()
	s, err := Open(Config{Dir: dir, Name: name, Now: c.now, Log: log.logger()})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// handshake connects two configurations. The errors are the handshakes' own.
func handshake(t testing.TB, server, client *tls.Config) (s, c *tls.Conn, serverErr, clientErr error) {
	t.Helper()
	a, b := net.Pipe()
	s, c = tls.Server(a, server), tls.Client(b, client)
	t.Cleanup(func() { a.Close(); b.Close() })
	done := make(chan error)
	go func() {
		err := s.Handshake()
		if err != nil {
			a.Close()
		}
		done <- err
	}()
	clientErr = c.Handshake()
	if clientErr != nil {
		b.Close()
	} else {
		// In TLS 1.3 a client learns of its refusal only when it reads.
		go func() {
			var one [1]byte
			c.Read(one[:])
		}()
	}
	return s, c, <-done, clientErr
}

func TestHandshake(t *testing.T) {
	dir := testFolder(t)
	c, log := &clock{t: testTime}, &logBuffer{}
	dispatcher, relay := open(t, dir, Dispatcher, c, log), open(t, dir, Relay, c, log)

	s, cl, serverErr, clientErr := handshake(t,
		dispatcher.ServerConfig(passport(t, "CN:*relay"), "new-link", "newer"),
		relay.ClientConfig(passport(t, `O:Phones\, Inc, CN:MediaProxy d*, EMAIL:ops@example.com`), "new-link"))
	if serverErr != nil || clientErr != nil {
		t.Fatalf("server %v, client %v", serverErr, clientErr)
	}
	state := s.ConnectionState()
	if state.Version != tls.VersionTLS13 || state.NegotiatedProtocol != "new-link" {
		t.Errorf("version %s, protocol %q", tls.VersionName(state.Version), state.NegotiatedProtocol)
	}
	if got := cl.ConnectionState().PeerCertificates[0].Subject.CommonName; got != "MediaProxy dispatcher" {
		t.Errorf("server showed %q", got)
	}
	if got := log.take(); got != "" {
		t.Errorf("a sound folder logs %s", got)
	}
}

func TestHandshakeWithoutProtocolName(t *testing.T) {
	dir := testFolder(t)
	c, log := &clock{t: testTime}, &logBuffer{}
	dispatcher, relay := open(t, dir, Dispatcher, c, log), open(t, dir, Relay, c, log)
	plain := relay.ClientConfig(Passport{})
	plain.MaxVersion = tls.VersionTLS12
	s, _, serverErr, clientErr := handshake(t, dispatcher.ServerConfig(Passport{}, "new-link"), plain)
	if serverErr != nil || clientErr != nil {
		t.Fatalf("server %v, client %v", serverErr, clientErr)
	}
	if state := s.ConnectionState(); state.Version != tls.VersionTLS12 || state.NegotiatedProtocol != "" {
		t.Errorf("version %s, protocol %q", tls.VersionName(state.Version), state.NegotiatedProtocol)
	}
}

// Of two equals either may open the connection, with the demands of both.
func TestHandshakeOfPeers(t *testing.T) {
	dir := testFolder(t)
	c, log := &clock{t: testTime}, &logBuffer{}
	dispatcher, relay := open(t, dir, Dispatcher, c, log), open(t, dir, Relay, c, log)
	ours := passport(t, "CN:MediaProxy dispatcher")
	one, other := dispatcher.PeerConfig(ours), open(t, dir, Dispatcher, c, log).PeerConfig(ours)
	for range 2 {
		if _, _, serverErr, clientErr := handshake(t, one, other); serverErr != nil || clientErr != nil {
			t.Errorf("server %v, client %v", serverErr, clientErr)
		}
		one, other = other, one
	}
	stranger := relay.PeerConfig(Passport{})
	if _, _, serverErr, _ := handshake(t, one, stranger); !errors.Is(serverErr, ErrPassport) {
		t.Errorf("a relay that connects: %v, want %v", serverErr, ErrPassport)
	}
	if _, _, _, clientErr := handshake(t, stranger, one); !errors.Is(clientErr, ErrPassport) {
		t.Errorf("a relay that is connected to: %v, want %v", clientErr, ErrPassport)
	}
	nobody := stranger.Clone()
	nobody.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &tls.Certificate{}, nil }
	if _, _, serverErr, _ := handshake(t, one, nobody); serverErr == nil {
		t.Error("a peer without a certificate was let in")
	}
}

func TestHandshakeRefused(t *testing.T) {
	dir, other := testFolder(t), testFolder(t)
	if _, err := Issue(dir, "gone", testOptions()); err != nil {
		t.Fatal(err)
	}
	c, log := &clock{t: testTime}, &logBuffer{}
	gone := open(t, dir, "gone", c, log)
	revoke(t, dir, "gone")
	late := &clock{t: testTime.Add(DefaultLifetime + time.Hour)}
	dispatcher, relay := open(t, dir, Dispatcher, c, log), open(t, dir, Relay, c, log)
	expired := open(t, dir, Relay, c, log)
	any := Passport{}

	noCertificate := relay.ClientConfig(any)
	noCertificate.GetClientCertificate = nil
	old := relay.ClientConfig(any)
	old.MinVersion, old.MaxVersion = tls.VersionTLS10, tls.VersionTLS11
	lateServer := open(t, dir, Dispatcher, c, log).ServerConfig(any)
	lateServer.VerifyConnection = func(cs tls.ConnectionState) error {
		return dispatcher.trust.Load().verify(cs.PeerCertificates, late.now())
	}

	for name, tc := range map[string]struct {
		server, client *tls.Config
		want           error // of the side that refuses; nil: any
		byClient       bool
	}{
		"client of another authority": {server: dispatcher.ServerConfig(any), client: open(t, other, Relay, c, log).ClientConfig(any), want: ErrUntrusted, byClient: true},
		"client that trusts anybody": {server: dispatcher.ServerConfig(any), client: func() *tls.Config {
			cfg := open(t, other, Relay, c, log).ClientConfig(any)
			cfg.VerifyConnection = nil
			return cfg
		}(), want: ErrUntrusted},
		"revoked client":         {server: dispatcher.ServerConfig(any), client: gone.ClientConfig(any), want: ErrRevoked},
		"revoked server":         {server: gone.ServerConfig(any), client: relay.ClientConfig(any), want: ErrRevoked, byClient: true},
		"expired client":         {server: lateServer, client: expired.ClientConfig(any), want: ErrDates},
		"passport of the server": {server: dispatcher.ServerConfig(passport(t, "CN:other*")), client: relay.ClientConfig(any), want: ErrPassport},
		"passport of the client": {server: dispatcher.ServerConfig(any), client: relay.ClientConfig(passport(t, "C:*, ST:*")), want: ErrPassport, byClient: true},
		"no certificate":         {server: dispatcher.ServerConfig(any), client: noCertificate},
		"TLS 1.1":                {server: dispatcher.ServerConfig(any), client: old},
	} {
		t.Run(name, func(t *testing.T) {
			_, _, serverErr, clientErr := handshake(t, tc.server, tc.client)
			got := serverErr
			if tc.byClient {
				got = clientErr
			}
			if got == nil || tc.want != nil && !errors.Is(got, tc.want) {
				t.Errorf("server %v, client %v, want %v", serverErr, clientErr, tc.want)
			}
		})
	}
}

func TestRevokedWhileConnected(t *testing.T) {
	dir := testFolder(t)
	for _, name := range []string{"a", "b"} {
		if _, err := Issue(dir, name, testOptions()); err != nil {
			t.Fatal(err)
		}
	}
	c, log := &clock{t: testTime}, &logBuffer{}
	dispatcher := open(t, dir, Dispatcher, c, log)
	connect := func(name string) (server, client *tls.Conn) {
		server, client, serverErr, clientErr := handshake(t, dispatcher.ServerConfig(Passport{}), open(t, dir, name, c, log).ClientConfig(Passport{}))
		if serverErr != nil || clientErr != nil {
			t.Fatalf("server %v, client %v", serverErr, clientErr)
		}
		return server, client
	}
	sa, _ := connect("a")
	sb, _ := connect("b")
	sr, _ := connect(Relay)
	dispatcher.Track(sa, Passport{})
	untrackB := dispatcher.Track(sb, Passport{})
	dispatcher.Track(sr, passport(t, "CN:*relay"))
	untrackB()

	dispatcher.Verify()
	if !alive(sa) || !alive(sb) || !alive(sr) {
		t.Fatal("a sound connection was closed")
	}
	if got := log.take(); got != "" {
		t.Errorf("nothing happened, but: %s", got)
	}
	revoke(t, dir, "a")
	revoke(t, dir, "b")
	dispatcher.Verify()
	if alive(sa) {
		t.Error("the revoked peer is still connected")
	}
	if !alive(sb) {
		t.Error("a connection that is no longer tracked was closed")
	}
	if !alive(sr) {
		t.Error("a bystander was closed")
	}
	wantContains(t, "log", log.take(), "certificates reloaded", "connection closed", "certificate revoked", `CN=a`)
	if dispatcher.Verify(); log.take() != "" {
		t.Error("the same event is logged twice")
	}
}

// alive asks whether a connection over a net.Pipe has not been closed here.
func alive(conn *tls.Conn) bool {
	return conn.NetConn().SetDeadline(time.Time{}) == nil
}

func TestTrackedPassportAndExpiry(t *testing.T) {
	dir := testFolder(t)
	c, log := &clock{t: testTime}, &logBuffer{}
	dispatcher := open(t, dir, Dispatcher, c, log)
	connect := func() *tls.Conn {
		s, _, serverErr, clientErr := handshake(t, dispatcher.ServerConfig(Passport{}), open(t, dir, Relay, c, log).ClientConfig(Passport{}))
		if serverErr != nil || clientErr != nil {
			t.Fatalf("server %v, client %v", serverErr, clientErr)
		}
		return s
	}
	stays, goes := connect(), connect()
	dispatcher.Track(stays, Passport{})
	dispatcher.Track(goes, passport(t, "CN:somebody else"))
	dispatcher.Verify()
	if !alive(stays) || alive(goes) {
		t.Errorf("alive %v, %v, want true, false", alive(stays), alive(goes))
	}
	wantContains(t, "log", log.take(), "passport does not match")
	c.advance(DefaultLifetime + time.Hour)
	dispatcher.Verify()
	if alive(stays) {
		t.Error("the peer's certificate has expired, but it is connected")
	}
	wantContains(t, "log", log.take(), "expired on", "connection closed")
}

func TestWatch(t *testing.T) {
	dir := testFolder(t)
	synctest.Test(t, func(t *testing.T) {
		log := &logBuffer{}
		c := &clock{t: testTime}
		s, err := Open(Config{Dir: dir, Name: Dispatcher, VerifyInterval: time.Minute, Now: c.now, Log: log.logger()})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { s.Watch(ctx); close(done) }()
		revoke(t, dir, Relay)
		time.Sleep(59 * time.Second) // of the bubble's clock
		synctest.Wait()
		if got := log.take(); got != "" {
			t.Errorf("before the interval: %s", got)
		}
		time.Sleep(time.Second)
		synctest.Wait()
		wantContains(t, "log", log.take(), "certificates reloaded")
		cancel()
		<-done
	})
}

func TestReload(t *testing.T) {
	dir := testFolder(t)
	c, log := &clock{t: testTime}, &logBuffer{}
	dispatcher, relay := open(t, dir, Dispatcher, c, log), open(t, dir, Relay, c, log)
	server := dispatcher.ServerConfig(Passport{})
	before := shownBy(t, server, relay)

	if _, err := Renew(dir, testOptions()); err != nil {
		t.Fatal(err)
	}
	dispatcher.Verify()
	after := shownBy(t, server, relay) // the configuration given out before
	if slices.Equal(before, after) {
		t.Error("the renewed certificate is not shown")
	}
	wantContains(t, "log", log.take(), "certificates reloaded")
}

func TestBrokenReloadKeepsTheOld(t *testing.T) {
	for name, tc := range map[string]struct {
		spoil func(t *testing.T, dir string)
		want  []string
	}{
		"truncated list": {func(t *testing.T, dir string) {
			write(t, dir, CRLFile, read(t, dir, CRLFile)[:60])
		}, []string{CRLFile, "cut off"}},
		"key gone": {func(t *testing.T, dir string) {
			os.Remove(filepath.Join(dir, KeyFile(Dispatcher)))
		}, []string{KeyFile(Dispatcher), "no such file"}},
		"only the key copied": {func(t *testing.T, dir string) {
			copyFile(t, testFolder(t), KeyFile(Dispatcher), dir, KeyFile(Dispatcher))
		}, []string{KeyFile(Dispatcher), "key of another certificate"}},
		"pair of another authority": {func(t *testing.T, dir string) {
			other := testFolder(t)
			copyFile(t, other, KeyFile(Dispatcher), dir, KeyFile(Dispatcher))
			copyFile(t, other, CertFile(Dispatcher), dir, CertFile(Dispatcher))
		}, []string{CertFile(Dispatcher), "not issued by the authority"}},
		"authority and list of another set": {func(t *testing.T, dir string) {
			other := testFolder(t)
			copyFile(t, other, CAFile, dir, CAFile)
			copyFile(t, other, CRLFile, dir, CRLFile)
		}, []string{CAFile, "does not fit the certificate in use"}},
	} {
		t.Run(name, func(t *testing.T) {
			dir := testFolder(t)
			c, log := &clock{t: testTime}, &logBuffer{}
			dispatcher, relay := open(t, dir, Dispatcher, c, log), open(t, dir, Relay, c, log)
			server := dispatcher.ServerConfig(Passport{})
			before := shownBy(t, server, relay)
			tc.spoil(t, dir)
			dispatcher.Verify()
			wantContains(t, "log", log.take(), tc.want...)
			if after := shownBy(t, server, relay); !slices.Equal(before, after) {
				t.Error("the old certificate is no longer in use")
			}
			if dispatcher.Verify(); log.take() != "" {
				t.Error("the same trouble is logged at every pass")
			}
			c.advance(25 * time.Hour)
			dispatcher.Verify()
			wantContains(t, "log a day later", log.take(), tc.want...)
		})
	}
}

// A broken pair of our own must not hold up the list of revoked certificates.
func TestNewListTakesEffectBesideBrokenPair(t *testing.T) {
	dir := testFolder(t)
	c, log := &clock{t: testTime}, &logBuffer{}
	dispatcher, relay := open(t, dir, Dispatcher, c, log), open(t, dir, Relay, c, log)
	revoke(t, dir, Relay)
	write(t, dir, KeyFile(Dispatcher), "rubbish")
	dispatcher.Verify()
	_, _, serverErr, _ := handshake(t, dispatcher.ServerConfig(Passport{}), relay.ClientConfig(Passport{}))
	if !errors.Is(serverErr, ErrRevoked) {
		t.Errorf("got %v, want a refusal of the revoked relay", serverErr)
	}
}

func TestWarnings(t *testing.T) {
	dir := testFolder(t)
	c, log := &clock{t: testTime.Add(DefaultLifetime - 20*24*time.Hour)}, &logBuffer{}
	if err := os.Chmod(filepath.Join(dir, KeyFile(Relay)), 0o644); err != nil {
		t.Fatal(err)
	}
	relay := open(t, dir, Relay, c, log)
	wantContains(t, "at start", log.take(), "relay.crt: expires on 2035-05-31", "crl.pem: expires on", "certs renew", "chmod 600")
	if relay.Verify(); log.take() != "" {
		t.Error("the warnings are repeated at once")
	}
	c.advance(21 * 24 * time.Hour)
	relay.Verify()
	wantContains(t, "later", log.take(), "relay.crt: EXPIRED", "crl.pem: EXPIRED", "still applied")
}

// shownBy connects and returns the certificate that the server showed.
func shownBy(t *testing.T, server *tls.Config, client *Store) []byte {
	t.Helper()
	_, conn, serverErr, clientErr := handshake(t, server, client.ClientConfig(Passport{}))
	if serverErr != nil || clientErr != nil {
		t.Fatalf("server %v, client %v", serverErr, clientErr)
	}
	return conn.ConnectionState().PeerCertificates[0].Raw
}
