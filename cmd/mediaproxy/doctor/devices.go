package doctor

import (
	"fmt"
	"net/netip"
	"strings"
)

// ethernet is the hardware type of the devices that the fast path understands.
const ethernet = 1

// minMTU is what IPv6 demands of a link.
const minMTU = 1280

func address(f *facts) outcome {
	if f.devicesErr != nil {
		return skip("the network devices cannot be read: %v", f.devicesErr)
	}
	if len(f.relay.Addresses) == 0 {
		return fail("set relay_ip in section [Relay]", "this host has no route to the internet, so the relay's address is not known")
	}
	var found []string
	for _, ip := range f.relay.Addresses {
		device := f.deviceOf(ip)
		if device == "" {
			return fail(f.mendAddress(ip), "%s is not an address of this host", ip)
		}
		found = append(found, ip.String()+" on "+device)
	}
	return pass("%s", strings.Join(found, ", "))
}

func (f *facts) deviceOf(ip netip.Addr) string {
	for _, d := range f.devices {
		for _, own := range d.Addresses {
			if own == ip {
				return d.Name
			}
		}
	}
	return ""
}

// mendAddress: behind NAT that is one to one the public address is not the host's.
func (f *facts) mendAddress(wrong netip.Addr) string {
	for _, d := range f.devices {
		for _, own := range d.Addresses {
			if !d.Loopback && own.IsGlobalUnicast() && own.Is4() == wrong.Is4() {
				return fmt.Sprintf("set relay_ip = %s; if phones reach it as %s, advertised_ip = %s", own, wrong, wrong)
			}
		}
	}
	return fmt.Sprintf("give it to a device: ip address add %s dev DEVICE", wrong)
}

// hook examines the place where the fast path takes packets from a device.
func hook(f *facts, d Device) outcome {
	switch why := f.noKernelPath(); {
	case !d.Up:
		return fail("ip link set "+d.Name+" up", "is down")
	case !d.Running && !d.Loopback:
		return fail("ethtool "+d.Name, "has no link: look at the cable, or at the other end")
	case d.MTU < minMTU:
		return warn("ip link set "+d.Name+" mtu 1500", "MTU %d is less than %d: video does not fit", d.MTU, minMTU)
	case why != "":
		return skip("%s", why)
	case d.Loopback:
		return skip("packets of programs on this host are moved in user space")
	case !d.arrives():
		return skip("nothing arrives by a %s device", d.Kind)
	case d.Hardware != ethernet:
		return f.lacking("put relay_ip on an Ethernet device", "is not Ethernet: its packets are moved in user space")
	}
	name := f.hookName()
	if len(d.Programs) == 0 {
		return pass("up, MTU %d, %s, no other programs on it", d.MTU, name)
	}
	return pass("up, MTU %d, %s beside: %s", d.MTU, name, strings.Join(d.Programs, ", "))
}

func offloads(d Device) outcome {
	o := d.Offloads
	switch {
	case d.Loopback:
		return skip("loopback")
	case o == nil:
		return skip("the driver does not tell")
	case o.LRO && o.LROFixed:
		return warn("set fast_path = off, or use another network device",
			"LRO is on and cannot be changed: the device may join datagrams, and the fast path must see each")
	case o.LRO:
		return warn("ethtool -K "+d.Name+" lro off", "LRO is on: the device may join datagrams, and the fast path must see each")
	}
	return pass("GRO %s, LRO off", onOff(o.GRO))
}

func onOff(b bool) string {
	if b {
		return "on"
	}
	return "off"
}

// queues: one queue is served by one processor.
func queues(f *facts, d Device) outcome {
	c := d.Channels
	switch {
	case d.Loopback:
		return skip("loopback has none")
	case d.Kind != "":
		return skip("%s has no RSS", d.Kind)
	case c == nil:
		return skip("the driver does not tell")
	case c.Use <= 1 && c.Max > 1 && f.processors > 1:
		return warn(fmt.Sprintf("ethtool -L %s %s %d", d.Name, c.Name, min(c.Max, f.processors)),
			"1 of %d receive queues in use: one processor receives everything", c.Max)
	case c.Use <= 1:
		return pass("one receive queue")
	}
	return spreading(f, d)
}

// spreading looks at how datagrams find their queue, for each family the relay has.
func spreading(f *facts, d Device) outcome {
	n := d.Channels.Use
	var mend []string
	unknown := false
	for _, family := range []struct {
		name string
		hash Hash
		is   func(netip.Addr) bool
	}{{"udp4", d.Hash4, netip.Addr.Is4}, {"udp6", d.Hash6, netip.Addr.Is6}} {
		if !f.anyAddress(family.is) {
			continue
		}
		switch family.hash {
		case HashAddresses:
			mend = append(mend, fmt.Sprintf("ethtool -N %s rx-flow-hash %s sdfn", d.Name, family.name))
		case HashUnknown:
			unknown = true
		}
	}
	switch {
	case len(mend) > 0:
		return warn(strings.Join(mend, " && "), "%d receive queues, but all media of a trunk meets in one: UDP ports are not hashed", n)
	case unknown:
		return skip("%d receive queues; the driver does not tell how it uses them", n)
	}
	return pass("%d receive queues, used by addresses and ports", n)
}

func (f *facts) anyAddress(is func(netip.Addr) bool) bool {
	for _, ip := range f.relay.Addresses {
		if is(ip) {
			return true
		}
	}
	return false
}

// processors notes where more of them could receive.
func processors(f *facts) outcome {
	if f.processors == 0 {
		return skip("the number of processors is not known")
	}
	found := fmt.Sprintf("%d", f.processors)
	for _, d := range f.receivers() {
		spread, known := f.spread[d.Index]
		if f.processors > 1 && known && !spread && d.Kind == "" && !d.Loopback && d.Channels != nil && d.Channels.Use <= 1 {
			found += fmt.Sprintf("; under load let all receive: echo %s > /sys/class/net/%s/queues/rx-0/rps_cpus", processorMask(f.processors), d.Name)
		}
	}
	return pass("%s", found)
}
