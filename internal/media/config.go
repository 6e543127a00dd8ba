// Package media runs the media streams of calls. It owns the relay's ports,
// decides for every leg which address the party really sends from (and says
// why), watches time-outs and quality, and installs decided directions as flows
// in package forward, which then moves their packets without asking again.
//
//	stream ─┬─ RTP path ─┬─ caller's leg: even port, facing the caller
//	        │            └─ callee's leg: even port, facing the callee
//	        └─ RTCP path ─┬─ caller's leg: the odd port above
//	                      └─ callee's leg: the odd port above
//
// It knows no SDP, no Call-IDs and no control protocol: package session tells it
// what the signalling says about each party.
package media

import (
	"net/netip"
	"time"
)

// Learning is the policy for admitting the address that a party sends from.
type Learning uint8

const (
	Guarded     Learning = iota // rank each source, see rank
	Strict                      // only addresses known from SDP and signalling
	FirstPacket                 // whoever sends first
)

// Config of an Engine. Zero durations mean the defaults.
type Config struct {
	// Locals are the addresses to open ports on, at most one of each family
	// unless Detect is set.
	Locals []netip.Addr
	// Advertised addresses are told to the parties instead, by family.
	Advertised []netip.Addr
	// Detect finds the local address that faces a party; nil: the one of Locals
	// of the same family.
	Detect func(party netip.Addr) (netip.Addr, error)

	FirstPort, EndPort uint16 // even; EndPort is excluded, 0 means 65536
	PortRest           time.Duration
	// Pick chooses among n free pairs; nil: at random.
	Pick Picker

	Learning       Learning
	TrustedRanges  []netip.Prefix // trunks: admitted at once
	RoutableRanges []netip.Prefix // private networks that can be reached from here

	StreamTimeout time.Duration // before any media
	IdleTimeout   time.Duration // after media began
	HoldTimeout   time.Duration
	OneWayTimeout time.Duration // 0: never
}

func (c *Config) setDefaults() {
	for _, d := range []struct {
		field *time.Duration
		value time.Duration
	}{
		{&c.PortRest, 30 * time.Second}, {&c.StreamTimeout, 90 * time.Second},
		{&c.IdleTimeout, 90 * time.Second}, {&c.HoldTimeout, 7200 * time.Second},
	} {
		if *d.field == 0 {
			*d.field = d.value
		}
	}
	if c.FirstPort == 0 {
		c.FirstPort, c.EndPort = 40000, 60000
	}
}
