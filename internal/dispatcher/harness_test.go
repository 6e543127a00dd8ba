package dispatcher

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"log/slog"
	"math/big"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"example.org/mediaproxy/internal/report"
	"example.org/mediaproxy/internal/wire/control"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience is how long tests wait for something that must happen.
const patience = 5 * time.Second

// eventually waits for a condition.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !ok(); {
		if time.Now().After(end) {
			t.Fatalf("waited %v in vain: %s", patience, what)
		}
		time.Sleep(time.Millisecond)
	}
}

// certificates are made once: both sides trust one CA.
var certificates = sync.OnceValues(func() (tls.Certificate, *x509.CertPool) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), DNSNames: []string{"test"},
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		panic(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		panic(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(cert)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: cert}, pool
})

func serverTLS() *tls.Config {
	cert, pool := certificates()
	return &tls.Config{Certificates: []tls.Certificate{cert}, ClientCAs: pool, ClientAuth: tls.RequireAndVerifyClientCert, MinVersion: tls.VersionTLS12}
}

func clientTLS(alpn ...string) *tls.Config {
	cert, pool := certificates()
	return &tls.Config{Certificates: []tls.Certificate{cert}, RootCAs: pool, ServerName: "test", NextProtos: alpn, MinVersion: tls.VersionTLS12}
}

// clock is a wall clock that tests can set forward.
type clock struct {
	mu    sync.Mutex
	ahead time.Duration
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return time.Now().Add(c.ahead)
}

func (c *clock) Advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ahead += d
}

// under is a running dispatcher under test.
type under struct {
	*Dispatcher
	t     testing.TB
	clock *clock
	log   *bytes.Buffer // guarded by mu
	stop  func()

	mu       sync.Mutex
	finished []report.Session
	failing  error // what the Finished hook returns
}

func (u *under) Write(p []byte) (int, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.log.Write(p)
}

func (u *under) logged(text string) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return strings.Contains(u.log.String(), text)
}

func (u *under) records() []report.Session {
	u.mu.Lock()
	defer u.mu.Unlock()
	return append([]report.Session(nil), u.finished...)
}

func (u *under) failFinished(err error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.failing = err
}

// start runs a dispatcher; edit may change its configuration.
func start(t testing.TB, edit func(*Config)) *under {
	t.Helper()
	dir, err := os.MkdirTemp("", "mpd")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	u := &under{t: t, clock: &clock{}, log: &bytes.Buffer{}}
	cfg := Config{
		Name: "d1", Version: "4.1.2", SocketPath: filepath.Join(dir, "dispatcher.sock"),
		RelayListen: netip.MustParseAddrPort("127.0.0.1:0"), RelayTLS: serverTLS(),
		ManagementListen: netip.MustParseAddrPort("127.0.0.1:0"),
		SetupTimeout:     2 * time.Second, // the machine may be busy with other tests
		Now:              u.clock.Now,
		Finished: func(s report.Session) error {
			u.mu.Lock()
			defer u.mu.Unlock()
			if u.failing != nil {
				return u.failing
			}
			u.finished = append(u.finished, s)
			return nil
		},
	}
	if edit != nil {
		edit(&cfg)
	}
	if u.Dispatcher, err = New(cfg, slog.New(slog.NewTextHandler(u, &slog.HandlerOptions{Level: slog.LevelDebug}))); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- u.Run(ctx) }()
	u.stop = sync.OnceFunc(func() {
		cancel()
		select {
		case err := <-ended:
			if err != nil {
				t.Errorf("Run: %v", err)
			}
		case <-time.After(2 * patience):
			t.Error("dispatcher does not stop")
		}
	})
	t.Cleanup(func() {
		u.stop()
		if t.Failed() {
			u.mu.Lock()
			defer u.mu.Unlock()
			t.Logf("log of the dispatcher:\n%s", u.log)
		}
	})
	select {
	case <-u.Ready():
	case err := <-ended:
		t.Fatalf("Run: %v", err)
	}
	return u
}

// module is one process of the SIP proxy.
type module struct {
	t    testing.TB
	conn net.Conn
	in   *bufio.Reader
}

func (u *under) module() *module {
	u.t.Helper()
	conn, err := net.Dial("unix", u.SocketPath())
	if err != nil {
		u.t.Fatal(err)
	}
	u.t.Cleanup(func() { conn.Close() })
	return &module{u.t, conn, bufio.NewReader(conn)}
}

func (m *module) send(request string) {
	m.t.Helper()
	if _, err := m.conn.Write([]byte(request)); err != nil {
		m.t.Fatal(err)
	}
}

func (m *module) receive() string {
	m.t.Helper()
	m.conn.SetReadDeadline(time.Now().Add(patience))
	line, err := m.in.ReadString('\n')
	if err != nil {
		m.t.Fatalf("read a reply: %q, %v", line, err)
	}
	return strings.TrimSuffix(line, "\r\n")
}

func (m *module) ask(request string) string {
	m.t.Helper()
	m.send(request)
	return m.receive()
}

// message is one update, made from what matters in a test.
type message struct {
	reply              bool
	call, from, to     string
	dialog, mediaRelay string
	noMedia            bool
}

func (m message) String() string {
	u := control.Update{Kind: control.KindRequest, CallID: m.call, FromTag: m.from, ToTag: m.to, FromURI: "alice@example.com",
		ToURI: "bob@example.com", UserAgent: "Phone/1.0", CSeq: 1, DialogID: m.dialog, MediaRelay: m.mediaRelay, HasMedia: !m.noMedia,
		Media: []control.Media{{Type: "audio", Addr: netip.MustParseAddr("192.0.2.1"), Port: 4000, Direction: "sendrecv"}}}
	if m.reply {
		u.Kind = control.KindReply
	}
	return string(control.Append(nil, control.Request{Command: control.CommandUpdate, Headers: u.Headers()}))
}

func offer(call string) string { return message{call: call, from: "f"}.String() }

func remove(call, from, to string) string {
	return string(control.Append(nil, control.Request{Command: control.CommandRemove,
		Headers: control.Remove{CallID: call, FromTag: from, ToTag: to}.Headers()}))
}

// manager is one operator.
func (u *under) manager() *module {
	u.t.Helper()
	conn, err := net.Dial("tcp", u.ManagementAddr().String())
	if err != nil {
		u.t.Fatal(err)
	}
	u.t.Cleanup(func() { conn.Close() })
	return &module{u.t, conn, bufio.NewReader(conn)}
}

func sessionDoc(call, from string) report.Session {
	to, started := "t", 1700000000.5
	return report.Session{CallID: call, FromTag: from, FromURI: "alice@example.com", ToTag: &to, ToURI: "bob@example.com", StartTime: &started,
		Duration: 61, CallerUA: "UA", CalleeUA: "UB", Streams: []report.Stream{{MediaType: "audio", Status: "closed", CallerCodec: "G711u",
			CalleeCodec: "G711a", EndTime: 61, CallerBytes: 1000, CalleeBytes: 2000, CallerPackets: 10, CalleePackets: 20,
			CallerLocal: "203.0.113.9:50000", CalleeLocal: "203.0.113.9:50002", CallerRemote: "198.51.100.7:9000", CalleeRemote: "Unknown"}}}
}

func docText(doc any) string {
	b, err := report.Append(nil, doc)
	if err != nil {
		panic(fmt.Sprintf("document: %v", err))
	}
	return string(b)
}

// pass lets time pass and has done what is due then.
func (u *under) pass(d time.Duration) {
	u.clock.Advance(d)
	u.maintainSafely()
}
