package forward

import (
	"net"
	"net/netip"
	"testing"
	"time"
)

// settle talks until both directions are moved in the kernel with next hops that it
// knows, and returns the next sequence number.
func (c *call) settle(t testing.TB, table Table, seq uint16) uint16 {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); ; {
		before := table.Stats()
		c.talk(t, seq)
		seq++
		if s := table.Stats(); s.Kernel.Packets == before.Kernel.Packets+2 && s.Kernel.Searched == before.Kernel.Searched {
			return seq
		} else if time.Now().After(deadline) {
			t.Fatalf("not moved with known next hops: %+v, then %+v", before.Kernel, s.Kernel)
		}
	}
}

// flows sends packets of the caller until one arrives that the kernel moved: while
// the network changes some are lost.
func (c *call) flows(t testing.TB, table Table, what string) {
	t.Helper()
	c.caller.SetReadDeadline(time.Now())
	b := make([]byte, 1<<16)
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); {
		before := table.Stats().Kernel.Packets
		c.caller.WriteToUDPAddrPort(rtpPacket(1, 7), c.a.Local())
		c.callee.SetReadDeadline(time.Now().Add(20 * time.Millisecond))
		if _, _, err := c.callee.ReadFromUDPAddrPort(b); err == nil && table.Stats().Kernel.Packets > before {
			return
		}
	}
	t.Fatalf("%s: nothing arrives through the kernel; %+v, %+v", what, table.Stats(), c.a.Counters())
}

// A relay with one address is reached through another device, too.
func TestMediaFromADeviceWithoutAnAddressOfTheRelay(t *testing.T) {
	for _, level := range []string{best, "clsact and a socket for each port"} {
		for family, at := range families {
			t.Run(level+"/"+family, func(t *testing.T) {
				n := newNetwork(t)
				n.caller.ip("route add " + at.right.String() + " via " + at.left.String())
				at.left = at.right
				table := openLevel(t, level, Config{Locals: []netip.Addr{at.right}})
				c := newCall(t, n, table, at)
				c.settle(t, table, 0)
			})
		}
	}
}

// A phone that gets another network card has another address there.
func TestNextHopFollowsItsNeighbour(t *testing.T) {
	for family, at := range families {
		t.Run(family, func(t *testing.T) {
			n := newNetwork(t)
			table := openLevel(t, best, Config{})
			c := newCall(t, n, table, at)
			c.settle(t, table, 0)
			n.callee.setting("ipv4/conf/up0/arp_notify", "1")
			n.callee.setting("ipv6/conf/up0/ndisc_notify", "1")
			n.callee.ip("link set up0 address 02:00:00:00:00:77")
			watch := n.callee.capture("up0")
			c.flows(t, table, "after another link-layer address")
			for range 100 {
				f := watch.next(addrOf(c.callee).Port())
				if net.HardwareAddr(f.bytes[:6]).String() == "02:00:00:00:00:77" {
					return
				}
			}
			t.Error("packets still go to the former link-layer address")
		})
	}
}

// secondWay gives the callee an address behind two cables.
func secondWay(t *testing.T, n *network) {
	t.Helper()
	n.cable("spare", n.callee, "up1")
	relayIP(t, "addr add 10.3.0.1/24 dev spare", "addr add fd03::1/64 dev spare nodad",
		"route add 10.9.0.9/32 via 10.2.0.2 dev right", "route add fd09::9/128 via fd02::2 dev right")
	n.callee.ip("addr add 10.3.0.2/24 dev up1", "addr add fd03::2/64 dev up1 nodad",
		"addr add 10.9.0.9/32 dev lo", "addr add fd09::9/128 dev lo",
		"route add default via 10.2.0.1", "route add default via fd02::1")
	n.callee.setting("ipv4/conf/all/rp_filter", "0")
	n.callee.setting("ipv4/conf/up1/rp_filter", "0")
}

// A flow leaves where the host's routes lead, also when they change.
func TestFlowsFollowRoutes(t *testing.T) {
	for family, at := range families {
		t.Run(family, func(t *testing.T) {
			n := newNetwork(t)
			secondWay(t, n)
			at.callee = addr(map[string]string{"IPv4": "10.9.0.9", "IPv6": "fd09::9"}[family])
			table := openLevel(t, best, Config{})
			c := newCall(t, n, table, at)
			c.settle(t, table, 0)
			watch := n.callee.capture("up1")
			relayIP(t, "route replace 10.9.0.9/32 via 10.3.0.2 dev spare", "route replace fd09::9/128 via fd03::2 dev spare")
			eventually(t, "the kernel sends through the other device", func() bool {
				before := table.Stats().Kernel.Packets
				c.talk(t, 1)
				return table.Stats().Kernel.Packets == before+2 && watch.seen(addrOf(c.callee).Port())
			})
		})
	}
}

// Without a route nothing can be sent; when it comes back the kernel has the flow
// again.
func TestFlowsSurviveTheirDevices(t *testing.T) {
	for family, at := range families {
		t.Run(family, func(t *testing.T) {
			n := newNetwork(t)
			table := openLevel(t, best, Config{})
			c := newCall(t, n, table, at)
			c.settle(t, table, 0)

			relayIP(t, "link set right down")
			eventually(t, "the kernel has no way", func() bool { return c.a.Counters().NotKernel != "" })
			relayIP(t, "link set right up")
			relayIP(t, "addr replace fd02::1/64 dev right nodad") // IPv6 addresses leave with the device
			c.flows(t, table, "after the way out was down")

			relayIP(t, "link del right")
			n.cable("right", n.callee, "up0")
			n.callee.ip("addr add 10.2.0.2/24 dev up0", "addr add fd02::2/64 dev up0 nodad")
			n.address("right")
			c.flows(t, table, "after the device of the way out was made anew")

			relayIP(t, "link del left")
			n.cable("left", n.caller, "up0")
			n.caller.ip("addr add 10.1.0.2/24 dev up0", "addr add fd01::2/64 dev up0 nodad")
			n.address("left")
			c.flows(t, table, "after the device of the way in was made anew")
			if hooks := table.(*steered).kernel.hooks.names(); hooks != "left right" {
				t.Errorf("the program runs on %q", hooks)
			}
		})
	}
}

// A party on the relay's own host, or in another family, is served in user space, and
// the port says why.
func TestWhyNotTheKernel(t *testing.T) {
	newNetwork(t)
	table := openLevel(t, best, Config{})
	open := func(a netip.Addr, port uint16) Port {
		p, err := table.Open(netip.AddrPortFrom(a, port), 1, handlerFunc(refuse))
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	a4, b4, b6 := open(addresses4.left, 30000), open(addresses4.right, 30002), open(addresses6.right, 30004)
	there := func(a netip.Addr) netip.AddrPort { return netip.AddrPortFrom(a, 4000) }
	for _, c := range []struct {
		name string
		flow Flow
		want error
	}{
		{"both outside", Flow{there(addresses4.caller), b4, there(addresses4.callee)}, nil},
		{"other family", Flow{there(addresses4.caller), b6, there(addresses6.callee)}, errFamilies},
		{"caller here", Flow{there(addresses4.right), b4, there(addresses4.callee)}, errLocalParty},
		{"callee here", Flow{there(addresses4.caller), b4, there(addresses4.left)}, errLocalParty},
		{"callee on loopback", Flow{there(addresses4.caller), b4, there(addr("127.0.0.1"))}, errLocalParty},
		{"no route", Flow{there(addresses4.caller), b4, there(addr("192.0.2.1"))}, errNoRoute},
		{"broadcast", Flow{there(addresses4.caller), b4, there(addr("10.2.0.255"))}, errNoEthernet},
	} {
		a4.Install(c.flow)
		want, mover := "", MoverKernel
		if c.want != nil {
			want, mover = c.want.Error(), MoverUser
		}
		if got := a4.Counters(); got.NotKernel != want || got.Mover != mover {
			t.Errorf("%s: moved by %s because of %q, want %s and %q", c.name, got.Mover, got.NotKernel, mover, want)
		}
	}
}

// Phones come and go on a large Ethernet; only those with a flow need an entry.
func TestNextHopsAreReused(t *testing.T) {
	records := make([]record, 100)
	m := &memory{records: records}
	h := hops{mem: make([]hop, 8), byKey: map[hopKey]uint16{}, inUse: m.hops, routes: map[routeKey]route{}}
	neighbour := func(n int) hopKey { return hopKey{1, stranger(addr("192.0.2.1"), n)} }
	kept, err := h.hopLocked(neighbour(0))
	if err != nil {
		t.Fatal(err)
	}
	records[7].decide(flowLine{hop: kept}, 4)
	for n := range 200 {
		if _, err := h.hopLocked(neighbour(n)); err != nil {
			t.Fatalf("neighbour %d: %v", n, err)
		}
	}
	if again, _ := h.hopLocked(neighbour(0)); again != kept || addrOfRaw(h.mem[kept].gateway, 4) != neighbour(0).gateway {
		t.Errorf("a hop in use moved from %d to %d", kept, again)
	}
	for n := range 7 {
		records[n+10].decide(flowLine{hop: uint16(n + 1)}, 4)
	}
	full := 0
	for n := range 20 {
		if _, err := h.hopLocked(neighbour(n + 230)); err == errHopsFull {
			full++
		}
	}
	if full < 13 {
		t.Errorf("%d of 20 found no room beside 7 in use", full)
	}
	seen := map[uint16]bool{}
	for key, n := range h.byKey {
		if seen[n] || h.mem[n].ifindex.Load() != 1 || addrOfRaw(h.mem[n].gateway, 4) != key.gateway {
			t.Errorf("entry %d of %v is wrong or used twice", n, key)
		}
		seen[n] = true
	}
}
