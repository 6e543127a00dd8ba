package main

import (
	"bufio"
	"fmt"
	"net"
	"net/netip"
	"strings"

	"example.org/mediaproxy/internal/wire/control"
)

// phones is the address of all phones on loopback; it is not the relay's.
var phones = netip.MustParseAddr("127.0.0.2")

// onLoopback is a phone of which only the port matters.
func onLoopback(port uint16) netip.AddrPort { return netip.AddrPortFrom(phones, port) }

const (
	callerTag = "a1b2c3d4e5"
	calleeTag = "f6a7b8c9d0"
)

// update is the request for one SIP message of a call with one audio stream.
func update(callID string, kind control.Kind, phone netip.AddrPort) []byte {
	u := control.Update{
		Kind: kind, CallID: callID, FromTag: callerTag, CSeq: 1,
		FromURI: "alice@example.com", ToURI: "bob@example.net", UserAgent: "Phone/1.0",
		Signaling: control.Signaling{IP: phone.Addr()},
		HasMedia:  true, Media: []control.Media{{Type: "audio", Addr: phone.Addr(), Port: phone.Port(), Direction: "sendrecv"}},
	}
	if kind == control.KindReply {
		u.ToTag = calleeTag
	}
	return control.Append(nil, control.Request{Command: control.CommandUpdate, Headers: u.Headers()})
}

func remove(callID string) []byte {
	r := control.Remove{CallID: callID, FromTag: callerTag, ToTag: calleeTag}
	return control.Append(nil, control.Request{Command: control.CommandRemove, Headers: r.Headers()})
}

// proxy is one connection of a SIP proxy to the module's socket.
type proxy struct {
	net.Conn
	r *bufio.Reader
}

func dialProxy(socket string) (*proxy, error) {
	c, err := net.Dial("unix", socket)
	if err != nil {
		return nil, err
	}
	return &proxy{c, bufio.NewReader(c)}, nil
}

func dialProxies(socket string, n int) ([]*proxy, error) {
	var out []*proxy
	for range n {
		p, err := dialProxy(socket)
		if err != nil {
			closeAll(out)
			return nil, err
		}
		out = append(out, p)
	}
	return out, nil
}

func closeAll(proxies []*proxy) {
	for _, p := range proxies {
		p.Close()
	}
}

// reply reads one reply, without its line end. The word error is an error.
func (p *proxy) reply() (string, error) {
	line, err := p.r.ReadString('\n')
	line = strings.TrimRight(line, "\r\n")
	if err == nil && strings.HasPrefix(line, control.ReplyError) {
		err = fmt.Errorf("the dispatcher answered %q", line)
	}
	return line, err
}

func (p *proxy) do(request []byte) (string, error) {
	if _, err := p.Write(request); err != nil {
		return "", err
	}
	return p.reply()
}

// port does an update and returns the relay's port.
func (p *proxy) port(request []byte) (netip.AddrPort, error) {
	line, err := p.do(request)
	if err != nil {
		return netip.AddrPort{}, err
	}
	a, err := control.ParseAnswer([]byte(line))
	if err != nil {
		return netip.AddrPort{}, err
	}
	if len(a.Ports) != 1 || a.Ports[0] == 0 {
		return netip.AddrPort{}, fmt.Errorf("the dispatcher answered %q, want an address and a port", line)
	}
	return netip.AddrPortFrom(a.IP, a.Ports[0]), nil
}
