package state

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log/slog"
	"net"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
)

// elsewhere runs a server that is no part of any dispatcher.
func elsewhere(t *testing.T, ca *authority, dir string, port int) *server.Server {
	t.Helper()
	identity := ca.config(t)
	identity.ClientAuth, identity.VerifyConnection = tls.NoClientCert, nil
	s, err := server.NewServer(&server.Options{ServerName: "elsewhere", Host: "127.0.0.1", Port: port, NoSigs: true, JetStream: true, StoreDir: dir,
		TLSConfig: identity, TLSTimeout: 5})
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	if !s.ReadyForConnections(10 * time.Second) {
		t.Fatal("the server does not start")
	}
	t.Cleanup(func() { s.Shutdown(); s.WaitForShutdown() })
	return s
}

func (a *authority) trust() *tls.Config {
	pool := x509.NewCertPool()
	pool.AddCert(a.cert)
	return &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: pool}
}

// Dispatchers share a map, and ask each other, over a cluster that runs elsewhere; it may be
// away at the start, and later.
func TestClusterElsewhere(t *testing.T) {
	ca, dir := newAuthority(t), t.TempDir()
	s := elsewhere(t, ca, dir, server.RANDOM_PORT)
	port := s.Addr().(*net.TCPAddr).Port
	url := fmt.Sprint("tls://127.0.0.1:", port)
	var members [2]*Cluster
	var maps [2]*Map
	for i := range members {
		c, err := Join(ClusterConfig{Name: fmt.Sprint("d", i), Replicas: 1, URLs: []string{url}, TLS: ca.trust()}, slog.New(slog.NewTextHandler(t.Output(), nil)))
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		members[i], maps[i] = c, c.Map("sessions")
		if err := c.Questions("topic").Answer(func(context.Context, []byte) []byte { return []byte(fmt.Sprint("by ", i)) }); err != nil {
			t.Fatal(err)
		}
	}
	get := func(i int, key string) string {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		value, _ := maps[i].Get(ctx, key)
		return string(value)
	}
	maps[0].Put("c", []byte("r1"))
	eventually(t, "the other reads it", func() bool { return get(1, "c") == "r1" })
	if answer, heard := members[0].Questions("topic").Ask(t.Context(), []byte("?")); string(answer) != "by 1" || !heard {
		t.Errorf("answer %q", answer)
	}
	stranger, err := Join(ClusterConfig{Name: "d2", Replicas: 1, URLs: []string{url}, TLS: newAuthority(t).trust()}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer stranger.Close()
	stranger.Map("sessions").Put("c", []byte("evil"))

	s.Shutdown()
	s.WaitForShutdown()
	maps[1].Put("later", []byte("r2"))
	if status := members[1].Status(t.Context()); status.Maps[0].Queued == 0 {
		t.Errorf("without a server: %+v", status)
	}
	elsewhere(t, ca, dir, port)
	eventually(t, "it goes on", func() bool { return get(0, "later") == "r2" })
	if got := get(0, "c"); got != "r1" {
		t.Errorf("got %q", got)
	}
	if stranger.led() {
		t.Error("a server of an unknown authority was believed")
	}
}
