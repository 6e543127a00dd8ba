package ctl

import (
	"bufio"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"example.org/mediaproxy/internal/pki"
	"example.org/mediaproxy/internal/wire/manage"
)

func TestOverTLS(t *testing.T) {
	dir, other := t.TempDir(), t.TempDir()
	for _, folder := range []string{dir, other} {
		if _, err := pki.Create(folder, pki.Options{}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := pki.Issue(dir, "operator", pki.Options{CommonNames: map[string]string{"operator": "Anna"}}); err != nil {
		t.Fatal(err)
	}
	store, err := pki.Open(pki.Config{Dir: dir, Name: pki.Dispatcher})
	if err != nil {
		t.Fatal(err)
	}
	passport, err := pki.ParsePassport("CN:Anna")
	if err != nil {
		t.Fatal(err)
	}
	dispatcher := fake(t, manage.Array)
	server := dispatcher.onNetwork(t, store.ServerConfig(passport))

	// The operator's own pair is preferred over the dispatcher's in the same folder.
	out, code, err := run(t, "summary", "--server", server, "--certs", dir, "--passport", "CN:*dispatcher")
	if err != nil || code != 0 {
		t.Fatalf("exit code %d, %v", code, err)
	}
	golden(t, "summary", out)

	for want, args := range map[string][]string{
		"does not accept our certificate; its log says why": {"--certs", dir, "--pair", "relay"},
		"is not to be trusted: passport does not match":     {"--certs", dir, "--passport", "CN:*relay"},
		"is not to be trusted: not issued by the authority": {"--certs", other},
		"hung up without an answer: it may want TLS":        {"--plain"},
		"operator2.crt: there is no such file":              {"--certs", dir, "--pair", "operator2"},
		"ca.pem: there is no such file":                     {"--certs", filepath.Join(dir, "no-such-folder")},
	} {
		_, code, err := run(t, append([]string{"version", "--server", server}, args...)...)
		if code != 1 || err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: exit code %d, %v; want %q", args, code, err, want)
		}
	}
	for want, args := range map[string][]string{
		"--passport: ":            {"--certs", dir, "--passport", "cn:x"},
		"--plain needs no certif": {"--certs", dir, "--plain"},
	} {
		_, code, err := run(t, append([]string{"version", "--server", server}, args...)...)
		if code != 2 || err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%v: exit code %d, %v; want %q", args, code, err, want)
		}
	}
}

func TestOverPlainTCP(t *testing.T) {
	dir := t.TempDir()
	if _, err := pki.Create(dir, pki.Options{}); err != nil {
		t.Fatal(err)
	}
	server := fake(t, manage.Lines).onNetwork(t, nil)
	out, code, err := run(t, "version", "--server", server, "--plain")
	if out != "1.2.3\n" || code != 0 || err != nil {
		t.Errorf("printed %q, exit code %d, %v", out, code, err)
	}
	_, code, err = run(t, "version", "--server", server, "--certs", dir)
	if code != 1 || err == nil || !strings.Contains(err.Error(), "does not speak TLS") || !strings.Contains(err.Error(), "--plain") {
		t.Errorf("TLS to a plain port: exit code %d, %v", code, err)
	}
}

func TestNobodyThere(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, SocketName)
	_, code, err := run(t, "version", "--runtime-dir", dir)
	if want := "no socket " + path + ": is the dispatcher running?"; code != 1 || err == nil || !strings.HasPrefix(err.Error(), want) {
		t.Errorf("exit code %d, %v; want %q", code, err, want)
	}

	listener, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	listener.(*net.UnixListener).SetUnlinkOnClose(false)
	listener.Close()
	_, code, err = run(t, "version", "--runtime-dir", dir)
	if want := "nobody listens at " + path; code != 1 || err == nil || !strings.HasPrefix(err.Error(), want) {
		t.Errorf("exit code %d, %v; want %q", code, err, want)
	}

	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := tcp.Addr().String()
	tcp.Close()
	_, code, err = run(t, "version", "--server", server, "--plain")
	if want := "nobody listens at " + server + ": is the dispatcher running, and does [Dispatcher] listen_management"; code != 1 || err == nil || !strings.HasPrefix(err.Error(), want) {
		t.Errorf("exit code %d, %v; want %q", code, err, want)
	}
}

// A dispatcher that says nothing must not hold an operator for ever.
func TestTimeout(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0") // accepts, in the kernel, and never answers
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	_, code, err := run(t, "summary", "--server", listener.Addr().String(), "--plain", "--timeout", "50ms")
	if code != 1 || err == nil || !strings.HasPrefix(err.Error(), "no answer within 50ms") {
		t.Errorf("exit code %d, %v", code, err)
	}
}

// Root may use any socket, so the refusal itself is made up here.
func TestPermissionHint(t *testing.T) {
	path := filepath.Join(t.TempDir(), SocketName)
	if err := os.WriteFile(path, nil, 0o660); err != nil {
		t.Fatal(err)
	}
	refusal := &net.OpError{Op: "dial", Net: "unix", Err: os.NewSyscallError("connect", syscall.EACCES)}
	group := groupOf(path)
	if group == "" {
		t.Fatal("no group found")
	}
	got := hintSocket(path, refusal).Error()
	if !strings.HasPrefix(got, "not allowed to use "+path) || !strings.Contains(got, "usermod -aG "+group+" ") {
		t.Errorf("got %s", got)
	}
	got = hintSocket(filepath.Join(path, "below"), refusal).Error()
	if !strings.Contains(got, "member of the group [Dispatcher] socket_group") {
		t.Errorf("group not to be seen: %s", got)
	}
}

func TestSocketPath(t *testing.T) {
	run := t.TempDir()
	t.Setenv("XDG_RUNTIME_DIR", run)
	if got := (&target{runtimeDir: "/x"}).socketPath(); got != "/x/management.sock" {
		t.Errorf("given folder: %s", got)
	}
	if os.Geteuid() == 0 {
		if got := (&target{}).socketPath(); got != "/run/mediaproxy/management.sock" {
			t.Errorf("root: %s", got)
		}
		return
	}
	if got := (&target{}).socketPath(); got != "/run/mediaproxy/management.sock" {
		t.Errorf("without a dispatcher of our own: %s", got)
	}
	own := filepath.Join(run, "mediaproxy", SocketName)
	if err := os.Mkdir(filepath.Dir(own), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(own, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if got := (&target{}).socketPath(); got != own {
		t.Errorf("with a dispatcher of our own: %s", got)
	}
}

func TestAddress(t *testing.T) {
	for server, want := range map[string]string{
		"proxy.example.com":   "proxy.example.com:25061",
		"proxy.example.com:1": "proxy.example.com:1",
		"192.0.2.1":           "192.0.2.1:25061",
		"2001:db8::1":         "[2001:db8::1]:25061",
		"[2001:db8::1]":       "[2001:db8::1]:25061",
		"[2001:db8::1]:25062": "[2001:db8::1]:25062",
	} {
		if got := (&target{server: server}).address(); got != want {
			t.Errorf("%s: got %s, want %s", server, got, want)
		}
	}
}

// A line may be long, but not without bound.
func TestReadLine(t *testing.T) {
	long := strings.Repeat("x", 100)
	for _, tc := range []struct{ in, want, err string }{
		{"a\r\nb\n", "a", ""},
		{"a\n", "a", ""},
		{"\r\n", "", ""},
		{long + "\n", long, ""},
		{long + long + "\n", "", "a line of more than 128 bytes"},
		{"a", "", "unexpected EOF"},
		{"", "", "EOF"},
	} {
		got, err := readLine(bufio.NewReaderSize(strings.NewReader(tc.in), 16), 128)
		text := ""
		if err != nil {
			text = err.Error()
		}
		if string(got) != tc.want || text != tc.err {
			t.Errorf("%.20q: got %q, %q; want %q, %q", tc.in, got, text, tc.want, tc.err)
		}
	}
}
