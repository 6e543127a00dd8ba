package ctl

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"strings"
	"syscall"

	"example.org/mediaproxy/internal/pki"
)

// hintSocket says what to do when the dispatcher's socket cannot be used.
func hintSocket(path string, err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("no socket %s: is the dispatcher running? --runtime-dir names another folder, --server another machine", path)
	case errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Errorf("nobody listens at %s: the dispatcher that made it has ended; start it again", path)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("not allowed to use %s: %s", path, whoMay(path))
	}
	return fmt.Errorf("connect to the dispatcher: %w", err)
}

// whoMay tells how to get at the socket.
func whoMay(path string) string {
	if group := groupOf(path); group != "" {
		return fmt.Sprintf("it is for root and the group %s; run this with sudo, or type: sudo usermod -aG %s $USER, and log in again", group, group)
	}
	return "run this with sudo, or as a member of the group [Dispatcher] socket_group"
}

func (t *target) hintDial(err error) error {
	var dns *net.DNSError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &dns):
		return fmt.Errorf("--server %s: %s", t.server, dns.Err)
	case errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Errorf("nobody listens at %s: is the dispatcher running, and does [Dispatcher] listen_management name this address? (the default is loopback only)", t.address())
	case isTimeout(err):
		return fmt.Errorf("no answer from %s: is the address right, and does a firewall let TCP through?", t.address())
	}
	return fmt.Errorf("connect to the dispatcher at %s: %w", t.address(), err)
}

func (t *target) hintHandshake(err error) error {
	var header tls.RecordHeaderError
	switch {
	case errors.As(err, &header):
		return fmt.Errorf("%s does not speak TLS: if [Dispatcher] management_use_tls is no, add --plain", t.address())
	case errors.Is(err, pki.ErrPassport), errors.Is(err, pki.ErrUntrusted), errors.Is(err, pki.ErrRevoked), errors.Is(err, pki.ErrDates):
		return fmt.Errorf("the dispatcher at %s is not to be trusted: %w", t.address(), err)
	case isTimeout(err):
		return fmt.Errorf("%s does not answer in TLS: if [Dispatcher] management_use_tls is no, add --plain", t.address())
	}
	return t.hintAnswer(err)
}

// hintAnswer explains a connection that ends before an answer came: a refusal
// is not told in words.
func (t *target) hintAnswer(err error) error {
	alert := tls.AlertError(0)
	var remote *net.OpError
	closed := errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) ||
		errors.As(err, &alert) || errors.As(err, &remote) && remote.Op == "remote error"
	switch {
	case isTimeout(err):
		return fmt.Errorf("no answer within %s; the slowest relay decides: try a longer --timeout", t.timeout)
	case errors.Is(err, io.ErrUnexpectedEOF):
		return fmt.Errorf("the dispatcher hung up in the middle of its answer: %w", err)
	case closed && t.server != "" && t.plain:
		return fmt.Errorf("%s hung up without an answer: it may want TLS; leave out --plain and give --certs", t.address())
	case closed && t.server != "":
		return fmt.Errorf("%s hung up without an answer: it does not accept our certificate; its log says why (authority, crl.pem, management_passport)", t.address())
	case closed:
		return errors.New("the dispatcher hung up without an answer; its log says why")
	}
	return err
}

func isTimeout(err error) bool {
	var timeout interface{ Timeout() bool }
	return errors.Is(err, os.ErrDeadlineExceeded) || errors.As(err, &timeout) && timeout.Timeout()
}

// clean makes text from the network safe for a terminal and a table: names in
// SIP messages are whatever a caller wants them to be.
func clean(s string) string {
	if !strings.ContainsFunc(s, unprintable) {
		return s
	}
	var b strings.Builder
	for _, r := range s {
		switch {
		case !unprintable(r):
			b.WriteRune(r)
		case r < 0x100:
			fmt.Fprintf(&b, `\x%02x`, r)
		default:
			fmt.Fprintf(&b, `\u%04x`, r)
		}
	}
	return b.String()
}

// unprintable runes are control characters of both ranges, bytes that are not
// UTF-8, and those that turn the writing direction around.
func unprintable(r rune) bool {
	return r < ' ' || r >= 0x7f && r < 0xa0 || r == '\uFFFD' ||
		r >= '\u202a' && r <= '\u202e' || r >= '\u2066' && r <= '\u2069' || r == '\u200e' || r == '\u200f'
}
