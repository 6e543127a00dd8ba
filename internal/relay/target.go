package relay

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// DefaultPort is where a dispatcher listens for relays unless an entry says
// otherwise.
const DefaultPort = 25060

// target is one entry of the `dispatchers` setting: an address, or a name that
// has to be looked up.
type target struct {
	text     string     // as configured, for logs
	addr     netip.Addr // valid: a literal
	name     string     // else this
	port     uint16
	explicit bool // the entry named its port
}

// parseTarget reads `host`, `host:port`, an IPv6 address with or without
// brackets, or `[address]:port`.
func parseTarget(text string) (target, error) {
	t := target{text: text, port: DefaultPort}
	if addr, err := netip.ParseAddr(strings.Trim(text, "[]")); err == nil {
		t.addr = addr.Unmap()
		return t, nil
	}
	host, port, found := text, "", false
	if i := strings.LastIndexByte(text, ':'); i >= 0 {
		host, port, found = text[:i], text[i+1:], true
	}
	if found {
		n, err := strconv.ParseUint(port, 10, 16)
		if err != nil || n == 0 {
			return target{}, fmt.Errorf("dispatcher %q: port %q is not a number from 1 to 65535", text, port)
		}
		t.port, t.explicit = uint16(n), true
	}
	if addr, err := netip.ParseAddr(strings.Trim(host, "[]")); err == nil {
		t.addr = addr.Unmap()
		return t, nil
	}
	host = strings.TrimSuffix(host, ".")
	if host == "" || strings.ContainsAny(host, " \t:/[]") {
		return target{}, fmt.Errorf("dispatcher %q is neither an address nor a host name; write host, host:port or [IPv6]:port", text)
	}
	t.name = host
	return t, nil
}

// choice remembers, for one target, where its dispatcher may be found and
// which of these places is in use.
type choice struct {
	target     target
	candidates []netip.AddrPort // best first; the last good answer
	current    netip.AddrPort   // one of candidates, or zero before the first answer
	tried      map[netip.AddrPort]bool
	problem    string // last look-up failure, to log changes only
}

// found takes a new answer of the resolver. The place in use stays in use
// while the answer still lists it: look-ups return equal choices in random
// order, and a link is not to move with each of them.
func (c *choice) found(candidates []netip.AddrPort) {
	c.candidates = candidates
	for _, a := range candidates {
		if a == c.current {
			return
		}
	}
	c.tried = nil
	c.current = netip.AddrPort{}
	if len(candidates) > 0 {
		c.current = candidates[0]
	}
}

// unreachable notes that no connection to addr could be made and moves on to
// the next place, if there is one that was not tried since the last success.
// When all were tried it stays, so that each round of all places costs at
// least one reconnect delay. It reports whether the place in use changed.
func (c *choice) unreachable(addr netip.AddrPort) bool {
	if addr != c.current || len(c.candidates) < 2 {
		return false
	}
	if c.tried == nil {
		c.tried = make(map[netip.AddrPort]bool)
	}
	c.tried[addr] = true
	for _, a := range c.candidates {
		if !c.tried[a] {
			c.current = a
			return true
		}
	}
	c.tried = nil
	return false
}

// reached notes a connection to addr.
func (c *choice) reached(addr netip.AddrPort) {
	if addr == c.current {
		c.tried = nil
	}
}
