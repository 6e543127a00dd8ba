package config

import (
	"errors"
	"net/netip"
	"strconv"
	"strings"
	"unicode"
)

// DispatcherPort is where dispatchers listen for relays unless told otherwise.
const DispatcherPort = 25060

// A HostPort names a dispatcher: an address, or a name to be looked up.
type HostPort struct {
	Host string // an IPv6 address stands without brackets
	Port uint16
}

// String prints host:port, brackets around an IPv6 address.
func (h HostPort) String() string {
	host := h.Host
	if strings.Contains(host, ":") {
		host = "[" + host + "]"
	}
	return host + ":" + strconv.Itoa(int(h.Port))
}

// hosts is a list of dispatchers.
var hosts = kind[[]HostPort]{
	word:  "list of host[:port]",
	parse: func(s string) ([]HostPort, error) { return listOf(s, parseHost) },
	print: func(list []HostPort) string { return printList(list, HostPort.String) },
}

func parseHost(s string) (HostPort, error) {
	wrong := errors.New("want host[:port]; an IPv6 address with a port needs brackets")
	if ip, err := netip.ParseAddr(strings.Trim(s, "[]")); err == nil {
		return HostPort{ip.Unmap().String(), DispatcherPort}, nil
	}
	host, port, found := cutPort(s)
	number := uint64(DispatcherPort)
	if found {
		n, err := strconv.ParseUint(port, 10, 16)
		if err != nil || n == 0 {
			return HostPort{}, wrong
		}
		number = n
	}
	if inner, ok := strings.CutPrefix(host, "["); ok {
		ip, err := netip.ParseAddr(strings.TrimSuffix(inner, "]"))
		if err != nil {
			return HostPort{}, wrong
		}
		return HostPort{ip.Unmap().String(), uint16(number)}, nil
	}
	bad := func(r rune) bool {
		return r > unicode.MaxASCII || !unicode.IsGraphic(r) || strings.ContainsRune(`:[]/@"'`, r)
	}
	if host == "" || len(host) > 253 || strings.ContainsFunc(host, bad) {
		return HostPort{}, wrong
	}
	return HostPort{host, uint16(number)}, nil
}
