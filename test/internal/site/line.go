package site

import (
	"bufio"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"
)

// Line is a connection on which text goes out and lines come back: of a module, of an
// operator, or one end of a link between dispatcher and relay.
type Line struct {
	Conn net.Conn

	t  testing.TB
	in *bufio.Reader
}

// Dial connects. The connection ends with the test.
func Dial(t testing.TB, network, address string) *Line {
	t.Helper()
	conn, err := net.Dial(network, address)
	if err != nil {
		t.Fatal(err)
	}
	return NewLine(t, conn)
}

// NewLine takes a connection over.
func NewLine(t testing.TB, conn net.Conn) *Line {
	t.Cleanup(func() { conn.Close() })
	return &Line{Conn: conn, t: t, in: bufio.NewReader(conn)}
}

// Send writes text as it is.
func (l *Line) Send(text string) {
	l.t.Helper()
	if _, err := io.WriteString(l.Conn, text); err != nil {
		l.t.Fatalf("write %.80q: %v", text, err)
	}
}

// Raw reads one line with its end.
func (l *Line) Raw() string {
	l.t.Helper()
	l.Conn.SetReadDeadline(time.Now().Add(Patience))
	line, err := l.in.ReadString('\n')
	if err != nil {
		l.t.Fatalf("read a line: got %q, %v", line, err)
	}
	return line
}

// Receive reads one line and takes CR LF off, which must be there.
func (l *Line) Receive() string {
	l.t.Helper()
	raw := l.Raw()
	line, ok := strings.CutSuffix(raw, "\r\n")
	if !ok {
		l.t.Fatalf("got %q, want a line that ends in CR LF", raw)
	}
	return line
}

// Ask sends text and returns the line that comes back.
func (l *Line) Ask(text string) string {
	l.t.Helper()
	l.Send(text)
	return l.Receive()
}

// Want fails unless exactly these bytes come next.
func (l *Line) Want(want string) {
	l.t.Helper()
	got := make([]byte, len(want))
	l.Conn.SetReadDeadline(time.Now().Add(Patience))
	n, err := io.ReadFull(l.in, got)
	if err != nil || string(got) != want {
		l.t.Fatalf("got %q, %v\nwant %q", got[:n], err, want)
	}
}

// WantClosed fails unless the other end closes the connection without another byte.
func (l *Line) WantClosed() {
	l.t.Helper()
	l.Conn.SetReadDeadline(time.Now().Add(Patience))
	if b, err := l.in.ReadByte(); err == nil {
		l.t.Fatalf("got %q, want the end of the connection", b)
	} else if errors.Is(err, os.ErrDeadlineExceeded) {
		l.t.Fatal("the connection was not closed")
	}
}
