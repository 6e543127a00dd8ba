package forward

import (
	"net/netip"
	"testing"
)

// Two relays on the same devices, with ports of their own, do not take each other's
// place in the kernel; what one leaves behind is not the other's business.
func TestTwoRelaysOnOneHost(t *testing.T) {
	for _, level := range []string{best, "clsact and sk_lookup"} {
		t.Run(level, func(t *testing.T) {
			n := newNetwork(t)
			var tables [2]Table
			var calls [2]*call
			for i := range tables {
				tables[i] = openLevel(t, level, Config{Pins: pins(t)})
				c := &call{table: tables[i], caller: n.caller.phone(addresses4.caller), callee: n.callee.phone(addresses4.callee), forth: &leg{}, back: &leg{}}
				c.open(t, func(a netip.AddrPort, group uint32, h Handler) (Port, error) {
					return tables[i].Open(netip.AddrPortFrom(a.Addr(), a.Port()+uint16(100*i)), group, h)
				}, addresses4)
				calls[i] = c
			}
			for i, c := range calls {
				c.settle(t, tables[i], 0)
			}
			tables[1].Close()
			calls[0].settle(t, tables[0], 1000)
		})
	}
}
