package ctl

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"errors"
	"flag"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"go.uber.org/goleak"
)

var update = flag.Bool("update", false, "write the golden files anew")

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A fakeDispatcher answers management commands with prepared bytes.
type fakeDispatcher struct {
	answers map[string]string // by command line; no entry: error

	mu    sync.Mutex
	asked []string
}

// serve answers on the listener until the test ends.
func (f *fakeDispatcher) serve(t *testing.T, listener net.Listener) {
	t.Helper()
	var all sync.WaitGroup
	all.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			all.Go(func() { f.answer(conn) })
		}
	})
	t.Cleanup(func() { listener.Close(); all.Wait() })
}

func (f *fakeDispatcher) answer(conn net.Conn) {
	defer conn.Close()
	for in := bufio.NewScanner(conn); in.Scan(); {
		f.mu.Lock()
		f.asked = append(f.asked, in.Text())
		f.mu.Unlock()
		text, known := f.answers[in.Text()]
		if !known {
			text = "error\r\n"
		}
		if text == "" {
			return // hangs up
		}
		conn.Write([]byte(text))
		if !strings.HasSuffix(text, "\n") {
			return // hangs up in the middle
		}
	}
}

// onSocket serves on management.sock in a new runtime folder.
func (f *fakeDispatcher) onSocket(t *testing.T) (runtimeDir string) {
	t.Helper()
	dir := t.TempDir()
	listener, err := net.Listen("unix", filepath.Join(dir, SocketName))
	if err != nil {
		t.Fatal(err)
	}
	f.serve(t, listener)
	return dir
}

// onNetwork serves on a TCP port, with TLS if there is a configuration.
func (f *fakeDispatcher) onNetwork(t *testing.T, cfg *tls.Config) (address string) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address = listener.Addr().String()
	if cfg != nil {
		listener = tls.NewListener(listener, cfg)
	}
	f.serve(t, listener)
	return address
}

// run runs the command and returns what it prints and its exit code.
func run(t *testing.T, args ...string) (out string, code int, err error) {
	t.Helper()
	cmd := Command()
	cmd.SilenceUsage, cmd.SilenceErrors = true, true
	var buf bytes.Buffer
	cmd.SetOut(&buf)
	cmd.SetErr(&buf)
	cmd.SetArgs(args)
	err = cmd.Execute()
	if err != nil {
		code = 1
		var coded interface{ ExitCode() int }
		if errors.As(err, &coded) {
			code = coded.ExitCode()
		}
	}
	return buf.String(), code, err
}

// golden compares with a file under testdata.
func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name+".golden")
	if *update {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s: got\n%s\nwant\n%s", path, got, want)
	}
}
