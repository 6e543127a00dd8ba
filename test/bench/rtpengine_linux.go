package main

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// engine is an rtpengine without its kernel module, driven by its ng protocol:
// UDP datagrams of a cookie, a space and a bencoded dictionary.
type engine struct {
	*process
	place
	conn net.Conn
	seq  int
}

func startEngine(s *settings, at place, more ...string) (*engine, error) {
	e := &engine{place: at}
	var address string
	// Ours is connected while the engine's port is still held, or it could get that very one.
	err := at.do(func() error {
		l, err := net.ListenPacket("udp4", "127.0.0.1:0")
		if err != nil {
			return err
		}
		defer l.Close()
		address = l.LocalAddr().String()
		e.conn, err = net.Dial("udp4", address)
		return err
	})
	if err != nil {
		return nil, err
	}
	e.process, err = at.start(s.rtpengine, append(more, "--config-file=none", "--table=-1", "--interface="+at.addr().String(), "--listen-ng="+address,
		fmt.Sprintf("--port-min=%d", enginePorts), fmt.Sprintf("--port-max=%d", enginePortsEnd),
		"--foreground", "--log-stderr", "--log-level=3")...)
	if err != nil {
		e.conn.Close()
		return nil, fmt.Errorf("%w (test/setup/install.sh bench installs it)", err)
	}
	err = e.process.until("answer to a ping", func() bool {
		_, err := e.ask(200*time.Millisecond, "command", "ping")
		return err == nil
	})
	if err != nil {
		e.stop()
		return nil, err
	}
	return e, nil
}

func (e *engine) stop() {
	e.conn.Close()
	e.process.stop()
}

// ask sends one command, a list of keys and values, and returns the answer's strings.
func (e *engine) ask(patience time.Duration, pairs ...string) (map[string]string, error) {
	e.seq++
	cookie := fmt.Sprintf("bench_%d ", e.seq)
	b := append([]byte(cookie), 'd')
	for _, text := range pairs {
		b = appendBencoded(b, text)
	}
	if _, err := e.conn.Write(append(b, 'e')); err != nil {
		return nil, err
	}
	e.conn.SetReadDeadline(time.Now().Add(patience))
	buf := make([]byte, 1<<16)
	for {
		n, err := e.conn.Read(buf)
		if err != nil {
			return nil, err
		}
		if answer, ok := strings.CutPrefix(string(buf[:n]), cookie); ok {
			return bencodedStrings(answer)
		}
	}
}

var audioPort = regexp.MustCompile(`(?m)^m=audio ([0-9]+) `)

// describe offers or answers and returns the port of the SDP that comes back.
func (e *engine) describe(command, callID string, phone netip.AddrPort, more ...string) (netip.AddrPort, error) {
	sdp := fmt.Sprintf("v=0\r\no=- 1 1 IN IP4 %[1]s\r\ns=-\r\nc=IN IP4 %[1]s\r\nt=0 0\r\nm=audio %[2]d RTP/AVP 8\r\na=rtpmap:8 PCMA/8000\r\na=sendrecv\r\n", phone.Addr(), phone.Port())
	answer, err := e.ask(time.Second, append([]string{"call-id", callID, "command", command, "from-tag", callerTag, "sdp", sdp}, more...)...)
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("rtpengine: %s: %w", command, err)
	}
	m := audioPort.FindStringSubmatch(answer["sdp"])
	if answer["result"] != "ok" || m == nil {
		return netip.AddrPort{}, fmt.Errorf("rtpengine: %s: answered %q", command, answer)
	}
	n, err := strconv.ParseUint(m[1], 10, 16)
	return netip.AddrPortFrom(e.addr(), uint16(n)), err
}

func (e *engine) setUp(callID string, caller, callee netip.AddrPort) (c callPorts, err error) {
	if c.fromCallee, err = e.describe("offer", callID, caller); err != nil {
		return c, err
	}
	c.fromCaller, err = e.describe("answer", callID, callee, "to-tag", calleeTag)
	return c, err
}

func (e *engine) tearDown(callID string) error {
	answer, err := e.ask(time.Second, "call-id", callID, "command", "delete", "delete-delay", "0", "from-tag", callerTag)
	if err == nil && answer["result"] != "ok" {
		err = fmt.Errorf("rtpengine: delete: answered %q", answer)
	}
	return err
}

func appendBencoded(dst []byte, s string) []byte {
	dst = strconv.AppendInt(dst, int64(len(s)), 10)
	return append(append(dst, ':'), s...)
}

// bencodedStrings reads the strings of a dictionary and skips its other values.
func bencodedStrings(s string) (map[string]string, error) {
	out := map[string]string{}
	s, ok := strings.CutPrefix(s, "d")
	for ok && s != "e" {
		var key string
		if key, s, ok = bencodedString(s); !ok {
			break
		}
		if value, rest, isString := bencodedString(s); isString {
			out[key], s = value, rest
			continue
		}
		s, ok = skipBencoded(s)
	}
	if !ok {
		return nil, errors.New("rtpengine's answer is not a dictionary")
	}
	return out, nil
}

func bencodedString(s string) (value, rest string, ok bool) {
	length, rest, ok := strings.Cut(s, ":")
	n, err := strconv.Atoi(length)
	if !ok || err != nil || n < 0 || n > len(rest) {
		return "", "", false
	}
	return rest[:n], rest[n:], true
}

// skipBencoded returns what follows a number, a list or a dictionary.
func skipBencoded(s string) (rest string, ok bool) {
	if strings.HasPrefix(s, "i") {
		_, rest, ok = strings.Cut(s, "e")
		return rest, ok
	}
	if s == "" || s[0] != 'l' && s[0] != 'd' {
		_, rest, ok = bencodedString(s)
		return rest, ok
	}
	for s = s[1:]; !strings.HasPrefix(s, "e"); {
		if s, ok = skipBencoded(s); !ok {
			return "", false
		}
	}
	return s[1:], true
}
