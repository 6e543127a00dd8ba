package media

import (
	"fmt"
	"net"
	"net/netip"
)

// FacingAddress asks the routing table which of this host's addresses is used to
// reach a party. No datagram is sent.
func FacingAddress(party netip.Addr) (netip.Addr, error) {
	c, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(netip.AddrPortFrom(party, 9)))
	if err != nil {
		return netip.Addr{}, fmt.Errorf("find the address that faces %s: %w", party, err)
	}
	defer c.Close()
	return c.LocalAddr().(*net.UDPAddr).AddrPort().Addr().Unmap(), nil
}
