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

// hosts is a list of dispatchers: addresses or names, with or without a port. They stay
// as written, because a port that was left out may come from the name service.
var hosts = kind[[]string]{
	word:  "list of host[:port]",
	parse: func(s string) ([]string, error) { return listOf(s, parseHost) },
	print: words.print,
}

func parseHost(s string) (string, error) {
	wrong := errors.New("want host[:port]; an IPv6 address with a port needs brackets")
	if _, err := netip.ParseAddr(strings.Trim(s, "[]")); err == nil {
		return s, nil
	}
	host, port, found := cutPort(s)
	if found {
		if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
			return "", wrong
		}
	}
	if inner, ok := strings.CutPrefix(host, "["); ok {
		if _, err := netip.ParseAddr(strings.TrimSuffix(inner, "]")); err != nil {
			return "", wrong
		}
		return s, nil
	}
	bad := func(r rune) bool {
		return r > unicode.MaxASCII || !unicode.IsGraphic(r) || strings.ContainsRune(`:[]/@"'`, r)
	}
	if host == "" || len(host) > 253 || strings.ContainsFunc(host, bad) {
		return "", wrong
	}
	return s, nil
}
