package netlab

import (
	"encoding/json"
	"fmt"
	"net/netip"
)

// Meter counts what comes to a host from an address, ICMP apart, whatever port it is
// for and whether or not a socket is open there.
type Meter struct {
	host *Host
	name string
}

// Meter begins counting.
func (h *Host) Meter(name string, from netip.Addr) *Meter {
	h.t.Helper()
	h.NFT(fmt.Sprintf(`table ip %[1]s {
		counter %[1]s { }
		chain in { type filter hook prerouting priority raw; policy accept; ip saddr %[2]s ip protocol != icmp counter name %[1]s; }
	}`, name, from))
	return &Meter{h, name}
}

// Packets is the count so far.
func (m *Meter) Packets() uint64 {
	m.host.t.Helper()
	text := m.host.Output("", "nft", "-j", "list", "counter", "ip", m.name, m.name)
	var doc struct {
		Nftables []struct {
			Counter *struct {
				Packets uint64 `json:"packets"`
			} `json:"counter"`
		} `json:"nftables"`
	}
	if err := json.Unmarshal([]byte(text), &doc); err != nil {
		m.host.t.Fatalf("read counter %s on %s: %v: %s", m.name, m.host.name, err, text)
	}
	for _, n := range doc.Nftables {
		if n.Counter != nil {
			return n.Counter.Packets
		}
	}
	m.host.t.Fatalf("counter %s on %s is missing: %s", m.name, m.host.name, text)
	return 0
}
