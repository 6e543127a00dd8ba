package media

import (
	"net/netip"
	"time"

	"example.org/mediaproxy/internal/report"
)

// historyLimit bounds a stream's decision log. The first entries tell how the
// call began and the last how it is now, so the middle gives way.
const (
	historyLimit = 48
	historyHead  = 16
)

// history is the decision log of a stream. Refusals under attack repeat, so an
// entry that equals one of the last few only counts up.
type history struct {
	entries   []entry
	forgotten uint64
}

type entry struct {
	at     time.Duration
	why    report.Why
	side   Side
	path   Path
	whole  bool // concerns the stream, not a leg
	source netip.AddrPort
	detail string
	count  uint64
}

// mergeWindow is how far back an equal entry is looked for: four legs with two
// kinds of refusals each.
const mergeWindow = 8

func (h *history) add(e entry) (first bool) {
	for i := len(h.entries) - 1; i >= max(0, len(h.entries)-mergeWindow); i-- {
		old := &h.entries[i]
		if old.why == e.why && old.side == e.side && old.path == e.path && old.detail == e.detail && old.whole == e.whole && e.why.Refused() {
			old.count++
			old.source = e.source
			return false
		}
	}
	e.count = 1
	if len(h.entries) == historyLimit {
		copy(h.entries[historyHead:], h.entries[historyHead+1:])
		h.entries = h.entries[:historyLimit-1]
		h.forgotten++
	}
	h.entries = append(h.entries, e)
	return true
}

func (h *history) decisions(start time.Duration) []report.Decision {
	out := make([]report.Decision, len(h.entries))
	for i, e := range h.entries {
		d := report.Decision{At: (e.at - start).Seconds(), Why: e.why, Detail: e.detail}
		if !e.whole {
			d.Party, d.Path = e.side.String(), e.path.String()
		}
		if e.source.IsValid() {
			d.Source = e.source.String()
		}
		if e.count > 1 {
			d.Count = e.count
		}
		out[i] = d
	}
	return out
}
