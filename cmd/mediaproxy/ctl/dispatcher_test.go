package ctl

import (
	"context"
	"log/slog"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"example.org/mediaproxy/internal/dispatcher"
	"example.org/mediaproxy/internal/pki"
	"example.org/mediaproxy/internal/wire/manage"
)

// startDispatcher runs a real dispatcher, to which no relay is connected.
func startDispatcher(t *testing.T, format manage.Format) (runtimeDir, certs, server string) {
	t.Helper()
	runtimeDir, certs = t.TempDir(), t.TempDir()
	if _, err := pki.Create(certs, pki.Options{}); err != nil {
		t.Fatal(err)
	}
	store, err := pki.Open(pki.Config{Dir: certs, Name: pki.Dispatcher})
	if err != nil {
		t.Fatal(err)
	}
	loopback := netip.MustParseAddrPort("127.0.0.1:0")
	d, err := dispatcher.New(dispatcher.Config{
		Version:    "9.9.9",
		SocketPath: filepath.Join(runtimeDir, "dispatcher.sock"), ManagementSocket: filepath.Join(runtimeDir, SocketName),
		RelayListen: loopback, RelayTLS: store.ServerConfig(pki.Passport{}),
		ManagementListen: loopback, ManagementTLS: store.ServerConfig(pki.Passport{}),
		ManagementFormat: format,
	}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- d.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("dispatcher: %v", err)
		}
	})
	select {
	case <-d.Ready():
	case err := <-ended:
		ended <- nil
		t.Fatal(err)
	case <-time.After(10 * time.Second):
		t.Fatal("the dispatcher does not get ready")
	}
	return runtimeDir, certs, d.ManagementAddr().String()
}

// The words and the answers are those of the real dispatcher, on each way to
// it and in both formats.
func TestAgainstDispatcher(t *testing.T) {
	for _, format := range []manage.Format{manage.Array, manage.Lines} {
		runtimeDir, certs, server := startDispatcher(t, format)
		for _, way := range [][]string{
			{"--runtime-dir", runtimeDir},
			{"--server", server, "--certs", certs, "--pair", "relay", "--passport", "CN:*dispatcher"},
		} {
			for _, tc := range []struct {
				args []string
				code int
				want string // printed, or the error
			}{
				{[]string{"version"}, 0, "9.9.9\n"},
				{[]string{"sessions"}, 0, "no calls\n"},
				{[]string{"sessions", "--json"}, 0, "[]\n"},
				{[]string{"summary"}, 3, "no relay is connected"},
				{[]string{"sessions", "--lost"}, 3, "no call like that"},
				{[]string{"sessions", "--from", "a", "--to", "b", "--call-id", "c", "--relay", "r", "--order", "-bytes", "--limit", "3"}, 3, "no call like that"},
				{[]string{"session", "c1"}, 3, "no call with Call-ID c1"},
				{[]string{"explain", "c1"}, 3, "no call with Call-ID c1"},
				{[]string{"terminate", "c1"}, 3, "no call with Call-ID c1"},
				{[]string{"drain", "berlin"}, 3, "no relay berlin is connected"},
				{[]string{"drain", "berlin", "--cancel"}, 3, "no relay berlin is connected"},
			} {
				out, code, err := run(t, append(tc.args, way...)...)
				if err != nil {
					out += err.Error()
				}
				if code != tc.code || !strings.HasPrefix(out, tc.want) {
					t.Errorf("%v %v: exit code %d, %q; want %d, %q", way, tc.args, code, out, tc.code, tc.want)
				}
			}
		}
	}
}
