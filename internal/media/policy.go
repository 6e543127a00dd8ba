package media

import "net/netip"

// Ranks of a source. A lower number has the better standing.
const (
	rankSDP    = 1 // the address and port of the SDP
	rankKnown  = 2 // the IP of the SDP or the signalling, or a trusted network
	rankNearby = 3 // the network of a known IP
	rankOther  = 4
)

// Networks that say nothing about where a party is: nearby means the same /24
// or /56, what one site or one NAT pool usually has.
const (
	nearbyBits4 = 24
	nearbyBits6 = 56
)

// unroutable are the networks in which an address of an SDP is not used unheard
// (IANA special-purpose registries, RFC 6890).
var unroutable = prefixes(
	"0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24",
	"192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24",
	"224.0.0.0/4", "240.0.0.0/4",
	"::/127", "::ffff:0:0/96", "100::/64", "2001:db8::/32", "fc00::/7", "fe80::/10", "ff00::/8",
)

func prefixes(texts ...string) []netip.Prefix {
	out := make([]netip.Prefix, len(texts))
	for i, t := range texts {
		out[i] = netip.MustParsePrefix(t)
	}
	return out
}

func contains(ranges []netip.Prefix, a netip.Addr) bool {
	for _, p := range ranges {
		if p.Contains(a) {
			return true
		}
	}
	return false
}

func sameNetwork(a, b netip.Addr) bool {
	if !a.IsValid() || !b.IsValid() || a.Is4() != b.Is4() {
		return false
	}
	bits := nearbyBits6
	if a.Is4() {
		bits = nearbyBits4
	}
	p, err := a.Prefix(bits)
	return err == nil && p.Contains(b)
}

var broadcast = netip.AddrFrom4([4]byte{255, 255, 255, 255})

// usable says whether media may go to an address at all. local is the relay's
// own address on that leg.
func (e *Engine) usable(a netip.AddrPort, local netip.Addr) bool {
	ip := a.Addr()
	if !ip.IsValid() || a.Port() == 0 || ip.Is4() != local.Is4() || ip.IsUnspecified() || ip.IsMulticast() || ip == broadcast {
		return false
	}
	if ip.IsLoopback() && !local.IsLoopback() || ip.IsLinkLocalUnicast() && !local.IsLinkLocalUnicast() {
		return contains(e.cfg.RoutableRanges, ip)
	}
	return true
}

// routable says whether an SDP address may be sent to before anything was heard
// from it.
func (e *Engine) routable(a netip.AddrPort, local netip.Addr) bool {
	if !e.usable(a, local) {
		return false
	}
	ip := a.Addr()
	if contains(e.cfg.RoutableRanges, ip) || ip.IsLoopback() || ip.IsLinkLocalUnicast() {
		return true // usable has looked at the latter two
	}
	return !contains(unroutable, ip)
}
