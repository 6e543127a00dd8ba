package relay

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"example.org/mediaproxy/internal/wire/relaylink"
)

const addrC = "192.0.2.3:25060"

func both(_ *rig, c *Config) { c.Dispatchers = []string{"192.0.2.1", "192.0.2.2"} }

func byName(names ...string) func(*rig, *Config) {
	return func(_ *rig, c *Config) { c.Dispatchers = names }
}

func addrs(texts ...string) (out []netip.Addr) {
	for _, s := range texts {
		out = append(out, netip.MustParseAddr(s))
	}
	return out
}

func TestReportsGoToTheOwner(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := start(t, both)
		d := g.acceptAll(addrA, addrB)
		a, b := d[addrA], d[addrB]
		a.greet("da")
		b.greet("db")
		a.offer("1", "ca")
		a.want("1 203.0.113.9 50002")
		b.offer("1", "cb")
		b.want("1 203.0.113.9 50002")
		g.calls.expire("cb")
		if got := b.expired().CallID; got != "cb" {
			t.Errorf("got report of %s at its owner, want cb", got)
		}
		b.send("ack r1\r\n")
		a.none(30 * time.Second)

		// The owner goes away: after a repeat interval the other one gets it.
		g.net.set(func() { g.net.down[a.addr] = fmt.Errorf("connection refused") })
		a.close()
		g.calls.expire("ca")
		synctest.Wait()
		begin := time.Now()
		if got := b.expired().CallID; got != "ca" {
			t.Errorf("got report of %s, want ca", got)
		}
		if waited := time.Since(begin); waited < 10*time.Second || waited > 12*time.Second {
			t.Errorf("the other dispatcher got it after %v, want 10 to 12 s", waited)
		}
		b.send("ack r2\r\n")
		b.none(30 * time.Second)
		if s := g.relay.Stats(); s.Waiting != 0 {
			t.Errorf("%d still wait", s.Waiting)
		}
	})
}

// A short loss of the owner does not hand its reports to others.
func TestOwnerThatComesBackSoonGetsItsReports(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := start(t, both)
		d := g.acceptAll(addrA, addrB)
		d[addrA].greet("da")
		d[addrB].greet("db")
		d[addrA].offer("1", "ca")
		d[addrA].want("1 203.0.113.9 50002")
		time.Sleep(6 * time.Second)
		d[addrA].close()
		g.calls.expire("ca")
		a := g.accept(addrA)
		a.greet("da")
		if got := a.expired().CallID; got != "ca" {
			t.Errorf("got report of %s, want ca", got)
		}
		a.send("ack r1\r\n")
		d[addrB].none(30 * time.Second)
	})
}

// An original dispatcher throws reports of calls away that it did not create.
func TestForeignReportsNeverGoToPlainDispatchers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := start(t, func(g *rig, c *Config) { both(g, c); plainAt(addrB)(g, c) })
		d := g.acceptAll(addrA, addrB)
		d[addrA].greet("da")
		d[addrA].offer("1", "ca")
		d[addrA].want("1 203.0.113.9 50002")
		g.net.set(func() { g.net.down[d[addrA].addr] = fmt.Errorf("connection refused") })
		d[addrA].close()
		g.calls.expire("ca")
		d[addrB].none(5 * time.Minute)
		if s := g.relay.Stats(); s.Waiting != 1 {
			t.Errorf("got %d waiting, want the one kept for its owner", s.Waiting)
		}
	})
}

// A dispatcher that was upgraded to link/2 still owns the calls it created
// before, and those it created under its name when it is put back.
func TestOwnershipSurvivesAnUpgrade(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := start(t, plainAt(addrA))
		d := g.accept(addrA)
		d.offer("1", "old")
		d.want("1 203.0.113.9 50002")
		d.close()
		g.net.set(func() { clear(g.net.plain) })
		d = g.accept(addrA)
		d.greet("da")
		g.calls.expire("old")
		if got := d.expired().CallID; got != "old" {
			t.Errorf("got report of %s, want old", got)
		}
		d.send("ack r1\r\n")
		d.offer("2", "new")
		d.skipTo("2 203.0.113.9 50002")
		g.net.set(func() { g.net.plain[d.addr] = true })
		d.close()
		d = g.accept(addrA)
		g.calls.expire("new")
		if got := d.expired().CallID; got != "new" {
			t.Errorf("got report of %s, want new", got)
		}
	})
}

func TestOneDispatcherUnderTwoAddresses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := start(t, both)
		d := g.acceptAll(addrA, addrB)
		d[addrA].greet("same")
		d[addrB].greet("same")
		synctest.Wait()
		d[addrA].close() // as a dispatcher does when the same relay connects anew
		d[addrB].none(10 * time.Minute)
		if n := len(g.net.dialed(addrA)); n != 1 {
			t.Errorf("dialled the second address %d times, want once", n)
		}
		d[addrB].close()
		for len(g.net.dialed(addrA)) == 1 && len(g.net.dialed(addrB)) == 1 {
			time.Sleep(time.Second)
		}
	})
}

func TestDNSChange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := start(t, func(g *rig, c *Config) {
			byName("proxy.example")(g, c)
			g.dns.hosts["proxy.example"] = addrs("192.0.2.1")
		})
		a := g.accept(addrA)
		a.greet("da")
		a.offer("1", "ca")
		a.want("1 203.0.113.9 50002")
		g.dns.set(func(r *fakeResolver) { r.hosts["proxy.example"] = addrs("192.0.2.2") })
		begin := time.Now()
		a.none(61 * time.Second)
		b := g.accept(addrB)
		if waited := g.net.dialed(addrB)[0].Sub(begin); waited != 60*time.Second {
			t.Errorf("the change was seen after %v, want 60 s", waited)
		}
		b.greet("db")
		go b.answerPings()

		a.none(5 * time.Minute) // it owns a call
		if links := g.relay.Stats().Links; len(links) != 2 || links[0].Wanted || !links[1].Wanted {
			t.Errorf("got links %+v", links)
		}
		a.close() // and is even connected anew
		a = g.accept(addrA)
		a.greet("da")
		a.none(time.Minute)

		g.dns.set(func(r *fakeResolver) { r.hosts["proxy.example"] = addrs("192.0.2.1") })
		a.none(2 * time.Minute) // back in time: the same connection
		if n := len(g.net.dialed(addrA)); n != 2 {
			t.Errorf("dialled %d times, want the connection reused", n)
		}
		a.command("remove", "2", "call_id", "ca", "from_tag", "f")
		a.skipTo("2 {")
		a.send("ack r1\r\n")
		a.none(time.Minute)

		// The other way round with no calls: closed within seconds.
		g.dns.set(func(r *fakeResolver) { r.hosts["proxy.example"] = addrs("192.0.2.3") })
		a.skipUntilClosed(70 * time.Second)
		(<-g.net.accepts).nc.Close()
		if links := g.relay.Stats().Links; len(links) != 1 || links[0].Addr != addrC {
			t.Errorf("got links %+v, want only the new address", links)
		}
	})
}

func TestResolverFailureKeepsTheLastAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := start(t, func(g *rig, c *Config) {
			byName("proxy.example")(g, c)
			g.dns.hosts["proxy.example"] = addrs("192.0.2.1")
		})
		d := g.accept(addrA)
		d.greet("da")
		timeout := &net.DNSError{Err: "i/o timeout", IsTimeout: true}
		g.dns.set(func(r *fakeResolver) { r.fail["_sip._udp.proxy.example"], r.fail["proxy.example"] = timeout, timeout })
		d.none(10 * time.Minute)
		d.close()
		d = g.accept(addrA) // reconnects without the resolver
		d.greet("da")
		if n := strings.Count(g.log.String(), "its last address stays in use"); n != 1 {
			t.Errorf("got %d warnings for one lasting failure", n)
		}
		g.dns.set(func(r *fakeResolver) { clear(r.fail); delete(r.hosts, "proxy.example") })
		d.skipUntilClosed(2 * time.Minute) // the name servers say that it is gone
	})
}

func TestSlowNameDelaysNoOtherEntry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		slow := &slowResolver{}
		g := start(t, func(g *rig, c *Config) {
			byName("slow.example", "192.0.2.2")(g, c)
			c.Resolver = slow
		})
		begin := time.Now()
		g.accept(addrB)
		if waited := time.Since(begin); waited != 0 {
			t.Errorf("connected after %v, want at once", waited)
		}
		time.Sleep(2 * lookupTimeout)
		if !strings.Contains(g.log.String(), "cannot look the dispatcher up") {
			t.Error("the failure is not in the log")
		}
	})
}

// slowResolver never answers.
type slowResolver struct{ fakeResolver }

func (*slowResolver) LookupSRV(ctx context.Context, _, _, _ string) (string, []*net.SRV, error) {
	<-ctx.Done()
	return "", nil, ctx.Err()
}

func TestServiceRecordFailsOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := start(t, func(g *rig, c *Config) {
			byName("example.com")(g, c)
			g.dns.srv["_sip._udp.example.com"] = []*net.SRV{
				{Target: "second.example.", Port: 7002, Priority: 20}, {Target: "first.example.", Port: 7001, Priority: 10}}
			g.dns.hosts["first.example"] = addrs("192.0.2.1")
			g.dns.hosts["second.example"] = addrs("192.0.2.2")
			g.net.down[netip.MustParseAddrPort("192.0.2.1:7001")] = fmt.Errorf("connection refused")
		})
		begin := time.Now()
		d := g.accept("192.0.2.2:7002")
		if waited := time.Since(begin); waited > time.Second {
			t.Errorf("failed over after %v, want at once", waited)
		}
		d.greet("second")
		d.none(5 * time.Minute)
		if n := len(g.net.dialed("192.0.2.1:7001")); n != 1 {
			t.Errorf("dialled the first host %d times, want once", n)
		}
		g.net.set(func() {
			g.net.down[d.addr] = fmt.Errorf("connection refused")
			delete(g.net.down, netip.MustParseAddrPort("192.0.2.1:7001"))
		})
		d.close()
		g.accept("192.0.2.1:7001")
	})
}

func TestConfiguredPortRule(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := start(t, func(g *rig, c *Config) {
			byName("example.com")(g, c)
			c.KeepConfiguredPort = true
			g.dns.srv["_sip._udp.example.com"] = []*net.SRV{{Target: "first.example.", Port: 5060}}
			g.dns.hosts["first.example"] = addrs("192.0.2.1")
		})
		g.accept(addrA)
	})
}

// The dispatcher that served a call last is told of its end, and the one that had it before
// hears that it has lost it, if it wants to know.
func TestCallThatChangesItsDispatcher(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := start(t, both)
		d := g.acceptAll(addrA, addrB)
		a, b := d[addrA], d[addrB]
		a.greet("da", relaylink.FeatureReleased)
		b.greet("db")
		for _, call := range []string{"moved", "back", "removed"} {
			a.offer("1", call)
			a.want("1 203.0.113.9 50002")
			b.offer("2", call)
			b.want("2 203.0.113.9 50002")
			a.want(`released {"call_id": "` + call + `", "from_tag": "f", "to_tag": "", "dialog_id": "", "owner": ""}`)
		}
		a.offer("3", "back") // db does not want to know
		a.want("3 203.0.113.9 50002")
		a.send("remove 4\r\ncall_id: removed\r\nfrom_tag: f\r\n\r\n")
		if got := a.skipTo("4 "); !strings.Contains(got, "removed") {
			t.Errorf("got %s", got)
		}
		a.send("ack r1\r\n")
		g.calls.expire("moved")
		if got := b.expired().CallID; got != "moved" {
			t.Errorf("got report of %s at its last dispatcher, want moved", got)
		}
		b.send("ack r2\r\n")
		g.calls.expire("back")
		if got := a.expired().CallID; got != "back" {
			t.Errorf("got report of %s at its last dispatcher, want back", got)
		}
		a.send("ack r3\r\n")
		a.none(30 * time.Second)
		b.none(30 * time.Second)
	})
}
