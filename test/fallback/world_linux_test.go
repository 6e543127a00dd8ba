package fallback

import (
	"context"
	"net/netip"
	"testing"
	"time"

	"example.org/mediaproxy/test/internal/module"
	"example.org/mediaproxy/test/internal/netlab"
	"example.org/mediaproxy/test/internal/phone"
	"example.org/mediaproxy/test/internal/program"
)

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }

// place is where a phone can be.
type place struct {
	host   *netlab.Host
	ip     netip.Addr
	public netip.Addr   // where its SIP messages come from
	router *netlab.Host // the NAT in front of it, nil if none
}

// world is an internet with a relay and three places for phones. Its addresses look
// public because the relay treats private ones differently.
type world struct {
	t      *testing.T
	relay  *netlab.Host
	pair   *program.Pair
	studio *phone.Studio
	here   place // of callers
	there  place // of callees
	behind place // a NAT
}

// newWorld builds the internet; the relay comes later.
func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{t: t, studio: phone.NewStudio()}
	t.Cleanup(w.studio.Close)
	lab := netlab.New(t)
	w.relay = lab.Host("relay", addr(relayIP))
	public := func(name, ip string) place {
		return place{host: lab.Host(name, addr(ip)), ip: addr(ip), public: addr(ip)}
	}
	w.here, w.there = public("here", "45.20.1.11"), public("there", "45.30.7.11")
	w.behind = place{ip: addr("192.168.1.5"), public: addr("45.31.9.40")}
	w.behind.router, w.behind.host = lab.NAT("nat", w.behind.public, netip.MustParsePrefix("192.168.1.0/24"), w.behind.ip)
	return w
}

const relayIP = "45.8.0.9"

// module connects to the dispatcher as the SIP proxy does, but with the patience for a
// busy machine.
func (w *world) module() (*module.Client, error) {
	return module.Dial(w.pair.Socket, patience)
}

const patience = 10 * time.Second

// until waits for a condition.
func until(ctx context.Context, cond func() bool) error { return every(ctx, 2*time.Millisecond, cond) }

// every is until for a condition that is not for free.
func every(ctx context.Context, step time.Duration, cond func() bool) error {
	for deadline := time.Now().Add(patience); !cond(); {
		if time.Now().After(deadline) {
			return context.DeadlineExceeded
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(step):
		}
	}
	return nil
}
