package state

import (
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
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// authority makes certificates, and TLS configurations that demand one of its own.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	a := &authority{key: key}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "authority"}, IsCA: true, BasicConstraintsValid: true,
		NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageCertSign}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	a.cert, err = x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func (a *authority) config(t *testing.T) *tls.Config {
	t.Helper()
	template := &x509.Certificate{SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "dispatcher"}, NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, a.key.Public(), a.key)
	if err != nil {
		t.Fatal(err)
	}
	pair := &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: a.key}
	pool := x509.NewCertPool()
	pool.AddCert(a.cert)
	return &tls.Config{
		MinVersion: tls.VersionTLS12, InsecureSkipVerify: true, ClientAuth: tls.RequireAnyClientCert, // verified below
		GetCertificate:       func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return pair, nil },
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return pair, nil },
		VerifyConnection: func(cs tls.ConnectionState) error {
			_, err := cs.PeerCertificates[0].Verify(x509.VerifyOptions{Roots: pool, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}})
			return err
		},
	}
}

var hosts atomic.Uint32

// addresses are some that nobody else listens on.
func addresses(t *testing.T, n int) (list []string) {
	t.Helper()
	for range n {
		h := hosts.Add(1)
		list = append(list, fmt.Sprintf("127.%d.%d.%d:25062", 128+os.Getpid()%64, os.Getpid()/64%256, 1+h%250))
	}
	return list
}

// trio is three dispatchers that can be stopped and started.
type trio struct {
	t       *testing.T
	ca      *authority
	configs [3]ClusterConfig
	members [3]*Cluster
	maps    [3]*Map
}

func newTrio(t *testing.T, replicas int) *trio {
	t.Helper()
	g := &trio{t: t, ca: newAuthority(t)}
	at := addresses(t, 3)
	for i := range g.configs {
		g.configs[i] = ClusterConfig{Name: fmt.Sprint("sip", i, ".example.com"), Replicas: replicas, MaxDisk: 1 << 20, Dir: t.TempDir(),
			Listen: at[i], Peers: at, TLS: g.ca.config(t)}
		g.join(i)
	}
	t.Cleanup(func() {
		for i := range g.members {
			g.leave(i)
		}
	})
	return g
}

func (g *trio) join(i int) {
	g.t.Helper()
	c, err := Join(g.configs[i], slog.New(slog.NewTextHandler(g.t.Output(), nil)))
	if err != nil {
		g.t.Fatal(err)
	}
	g.members[i], g.maps[i] = c, c.Map("sessions")
}

func (g *trio) leave(i int) {
	if g.members[i] != nil {
		g.members[i].Close()
		g.members[i] = nil
	}
}

func (g *trio) get(i int, key string) string {
	ctx, cancel := context.WithTimeout(g.t.Context(), time.Second)
	defer cancel()
	value, err := g.maps[i].Get(ctx, key)
	if err != nil {
		return "?"
	}
	return string(value)
}

// What one dispatcher writes all read, also while one of three is away, and that one when
// it is back.
func TestMap(t *testing.T) {
	g := newTrio(t, 1)
	if got := g.get(0, "early"); got != "?" {
		t.Errorf("got %q of a map that cannot be there yet", got)
	}
	long := strings.Repeat("x", longestKey)
	g.maps[0].Put("call@example.com ü", []byte("relay1"))
	g.maps[0].Put(long, []byte("r"))
	g.maps[0].Put(long+"x", []byte("too long for a hint"))
	g.maps[0].Put("", []byte("no key"))
	for i := range g.maps {
		eventually(t, "everybody reads it", func() bool { return g.get(i, "call@example.com ü") == "relay1" && g.get(i, long) == "r" })
	}
	g.maps[1].Put("call@example.com ü", []byte("relay2"))
	eventually(t, "the newer value is read", func() bool { return g.get(2, "call@example.com ü") == "relay2" })
	var s Status
	eventually(t, "everybody is seen", func() bool {
		s = g.members[2].Status(t.Context())
		return len(s.Servers) == 3 && s.Leader != "" && s.Size == 3 && s.Servers[2].Self && s.Servers[0].Name == "sip0.example.com"
	})
	if m := s.Maps[0]; !m.Open || m.Entries != 2 || m.Error != "" {
		t.Errorf("map %+v", m)
	}

	leader := 0
	for i, c := range g.configs {
		if c.Name == s.Leader {
			leader = i
		}
	}
	g.leave(leader)
	one, other := (leader+1)%3, (leader+2)%3
	began := time.Now()
	g.maps[one].Put("during", []byte("relay3"))
	if took := time.Since(began); took > 100*time.Millisecond {
		t.Errorf("a write took %v: it waits for nobody", took)
	}
	eventually(t, "it is written without the leader", func() bool { return g.get(other, "during") == "relay3" })
	g.maps[one].Delete("call@example.com ü")
	eventually(t, "it is deleted", func() bool { return g.get(other, "call@example.com ü") == "?" })
	g.join(leader)
	eventually(t, "who was away has it too", func() bool { return g.get(leader, "during") == "relay3" && g.get(leader, "call@example.com ü") == "?" })
	eventually(t, "nothing waits", func() bool { return g.members[one].Status(t.Context()).Maps[0].Queued == 0 })
}

// Questions are answered without a majority, by who knows an answer.
func TestQuestions(t *testing.T) {
	g := newTrio(t, 1)
	ask := func(i int, question string) (string, bool) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		answer, heard := g.members[i].Questions("topic").Ask(ctx, []byte(question))
		return string(answer), heard
	}
	serve := func(i int, knows string) {
		if err := g.members[i].Questions("topic").Answer(func(_ context.Context, question []byte) []byte {
			if string(question) != knows {
				return nil
			}
			return []byte(fmt.Sprint("by ", i))
		}); err != nil {
			t.Fatal(err)
		}
	}
	if answer, heard := ask(0, "x"); answer != "" || heard {
		t.Errorf("nobody answered %q", answer)
	}
	for i := range g.members {
		serve(i, fmt.Sprint("what ", i, " knows"))
	}
	eventually(t, "the one who knows answers", func() bool { answer, _ := ask(0, "what 2 knows"); return answer == "by 2" })
	eventually(t, "all are connected", func() bool { answer, _ := ask(0, "what 1 knows"); return answer == "by 1" })
	if answer, heard := ask(0, "what 0 knows"); answer != "" || !heard {
		t.Errorf("one asks itself: %q, %v", answer, heard)
	}
	g.leave(2)
	if answer, heard := ask(0, "what 1 knows"); answer != "by 1" || !heard {
		t.Errorf("without the third: %q", answer)
	}
	if answer, heard := ask(0, "what 2 knows"); answer != "" || !heard {
		t.Errorf("without the one who knows: %q", answer)
	}
}

// A server without a certificate of the authority stays outside, and what it writes too.
func TestStranger(t *testing.T) {
	g := newTrio(t, 1)
	eventually(t, "there is a leader", func() bool { return g.members[0].Status(t.Context()).Leader != "" })
	stranger := g.configs[0]
	stranger.Name, stranger.Dir, stranger.Listen = "stranger", t.TempDir(), addresses(t, 1)[0]
	stranger.TLS = newAuthority(t).config(t)
	c, err := Join(stranger, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	m := c.Map("sessions")
	m.Put("call", []byte("evil"))
	time.Sleep(3 * time.Second) // several attempts to connect: what must not happen has no other sign
	if s := c.Status(t.Context()); len(s.Servers) != 1 || s.Leader != "" || s.Maps[0].Open {
		t.Errorf("the stranger is inside: %+v", s)
	}
	if s := g.members[0].Status(t.Context()); len(s.Servers) != 3 {
		t.Errorf("the cluster has %+v", s.Servers)
	}
}

// What cannot be written is bounded.
func TestQueueIsBounded(t *testing.T) {
	at := addresses(t, 3)
	c, err := Join(ClusterConfig{Name: "alone", Dir: t.TempDir(), Listen: at[0], Peers: at, TLS: newAuthority(t).config(t)}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	m := c.Map("sessions")
	for i := range mapQueue + 10 {
		m.Put(fmt.Sprint(i), []byte("r"))
	}
	m.Put("0", []byte("newer")) // has its place
	if s := c.Status(t.Context()).Maps[0]; s.Queued != mapQueue || s.Dropped != 10 {
		t.Errorf("%+v", s)
	}
}

func TestAddressInUse(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, err = Join(ClusterConfig{Name: "x", Dir: t.TempDir(), Listen: l.Addr().String(), TLS: newAuthority(t).config(t)}, slog.New(slog.DiscardHandler))
	if err == nil || !strings.Contains(err.Error(), "listen for other dispatchers") {
		t.Errorf("error %v", err)
	}
}

// A map against a slow, obvious one: whatever order writers take keys in, the last value wins.
func TestLastValueWins(t *testing.T) {
	m := &Map{waiting: map[string][]byte{}, writing: map[string]struct{}{}, wake: make(chan struct{}, 1)}
	want, got := map[string]string{}, map[string]string{}
	type write struct {
		key   string
		value []byte
	}
	var open []write
	finish := func(i int, err error) {
		w := open[i]
		open = append(open[:i], open[i+1:]...)
		if err == nil {
			got[w.key] = string(w.value)
		}
		m.done(w.key, w.value, err)
	}
	for i := range 20000 {
		key := fmt.Sprint("k", i*7919%13)
		switch i * 104729 % 5 {
		case 0, 1:
			value := fmt.Sprint("v", i)
			if i%11 == 0 {
				m.Delete(key)
				value = ""
			} else {
				m.Put(key, []byte(value))
			}
			encoded, _ := encode(key)
			want[encoded] = value
		case 2, 3:
			if k, v, ok := m.take(); ok {
				for _, w := range open {
					if w.key == k {
						t.Fatalf("%s is written twice at once", k)
					}
				}
				open = append(open, write{k, v})
			}
		default:
			if len(open) > 0 {
				var err error
				if i%3 == 0 {
					err = ErrNotThere
				}
				finish(i%len(open), err)
			}
		}
	}
	for {
		if k, v, ok := m.take(); ok {
			open = append(open, write{k, v})
		}
		if len(open) == 0 {
			break
		}
		finish(0, nil)
	}
	for key, value := range want {
		if got[key] != value {
			t.Errorf("%s is %q, want %q", key, got[key], value)
		}
	}
}

func FuzzSafe(f *testing.F) {
	for _, s := range []string{"sip1.example.com", "a b", "=41", "ü*>", ""} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, name string) {
		s := safe(name)
		if strings.ContainsAny(s, ".*> /\\\t\r\n_") || len(s) > 3*len(name) {
			t.Errorf("%q became %q", name, s)
		}
		if back := named(s); back != name {
			t.Errorf("%q came back as %q", name, back)
		}
	})
}
