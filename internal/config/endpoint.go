package config

import (
	"errors"
	"net/netip"
	"strconv"
	"strings"
)

// endpoint is where a server listens: `ip`, `ip:port`, `[ip6]:port`, `any`, `any:port`
// or `default`. What is left out comes from def.
func endpoint(def netip.AddrPort) kind[netip.AddrPort] {
	return kind[netip.AddrPort]{
		word:  "ip[:port]",
		parse: func(s string) (netip.AddrPort, error) { return parseEndpoint(s, def) },
		print: netip.AddrPort.String,
	}
}

func parseEndpoint(s string, def netip.AddrPort) (netip.AddrPort, error) {
	wrong := errors.New("want ip[:port], any[:port] or default; an IPv6 address with a port needs brackets")
	if strings.EqualFold(s, "default") {
		return def, nil
	}
	if ip, err := netip.ParseAddr(strings.Trim(s, "[]")); err == nil {
		return netip.AddrPortFrom(ip.Unmap(), def.Port()), nil
	}
	host, port, found := cutPort(s)
	number := uint64(def.Port())
	if found {
		n, err := strconv.ParseUint(port, 10, 16)
		if err != nil {
			return netip.AddrPort{}, wrong
		}
		number = n
	}
	if strings.EqualFold(host, "any") {
		return netip.AddrPortFrom(netip.IPv4Unspecified(), uint16(number)), nil
	}
	ip, err := netip.ParseAddr(strings.Trim(host, "[]"))
	if err != nil {
		return netip.AddrPort{}, wrong
	}
	return netip.AddrPortFrom(ip.Unmap(), uint16(number)), nil
}

// cutPort splits at the last colon that is not part of a bracketed address.
func cutPort(s string) (host, port string, found bool) {
	i := strings.LastIndexByte(s, ':')
	if i < 0 || strings.HasSuffix(s, "]") {
		return s, "", false
	}
	return s[:i], s[i+1:], true
}
