package session

import (
	"net/netip"
	"time"

	"example.org/mediaproxy/internal/media"
	"example.org/mediaproxy/internal/report"
	"example.org/mediaproxy/internal/wire/control"
)

// stream is one m= line of an offer: a running media stream, or a place in the
// list for one that was offered with port 0.
type stream struct {
	mediaType string
	v6        bool
	media     *media.Stream // nil: never had ports
	created   time.Time
	start     time.Time // first answer
	end       time.Time
	status    string // empty while live: then active or on hold
	wait      time.Duration
	addrs     [2]netip.AddrPort // of each party's SDP; the IP may be unspecified
	local     [2]spelled        // for each party, in documents
	remote    [2]spelled
}

func (st *stream) isLive() bool { return st.media != nil && st.status == "" }

// statusNow is the word for the documents.
func (st *stream) statusNow() string {
	switch {
	case st.status != "":
		return st.status
	case st.media.OnHold():
		return report.StatusOnHold
	}
	return report.StatusActive
}

func (st *stream) close(status string, now time.Time) {
	if !st.isLive() {
		return
	}
	st.status, st.end = status, now
	st.media.Close(status)
}

// fit is how well an offered stream matches one that exists.
type fit uint8

const (
	fitNone  fit = iota
	fitLoose     // the same after an allowance for hold or removal
	fitExact     // the same address and port
)

// matches compares with what this party's SDP said before.
func (st *stream) matches(m control.Media, side media.Side) fit {
	old := st.addrs[side]
	if !st.isLive() || st.mediaType != m.Type || !old.IsValid() {
		return fitNone
	}
	sameIP, samePort := old.Addr() == m.Addr, old.Port() == m.Port
	switch {
	case sameIP && samePort:
		return fitExact
	case samePort && (m.Addr.IsUnspecified() || old.Addr().IsUnspecified()), sameIP && m.Port == 0:
		return fitLoose
	}
	return fitNone
}

// describe passes on what a party's SDP says about this stream.
func (st *stream) describe(side media.Side, m control.Media, signalling netip.Addr, newTag bool) {
	addr := netip.AddrPortFrom(m.Addr, m.Port)
	if old := st.addrs[side]; !old.IsValid() || old.Addr().IsUnspecified() || !m.Addr.IsUnspecified() {
		st.addrs[side] = addr
	}
	st.media.Describe(side, media.Party{Addr: addr, Signalling: signalling, Direction: direction(m.Direction), ICE: m.ICE, NewTag: newTag})
}
