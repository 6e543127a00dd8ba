// Package module speaks to a dispatcher as the SIP proxies' mediaproxy module does:
// one connection per process of the proxy, on it one request at a time, the headers
// and their order those of the modules, including the empty ones. A reply that is
// late ends the connection, as it does there.
package module

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"

	"example.org/mediaproxy/internal/wire/control"
)

// Timeout is the module's default patience.
const Timeout = 500 * time.Millisecond

// ErrRefused is the answer `error`, or any other word that is not an answer.
var ErrRefused = errors.New("refused by the dispatcher")

// Client is one process of a SIP proxy. It is for one goroutine.
type Client struct {
	conn    net.Conn
	in      *bufio.Reader
	timeout time.Duration
}

// Dial connects to a dispatcher's socket.
func Dial(socket string, timeout time.Duration) (*Client, error) {
	conn, err := net.DialTimeout("unix", socket, timeout)
	if err != nil {
		return nil, err
	}
	return &Client{conn: conn, in: bufio.NewReader(conn), timeout: timeout}, nil
}

// Close ends the connection.
func (c *Client) Close() error { return c.conn.Close() }

// Update asks for the ports of an SDP.
func (c *Client) Update(u control.Update) (control.Answer, error) {
	line, err := c.ask(AppendUpdate(nil, u))
	if err != nil {
		return control.Answer{}, fmt.Errorf("update of %s: %w", u.CallID, err)
	}
	answer, err := control.ParseAnswer([]byte(line))
	if err != nil {
		return control.Answer{}, fmt.Errorf("update of %s: answer %q: %w", u.CallID, line, ErrRefused)
	}
	return answer, nil
}

// Remove ends a call.
func (c *Client) Remove(r control.Remove) error {
	line, err := c.ask(AppendRemove(nil, r))
	if err == nil && line != control.ReplyRemoved {
		err = fmt.Errorf("answer %q: %w", line, ErrRefused)
	}
	if err != nil {
		return fmt.Errorf("remove of %s: %w", r.CallID, err)
	}
	return nil
}

func (c *Client) ask(request []byte) (line string, err error) {
	if err := c.conn.SetDeadline(time.Now().Add(c.timeout)); err != nil {
		return "", err
	}
	if _, err := c.conn.Write(request); err != nil {
		c.conn.Close()
		return "", err
	}
	line, err = c.in.ReadString('\n')
	if err != nil {
		c.conn.Close() // a late answer must not be taken for that of the next request
		return "", err
	}
	return strings.TrimRight(line, "\r\n"), nil
}

// AppendUpdate writes an update as the modules do.
func AppendUpdate(dst []byte, u control.Update) []byte {
	kind := "request"
	if u.Kind == control.KindReply {
		kind = "reply"
	}
	signaling := ""
	if u.Signaling.IP.IsValid() {
		signaling = u.Signaling.IP.String()
	}
	dst = append(dst, "update\r\n"...)
	for _, h := range []control.Header{
		{Name: "type", Value: kind},
		{Name: "dialog_id", Value: u.DialogID},
		{Name: "call_id", Value: u.CallID},
		{Name: "cseq", Value: strconv.FormatUint(uint64(u.CSeq), 10)},
		{Name: "from_uri", Value: u.FromURI},
		{Name: "to_uri", Value: u.ToURI},
		{Name: "from_tag", Value: u.FromTag},
		{Name: "to_tag", Value: u.ToTag},
		{Name: "user_agent", Value: u.UserAgent},
		{Name: "signaling_ip", Value: signaling},
		{Name: "media_relay", Value: u.MediaRelay},
	} {
		dst = appendHeader(dst, h.Name, h.Value)
	}
	if u.HasMedia {
		dst = appendHeader(dst, "media", media(u.Media))
	}
	return append(dst, "\r\n"...)
}

// AppendRemove writes a remove as the modules do.
func AppendRemove(dst []byte, r control.Remove) []byte {
	dst = append(dst, "remove\r\n"...)
	dst = appendHeader(dst, "call_id", r.CallID)
	dst = appendHeader(dst, "from_tag", r.FromTag)
	dst = appendHeader(dst, "to_tag", r.ToTag)
	return append(dst, "\r\n"...)
}

func appendHeader(dst []byte, name, value string) []byte {
	return append(append(append(append(dst, name...), ": "...), value...), "\r\n"...)
}

func media(list []control.Media) string {
	streams := make([]string, len(list))
	for i, m := range list {
		ice := "no"
		if m.ICE {
			ice = "yes"
		}
		streams[i] = fmt.Sprintf("%s:%s:%d:%s:ice=%s", m.Type, m.Addr, m.Port, m.Direction, ice)
	}
	return strings.Join(streams, ",")
}
