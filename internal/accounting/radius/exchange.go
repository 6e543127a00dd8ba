package radius

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"syscall"
	"time"

	"layeh.com/radius"
)

// This is the only file that knows the library: it makes packets and checks answers. Sockets
// and time are ours, because its client sends once more than told, takes answers to
// other questions, and says nothing of a wrong secret.

// packet makes an Accounting-Request with an identifier of its own.
func packet(secret Secret, attributes List) ([]byte, error) {
	p := radius.New(radius.CodeAccountingRequest, []byte(secret))
	for _, a := range attributes {
		p.Add(radius.Type(a.Type), radius.Attribute(a.Value))
	}
	return p.Encode()
}

// verdict is what a datagram is to a request.
type verdict uint8

const (
	stranger  verdict = iota // no answer to it
	forged                   // an answer to it, made with another secret
	confirmed                // the server has it
)

// judge looks at a datagram that came where an answer to the request is expected.
func judge(b, request []byte, secret Secret) verdict {
	if len(b) < 20 || b[1] != request[1] || radius.Code(b[0]) != radius.CodeAccountingResponse {
		return stranger
	}
	length := int(binary.BigEndian.Uint16(b[2:]))
	if length < 20 || length > len(b) {
		return stranger
	}
	b = b[:length] // what follows is padding (RFC 2865 section 3)
	if !radius.IsAuthenticResponse(b, request, []byte(secret)) {
		return forged
	}
	if _, err := radius.Parse(b, []byte(secret)); err != nil {
		return stranger
	}
	return confirmed
}

// errSilent is the end of an exchange without an answer.
var errSilent = errors.New("no answer")

// exchange is one request to one address. Each transmission has the same bytes, identifier
// included (RFC 5080 section 2.2.1): a server that has the first and is slow to say so does
// not take the second for another.
type exchange struct {
	bind     netip.Addr
	to       netip.AddrPort
	secret   Secret
	request  []byte
	interval time.Duration
	times    int
	until    time.Time

	sent   int
	forged int        // answers that do not fit the secret
	local  netip.Addr // the server sees it as client, unless there is a NAT
}

// run returns nil once the server has it, errSilent, or what the network said.
func (x *exchange) run(ctx context.Context) error {
	var dialer net.Dialer
	if x.bind.IsValid() {
		dialer.LocalAddr = net.UDPAddrFromAddrPort(netip.AddrPortFrom(x.bind, 0))
	}
	conn, err := dialer.DialContext(ctx, "udp", x.to.String())
	if err != nil {
		return err
	}
	defer conn.Close()
	if a, ok := conn.LocalAddr().(*net.UDPAddr); ok {
		x.local = a.AddrPort().Addr().Unmap()
	}
	defer context.AfterFunc(ctx, func() { conn.SetReadDeadline(time.Unix(1, 0)) })()
	for x.sent < x.times && time.Now().Before(x.until) {
		if _, err := conn.Write(x.request); err != nil {
			return err
		}
		x.sent++
		end := time.Now().Add(x.interval)
		if x.until.Before(end) {
			end = x.until
		}
		if err := conn.SetReadDeadline(end); err != nil {
			return err
		}
		err := ctx.Err() // whose deadline may have been overwritten
		if err == nil {
			err = x.wait(conn)
		}
		switch {
		case ctx.Err() != nil && err != nil:
			return ended(ctx)
		case !errors.Is(err, os.ErrDeadlineExceeded):
			return err
		}
	}
	return errSilent
}

// ended is what the end of a context means: the time was over, or the program stops.
func ended(ctx context.Context) error {
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return errSilent
	}
	return ctx.Err()
}

// wait reads until the answer comes or the time is over.
func (x *exchange) wait(conn net.Conn) error {
	b := make([]byte, radius.MaxPacketLength)
	for {
		n, err := conn.Read(b)
		if err != nil {
			return err
		}
		switch judge(b[:n], x.request, x.secret) {
		case confirmed:
			return nil
		case forged:
			x.forged++
		}
	}
}

// explain says of an exchange that ended without success what an operator can look at.
func (x *exchange) explain(s Server, err error) error {
	name := s.String()
	if x.to.String() != name {
		name += " (" + x.to.String() + ")"
	}
	switch {
	case errors.Is(err, errSilent) && x.forged > 0:
		return fmt.Errorf("RADIUS server %s answers, but with another secret than that in %s, or somebody else answers in its place", name, s.Origin)
	case errors.Is(err, errSilent):
		return fmt.Errorf("no answer from RADIUS server %s to %d transmissions: it is away, or it drops them in silence because its secret is another than that in %s, or because %s is not in its list of clients",
			name, x.sent, s.Origin, x.local)
	case errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Errorf("RADIUS server %s: connection refused: nothing listens on this UDP port there; start it, or correct the port in acctserver", name)
	case errors.Is(err, syscall.EADDRNOTAVAIL) && x.bind.IsValid():
		return fmt.Errorf("RADIUS server %s: bindaddr %s is no address of this host: %w", name, x.bind, err)
	}
	return fmt.Errorf("RADIUS server %s: %w", name, err)
}
