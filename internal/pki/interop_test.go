package pki

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// These tests make sure that what is made here can be used by programs built
// on OpenSSL and on GnuTLS, and the other way round.

// tool finds a program of another TLS library.
func tool(t *testing.T, name, debianPackage string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		t.Skipf("skip: tool missing: %s (apt-get install %s)", name, debianPackage)
	}
	return path
}

// run runs a tool in the folder and returns what it prints.
func run(t *testing.T, dir, stdin, name string, args ...string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	cmd.Stdin = strings.NewReader(stdin)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// liveFolder has certificates that are valid now: the tools have no clock to inject.
func liveFolder(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if _, err := Create(dir, Options{Email: "ops@example.com"}); err != nil {
		t.Fatal(err)
	}
	return dir
}

// serve accepts connections that must show a certificate and answers each with
// one line.
func serve(t *testing.T, cfg *tls.Config) (address string, accepted chan error) {
	t.Helper()
	listener, err := tls.Listen("tcp", "127.0.0.1:0", cfg)
	if err != nil {
		t.Fatal(err)
	}
	accepted = make(chan error, 8)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			conn.SetDeadline(time.Now().Add(10 * time.Second))
			err = conn.(*tls.Conn).Handshake()
			if err == nil {
				io.WriteString(conn, "hello from the store\r\n")
			}
			conn.Close()
			accepted <- err
		}
	}()
	t.Cleanup(func() { listener.Close(); <-done })
	return listener.Addr().String(), accepted
}

func openLive(t *testing.T, dir, name string) *Store {
	t.Helper()
	s, err := Open(Config{Dir: dir, Name: name})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestOpenSSLReadsTheFiles(t *testing.T) {
	openssl := tool(t, "openssl", "openssl")
	dir := liveFolder(t)
	out, err := run(t, dir, "", openssl, "verify", "-crl_check", "-CRLfile", CRLFile, "-CAfile", CAFile, "-purpose", "sslclient", "relay.crt", "dispatcher.crt")
	if err != nil || strings.Count(out, ": OK") != 2 {
		t.Errorf("verify: %v\n%s", err, out)
	}
	if out, err := run(t, dir, "", openssl, "verify", "-CAfile", CAFile, "-purpose", "sslserver", "relay.crt"); err != nil {
		t.Errorf("verify as server: %v\n%s", err, out)
	}
	if out, err := run(t, dir, "", openssl, "pkey", "-in", "relay.key", "-noout", "-check"); err != nil {
		t.Errorf("key: %v\n%s", err, out)
	}
	if _, _, err := Revoke(dir, Relay, Options{}); err != nil {
		t.Fatal(err)
	}
	out, err = run(t, dir, "", openssl, "verify", "-crl_check", "-CRLfile", CRLFile, "-CAfile", CAFile, "relay.crt")
	if err == nil || !strings.Contains(out, "revoked") {
		t.Errorf("verify of a revoked one: %v\n%s", err, out)
	}
}

func TestGnuTLSReadsTheFiles(t *testing.T) {
	certtool := tool(t, "certtool", "gnutls-bin")
	dir := liveFolder(t)
	verify := []string{"--verify", "--load-ca-certificate", CAFile, "--load-crl", CRLFile, "--infile", "relay.crt"}
	if out, err := run(t, dir, "", certtool, verify...); err != nil || !strings.Contains(out, "Verified. The certificate is trusted.") {
		t.Errorf("verify: %v\n%s", err, out)
	}
	if out, err := run(t, dir, "", certtool, "--key-info", "--infile", "relay.key"); err != nil || !strings.Contains(out, "EC/ECDSA") {
		t.Errorf("key: %v\n%s", err, out)
	}
	if out, err := run(t, dir, "", certtool, "--crl-info", "--infile", CRLFile); err != nil || !strings.Contains(out, "No revoked certificates") {
		t.Errorf("list: %v\n%s", err, out)
	}
	if _, _, err := Revoke(dir, Relay, Options{}); err != nil {
		t.Fatal(err)
	}
	if out, err := run(t, dir, "", certtool, verify...); err == nil || !strings.Contains(out, "revoked") {
		t.Errorf("verify of a revoked one: %v\n%s", err, out)
	}
}

func TestOpenSSLClient(t *testing.T) {
	openssl := tool(t, "openssl", "openssl")
	dir := liveFolder(t)
	address, accepted := serve(t, openLive(t, dir, Dispatcher).ServerConfig(passport(t, "CN:*relay, EMAIL:ops@example.com")))
	for _, version := range []string{"-tls1_2", "-tls1_3"} {
		out, err := run(t, dir, "", openssl, "s_client", "-connect", address, "-CAfile", CAFile, "-cert", "relay.crt", "-key", "relay.key",
			"-verify_return_error", "-ign_eof", "-quiet", version)
		if serverErr := <-accepted; err != nil || serverErr != nil || !strings.Contains(out, "hello from the store") {
			t.Errorf("%s: client %v, server %v\n%s", version, err, serverErr, out)
		}
	}
	run(t, dir, "", openssl, "s_client", "-connect", address, "-ign_eof", "-quiet")
	if err := <-accepted; err == nil {
		t.Error("a client without certificate was let in")
	}
}

func TestGnuTLSClient(t *testing.T) {
	client := tool(t, "gnutls-cli", "gnutls-bin")
	dir := liveFolder(t)
	address, accepted := serve(t, openLive(t, dir, Dispatcher).ServerConfig(passport(t, "CN:*relay")))
	_, port, _ := net.SplitHostPort(address)
	connect := func(pair, priority string) (string, error) {
		return run(t, dir, "", client, "--x509cafile", CAFile, "--x509crlfile", CRLFile, "--x509certfile", pair+".crt", "--x509keyfile", pair+".key",
			"--verify-hostname", "MediaProxy dispatcher", "--priority", priority, "--port", port, "127.0.0.1")
	}
	for _, priority := range []string{"NORMAL:-VERS-ALL:+VERS-TLS1.2", "NORMAL:-VERS-ALL:+VERS-TLS1.3"} {
		out, err := connect(Relay, priority)
		if serverErr := <-accepted; err != nil || serverErr != nil || !strings.Contains(out, "Handshake was completed") {
			t.Errorf("%s: client %v, server %v\n%s", priority, err, serverErr, out)
		}
	}
	connect(Dispatcher, "NORMAL")
	if err := <-accepted; err == nil {
		t.Error("a client with another passport was let in")
	}
}

// freePort finds a port for a tool that cannot choose one itself.
func freePort(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	_, port, _ := net.SplitHostPort(listener.Addr().String())
	return port
}

// startServer starts a tool that listens and gives back a dialler that waits
// until it does.
func startServer(t *testing.T, dir, port, name string, args ...string) func(cfg *tls.Config) error {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Dir = dir
	stdin, err := cmd.StdinPipe() // open: at its end some tools stop
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { stdin.Close(); cmd.Process.Kill(); cmd.Wait() })
	return func(cfg *tls.Config) error {
		for deadline := time.Now().Add(10 * time.Second); ; {
			conn, err := net.Dial("tcp", "127.0.0.1:"+port)
			if err != nil && time.Now().Before(deadline) {
				time.Sleep(10 * time.Millisecond) // between two tries to connect
				continue
			}
			if err != nil {
				return err
			}
			defer conn.Close()
			conn.SetDeadline(deadline)
			return tls.Client(conn, cfg).Handshake()
		}
	}
}

func TestOpenSSLServer(t *testing.T) {
	openssl := tool(t, "openssl", "openssl")
	dir, port := liveFolder(t), freePort(t)
	dial := startServer(t, dir, port, openssl, "s_server", "-accept", "127.0.0.1:"+port, "-CAfile", CAFile,
		"-cert", "dispatcher.crt", "-key", "dispatcher.key", "-Verify", "1", "-verify_return_error", "-quiet")
	relay := openLive(t, dir, Relay)
	if err := dial(relay.ClientConfig(passport(t, "CN:*dispatcher"), "some-protocol")); err != nil {
		t.Error(err)
	}
	if err := dial(relay.ClientConfig(passport(t, "CN:*relay"))); err == nil {
		t.Error("a server with another passport was accepted")
	}
}

func TestGnuTLSServer(t *testing.T) {
	server := tool(t, "gnutls-serv", "gnutls-bin")
	dir, port := liveFolder(t), freePort(t)
	dial := startServer(t, dir, port, server, "--port", port, "--x509cafile", CAFile, "--x509crlfile", CRLFile,
		"--x509certfile", "dispatcher.crt", "--x509keyfile", "dispatcher.key", "--require-client-cert", "--verify-client-cert", "--quiet")
	relay := openLive(t, dir, Relay)
	if err := dial(relay.ClientConfig(passport(t, "CN:*dispatcher"), "some-protocol")); err != nil {
		t.Error(err)
	}
	if err := dial(relay.ClientConfig(passport(t, "CN:*relay"))); err == nil {
		t.Error("a server with another passport was accepted")
	}
}

// A folder made with openssl as people made theirs for the original programs:
// RSA, Netscape type, no extended key usage, a list of version 1.
func TestFolderMadeWithOpenSSL(t *testing.T) {
	openssl := tool(t, "openssl", "openssl")
	dir := t.TempDir()
	write(t, dir, "ca.cnf", `[ca]
default_ca = us
[us]
database = index.txt
serial = serial
new_certs_dir = .
certificate = ca.pem
private_key = ca.key
default_md = sha256
default_days = 30
default_crl_days = 30
policy = any
x509_extensions = leaf
unique_subject = no
[any]
commonName = supplied
[leaf]
basicConstraints = CA:FALSE
nsCertType = client, server
`)
	write(t, dir, "index.txt", "")
	write(t, dir, "serial", "1000\n")
	steps := [][]string{
		{"req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", "ca.key", "-out", "ca.pem", "-days", "30", "-subj", "/CN=Old authority"},
	}
	for _, name := range []string{Dispatcher, Relay} {
		steps = append(steps,
			[]string{"req", "-newkey", "rsa:2048", "-nodes", "-keyout", name + ".key", "-out", name + ".csr", "-subj", "/CN=" + name},
			[]string{"ca", "-config", "ca.cnf", "-batch", "-in", name + ".csr", "-out", name + ".crt"})
	}
	steps = append(steps, []string{"ca", "-config", "ca.cnf", "-gencrl", "-out", "crl.pem"})
	for _, step := range steps {
		if out, err := run(t, dir, "", openssl, step...); err != nil {
			t.Fatalf("openssl %v: %v\n%s", step, err, out)
		}
	}
	// openssl makes them valid from this second on.
	later := func() time.Time { return time.Now().Add(time.Minute) }
	dispatcher, err := Open(Config{Dir: dir, Name: Dispatcher, Now: later})
	if err != nil {
		t.Fatal(err)
	}
	relay, err := Open(Config{Dir: dir, Name: Relay, Now: later})
	if err != nil {
		t.Fatal(err)
	}
	if _, _, serverErr, clientErr := handshake(t, dispatcher.ServerConfig(passport(t, "CN:relay")), relay.ClientConfig(passport(t, "CN:dispatcher"))); serverErr != nil || clientErr != nil {
		t.Fatalf("server %v, client %v", serverErr, clientErr)
	}
	for _, step := range [][]string{
		{"ca", "-config", "ca.cnf", "-revoke", "relay.crt"},
		{"ca", "-config", "ca.cnf", "-gencrl", "-out", "crl.pem"},
	} {
		if out, err := run(t, dir, "", openssl, step...); err != nil {
			t.Fatalf("openssl %v: %v\n%s", step, err, out)
		}
	}
	dispatcher.Verify()
	_, _, serverErr, _ := handshake(t, dispatcher.ServerConfig(Passport{}), relay.ClientConfig(Passport{}))
	if serverErr == nil || !strings.Contains(fmt.Sprint(serverErr), "revoked") {
		t.Errorf("the relay that openssl revoked: %v", serverErr)
	}

	// Our commands can go on with such a folder.
	now := Options{Now: later}
	if _, err := Renew(dir, now); err != nil {
		t.Fatalf("renew: %v", err)
	}
	if _, _, err := Revoke(dir, Dispatcher, now); err != nil {
		t.Fatalf("revoke: %v", err)
	}
	if out, err := run(t, dir, "", openssl, "verify", "-crl_check", "-CRLfile", CRLFile, "-CAfile", CAFile, "relay.crt"); err != nil {
		t.Errorf("the renewed relay: %v\n%s", err, out)
	}
	if out, err := run(t, dir, "", openssl, "verify", "-crl_check", "-CRLfile", CRLFile, "-CAfile", CAFile, "dispatcher.crt"); err == nil || !strings.Contains(out, "revoked") {
		t.Errorf("the dispatcher we revoked: %v\n%s", err, out)
	}
	lists, err := parseCRLs([]byte(read(t, dir, CRLFile)))
	if err != nil || len(lists[0].entries) != 2 {
		t.Errorf("the list has forgotten somebody: %v, %v", lists, err)
	}
}
