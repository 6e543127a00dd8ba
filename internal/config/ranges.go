package config

import (
	"errors"
	"net/netip"
	"strings"
)

// ranges is a list of networks; the word none is an empty one.
var ranges = kind[[]netip.Prefix]{
	word: "list of networks",
	parse: func(s string) ([]netip.Prefix, error) {
		if strings.EqualFold(s, "none") {
			return nil, nil
		}
		return listOf(s, parseRange)
	},
	print: func(list []netip.Prefix) string { return printList(list, netip.Prefix.String) },
}

// parseRange reads a network or a single address. Bits behind the prefix are dropped.
func parseRange(s string) (netip.Prefix, error) {
	wrong := errors.New("want a network as in 10.0.0.0/8 or an address")
	if ip, err := netip.ParseAddr(s); err == nil && ip.Zone() == "" {
		ip = ip.Unmap()
		return netip.PrefixFrom(ip, ip.BitLen()), nil
	}
	p, err := netip.ParsePrefix(s)
	if err != nil {
		return p, wrong
	}
	if p.Addr().Is4In6() {
		if p.Bits() < 96 {
			return p, wrong
		}
		p = netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
	}
	return p.Masked(), nil
}
