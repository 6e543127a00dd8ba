package main

import (
	"bytes"
	"fmt"
	"net/netip"
	"os/exec"
	"strings"

	"example.org/mediaproxy/test/bench/traffic"
)

// nat moves media by conntrack entries that translate both addresses both ways,
// as the original relay does; rules make the entries.
type nat struct {
	bed   *traffic.Bed
	dest  strings.Builder // elements of the maps
	local strings.Builder
	next  uint16
}

func (n *nat) setUp(_ string, caller, callee netip.AddrPort) (c callPorts, err error) {
	c.fromCaller = netip.AddrPortFrom(traffic.RelayAddr, relayPorts+4*n.next)
	c.fromCallee = netip.AddrPortFrom(traffic.RelayAddr, relayPorts+4*n.next+2)
	n.next++
	// What comes to the caller's port goes on to the callee, from the port that the
	// callee sends to. The entry serves the other direction, too.
	fmt.Fprintf(&n.dest, "%d : %s . %d,\n", c.fromCaller.Port(), callee.Addr(), callee.Port())
	fmt.Fprintf(&n.local, "%s . %d : %s . %d,\n", callee.Addr(), callee.Port(), traffic.RelayAddr, c.fromCallee.Port())
	return c, nil
}

func (n *nat) tearDown(string) error { return nil }

// install loads the rules. Checksums are not looked at, as behind a device that does.
func (n *nat) install() error {
	rules := fmt.Sprintf(`table ip bench {
		map dest { type inet_service : ipv4_addr . inet_service; elements = { %s } }
		map local { type ipv4_addr . inet_service : ipv4_addr . inet_service; elements = { %s } }
		chain in { type nat hook prerouting priority dstnat; dnat ip to udp dport map @dest; }
		chain out { type nat hook postrouting priority srcnat; snat ip to ip daddr . udp dport map @local; }
	}`, n.dest.String(), n.local.String())
	return n.bed.In(func() error {
		for name, value := range map[string]string{"ipv4/ip_forward": "1", "netfilter/nf_conntrack_checksum": "0"} {
			if err := traffic.Sysctl(name, value); err != nil {
				return err
			}
		}
		cmd := exec.Command("nft", "-f", "-")
		cmd.Stdin = strings.NewReader(rules)
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("load the NAT rules: %w: %s", err, bytes.TrimSpace(out))
		}
		return nil
	})
}
