package hangup

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"example.org/mediaproxy/internal/wire/mi"
)

// largestReply is what OpenSIPS and Kamailio send at most.
const largestReply = 65536

var errNoAnswer = errors.New("the SIP proxy did not answer")

// line is our socket, from which commands go to the proxy and to which it answers.
type line struct {
	cfg Config
	log *slog.Logger

	mu      sync.Mutex // guards what follows
	conn    net.PacketConn
	network string // of conn
	peer    string // to whom the latest command went
	pending map[string]chan mi.Reply
	reading sync.WaitGroup
}

func newLine(cfg Config, log *slog.Logger) *line {
	return &line{cfg: cfg, log: log, pending: map[string]chan mi.Reply{}}
}

// ask sends one command and waits for what becomes of it.
func (l *line) ask(ctx context.Context, method string, params []any) (mi.Reply, error) {
	to, err := l.proxy()
	if err != nil {
		return mi.Reply{}, err
	}
	id := newID()
	request, err := mi.Append(nil, mi.Request{ID: id, Method: method, Params: params})
	if err != nil {
		return mi.Reply{}, err
	}
	conn, answer, err := l.expect(to, id)
	if err != nil {
		return mi.Reply{}, err
	}
	defer l.forget(id)
	conn.SetWriteDeadline(time.Now().Add(l.cfg.Answer)) // a full queue of the proxy's blocks
	if _, err := conn.WriteTo(request, to); err != nil {
		return mi.Reply{}, fmt.Errorf("send %s to the SIP proxy: %w", method, err)
	}
	timer := time.NewTimer(l.cfg.Answer)
	defer timer.Stop()
	select {
	case reply := <-answer:
		return reply, nil
	case <-timer.C:
		return mi.Reply{}, fmt.Errorf("%s to %s: %w within %v", method, to, errNoAnswer, l.cfg.Answer)
	case <-ctx.Done():
		return mi.Reply{}, ctx.Err()
	}
}

// proxy is the first of the proxy's sockets that is there.
func (l *line) proxy() (net.Addr, error) {
	for _, s := range l.cfg.Sockets {
		if rest, ok := strings.CutPrefix(s, "udp:"); ok {
			return net.ResolveUDPAddr("udp", rest)
		}
		if info, err := os.Stat(s); err == nil && info.Mode()&os.ModeSocket != 0 {
			return &net.UnixAddr{Name: s, Net: "unixgram"}, nil
		}
	}
	return nil, fmt.Errorf("the SIP proxy has no socket at %s: %w", strings.Join(l.cfg.Sockets, " or "), os.ErrNotExist)
}

// expect opens our socket unless it is open, and notes who waits for which answer.
func (l *line) expect(to net.Addr, id string) (net.PacketConn, <-chan mi.Reply, error) {
	network := to.Network()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.peer = to.String()
	if l.conn != nil && l.network != network {
		l.conn.Close() // the proxy is elsewhere now
		l.conn = nil
	}
	if l.conn == nil {
		conn, err := l.open(network)
		if err != nil {
			return nil, nil, err
		}
		l.conn, l.network = conn, network
		l.reading.Go(func() { l.read(conn) })
	}
	answer := make(chan mi.Reply, 1)
	l.pending[id] = answer
	return l.conn, answer, nil
}

func (l *line) open(network string) (net.PacketConn, error) {
	if network == "udp" {
		return net.ListenPacket("udp", ":0")
	}
	if err := os.Remove(l.cfg.Local); err != nil && !errors.Is(err, os.ErrNotExist) { // of a former process
		return nil, fmt.Errorf("open our socket for the SIP proxy's answers: %w", err)
	}
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: l.cfg.Local, Net: "unixgram"})
	if err != nil {
		return nil, fmt.Errorf("open our socket for the SIP proxy's answers: %w", err)
	}
	err = os.Chmod(l.cfg.Local, 0o660)
	if l.cfg.Group {
		err = errors.Join(err, os.Chown(l.cfg.Local, -1, l.cfg.GID))
	}
	if err != nil {
		conn.Close()
		return nil, fmt.Errorf("let the SIP proxy answer us: %w", err)
	}
	return conn, nil
}

func (l *line) forget(id string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.pending, id)
}

// read hands answers to those who wait, until the socket is closed.
func (l *line) read(conn net.PacketConn) {
	b := make([]byte, largestReply)
	for {
		n, from, err := conn.ReadFrom(b)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue // ICMP: nobody is there, which whoever waits will find
		}
		if !l.trusted(from) {
			continue
		}
		reply, err := mi.Parse(b[:n])
		if err != nil {
			l.log.Warn("answer of the SIP proxy cannot be read", "error", err, "answer", clip(b[:n]))
			continue
		}
		l.deliver(reply)
	}
}

// trusted says whether a datagram may be an answer. Who may write to our UNIX socket is a
// matter of its mode; to a UDP port anybody may.
func (l *line) trusted(from net.Addr) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.network != "udp" || from.String() == l.peer
}

// deliver matches an answer by its id; one without can only be meant for the one who
// waits alone.
func (l *line) deliver(r mi.Reply) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if r.ID == "" || r.ID == "null" {
		if len(l.pending) != 1 {
			l.log.Warn("the SIP proxy answers to nobody in particular", "code", r.Code, "message", r.Message)
			return
		}
		for id := range l.pending {
			r.ID = id
		}
	}
	if answer, ok := l.pending[r.ID]; ok {
		answer <- r // of room for one, and taken out with the first
		delete(l.pending, r.ID)
		return
	}
	l.log.Debug("the SIP proxy answers late", "code", r.Code, "message", r.Message)
}

func (l *line) close() error {
	l.mu.Lock()
	conn, network := l.conn, l.network
	l.conn = nil
	l.mu.Unlock()
	if conn == nil {
		return nil
	}
	err := conn.Close() // which leaves the file
	l.reading.Wait()
	if network != "udp" {
		err = errors.Join(err, os.Remove(l.cfg.Local))
	}
	return err
}

// hint is what an operator may do.
func (h *Hangup) hint(err error) string {
	switch {
	case errors.Is(err, os.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED):
		return "load mi_datagram (OpenSIPS) or jsonrpcs with its datagram transport (Kamailio), and name their socket in section [Hangup], socket_path"
	case errors.Is(err, os.ErrPermission):
		return "the SIP proxy's socket has to be writable for this program: add its user to the proxy's group"
	case errors.Is(err, errNoAnswer):
		return "the SIP proxy has to be able to write to " + h.cfg.Local + ": set socket_group in section [Dispatcher]"
	}
	return "the SIP proxy needs its module dialog, and dialect in section [Hangup] has to be right"
}

// newID is a number of 32 bits in hexadecimal, as the original's.
func newID() string {
	var b [4]byte
	rand.Read(b[:])
	return strconv.FormatUint(uint64(binary.BigEndian.Uint32(b[:])), 16)
}

func clip(b []byte) string {
	const enough = 200
	return string(b[:min(len(b), enough)])
}
