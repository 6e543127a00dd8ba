package ctl

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"time"

	"example.org/mediaproxy/internal/config"
	"example.org/mediaproxy/internal/pki"
	"example.org/mediaproxy/internal/wire/manage"
)

// SocketName is the dispatcher's socket for operators, in the runtime folder.
const SocketName = "management.sock"

const (
	defaultPort  = "25061"
	defaultCerts = "/etc/mediaproxy/tls"
	systemRun    = "/run/mediaproxy"

	// maxAnswer bounds one line of an answer: 100,000 calls fit.
	maxAnswer = 256 << 20
)

// defaultPairs are the certificates tried, the most fitting one first.
var defaultPairs = []string{"operator", pki.Dispatcher, pki.Relay}

// target is the dispatcher to ask, as the flags name it.
type target struct {
	runtimeDir string
	server     string
	certs      string
	pair       string
	passport   string
	plain      bool
	timeout    time.Duration
}

// ask sends one command and reads its answer.
func (t *target) ask(request manage.Request) (manage.Answer, error) {
	if t.timeout <= 0 {
		return manage.Answer{}, usage("--timeout %s: not a time to wait", t.timeout)
	}
	ctx, cancel := context.WithTimeout(context.Background(), t.timeout)
	defer cancel()
	conn, err := t.dial(ctx)
	if err != nil {
		return manage.Answer{}, err
	}
	defer conn.Close()
	deadline, _ := ctx.Deadline()
	if err := conn.SetDeadline(deadline); err != nil {
		return manage.Answer{}, err
	}
	if _, err := conn.Write(manage.AppendRequest(nil, request)); err != nil {
		return manage.Answer{}, t.hintAnswer(err)
	}
	in := bufio.NewReaderSize(conn, 64<<10)
	answer, err := manage.ReadAnswer(func() ([]byte, error) { return readLine(in, maxAnswer) })
	if err != nil {
		return manage.Answer{}, t.hintAnswer(err)
	}
	return answer, nil
}

// readLine reads one line and takes its end off.
func readLine(in *bufio.Reader, limit int) ([]byte, error) {
	var line []byte
	for {
		part, err := in.ReadSlice('\n')
		line = append(line, part...)
		switch {
		case errors.Is(err, bufio.ErrBufferFull) && len(line) <= limit:
			continue
		case errors.Is(err, bufio.ErrBufferFull):
			return nil, fmt.Errorf("a line of more than %d bytes", limit)
		case errors.Is(err, io.EOF) && len(line) > 0:
			return nil, io.ErrUnexpectedEOF
		case err != nil:
			return nil, err
		}
		return bytes.TrimSuffix(line[:len(line)-1], []byte("\r")), nil
	}
}

func (t *target) dial(ctx context.Context) (net.Conn, error) {
	if t.server == "" {
		if t.plain || t.certs != "" || t.pair != "" {
			return nil, usage("--plain, --certs and --pair need --server")
		}
		return t.dialSocket(ctx)
	}
	if t.runtimeDir != "" {
		return nil, usage("--runtime-dir and --server exclude each other")
	}
	if t.plain && (t.certs != "" || t.pair != "") {
		return nil, usage("--plain needs no certificate: leave out --certs and --pair")
	}
	var dialer net.Dialer
	if t.plain {
		conn, err := dialer.DialContext(ctx, "tcp", t.address())
		return conn, t.hintDial(err)
	}
	cfg, err := t.tlsConfig()
	if err != nil {
		return nil, err
	}
	raw, err := dialer.DialContext(ctx, "tcp", t.address())
	if err != nil {
		return nil, t.hintDial(err)
	}
	conn := tls.Client(raw, cfg)
	if err := conn.HandshakeContext(ctx); err != nil {
		raw.Close()
		return nil, t.hintHandshake(err)
	}
	return conn, nil
}

// address adds the port if there is none. IPv6 addresses may come bare.
func (t *target) address() string {
	if _, _, err := net.SplitHostPort(t.server); err == nil {
		return t.server
	}
	host := t.server
	if n := len(host); n > 1 && host[0] == '[' && host[n-1] == ']' {
		host = host[1 : n-1]
	}
	return net.JoinHostPort(host, defaultPort)
}

func (t *target) tlsConfig() (*tls.Config, error) {
	passport, err := pki.ParsePassport(t.passport)
	if err != nil {
		return nil, usage("--passport: %w", err)
	}
	dir := t.certs
	if dir == "" {
		dir = defaultCerts
	}
	store, err := pki.Open(pki.Config{Dir: dir, Name: choosePair(dir, t.pair)})
	if err != nil {
		return nil, fmt.Errorf("certificates for --server: %w", err)
	}
	return store.ClientConfig(passport), nil
}

// choosePair takes the first pair whose key we may read.
func choosePair(dir, given string) string {
	if given != "" {
		return given
	}
	for _, name := range defaultPairs {
		if file, err := os.Open(filepath.Join(dir, pki.KeyFile(name))); err == nil {
			file.Close()
			return name
		}
	}
	return pki.Dispatcher // its error will tell what is missing
}

func (t *target) dialSocket(ctx context.Context) (net.Conn, error) {
	path := t.socketPath()
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "unix", path)
	if err != nil {
		return nil, hintSocket(path, err)
	}
	return conn, nil
}

// socketPath is in the folder that was given, else where a dispatcher of our
// own user has it, else where the system's dispatcher has it.
func (t *target) socketPath() string {
	if t.runtimeDir != "" {
		return filepath.Join(t.runtimeDir, SocketName)
	}
	own, shared := config.DefaultRuntimeDir()
	if !shared || ours(own) {
		path := filepath.Join(own, SocketName)
		if _, err := os.Lstat(path); err == nil {
			return path
		}
	}
	return filepath.Join(systemRun, SocketName)
}
