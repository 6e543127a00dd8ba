package config

import (
	"errors"
	"net/netip"
)

// addresses is a list of IP addresses of this host, at most one of each family.
var addresses = kind[[]netip.Addr]{
	word:  "ip, or one IPv4 and one IPv6",
	parse: ParseAddresses,
	print: func(list []netip.Addr) string { return printList(list, netip.Addr.String) },
}

// ParseAddresses reads a list of at most one IPv4 and one IPv6 address.
func ParseAddresses(s string) ([]netip.Addr, error) {
	list, err := listOf(s, func(item string) (netip.Addr, error) {
		ip, err := netip.ParseAddr(item)
		if err != nil {
			return ip, errors.New("want an IPv4 or IPv6 address")
		}
		ip = ip.Unmap()
		if ip.IsUnspecified() || ip.IsMulticast() {
			return ip, errors.New("want an address of this host; leave the setting out to have it found")
		}
		return ip, nil
	})
	if err != nil {
		return nil, err
	}
	if len(list) > 2 || len(list) == 2 && list[0].Is4() == list[1].Is4() {
		return nil, errors.New("want at most one IPv4 and one IPv6 address")
	}
	return list, nil
}
