package dispatcher

import (
	"cmp"
	"math/rand/v2"
	"net/netip"
	"slices"
)

// A Selector decides in which order relays are tried for a new call. To add
// one, write a type with this method and give it to Config.Selector; the guide
// is docs/extend-selection.md.
//
// Order puts the best relay first by permuting relays in place. It is called
// for every new call, by many goroutines at once, with relays that are
// connected and take calls, in no particular order. Relays that the call prefers
// by name or address, and relays that did not answer lately, are put first and
// last afterwards, by the dispatcher. relays is used again for the next call: nothing
// may keep it.
type Selector interface {
	Order(call Call, relays []Candidate)
}

// Call is what is known about a new call when its relay is chosen.
type Call struct {
	CallID     string
	MediaRelay string // what the SIP proxy's script prefers: name, address, label; usually empty
	Caller     netip.Addr
	Streams    int
}

// Candidate is a relay that may be chosen.
type Candidate struct {
	Name     string // announced name, or the address of an old relay
	Addrs    []netip.Addr
	Labels   []string
	Sessions int // as the relay said last, plus what it was given since
	Capacity int // sessions it can carry; 0: unknown
	BPS      float64

	relay   *relayState
	suspect bool
}

// load is the share of the relay in use. Relays of unknown capacity count as
// the original's default size.
func (c *Candidate) load() float64 {
	const unknown = 5000
	capacity := c.Capacity
	if capacity <= 0 {
		capacity = unknown
	}
	return float64(c.Sessions) / float64(capacity)
}

// Random tries relays in random order, as the original does.
type Random struct{}

func (Random) Order(_ Call, relays []Candidate) { shuffle(relays) }

func shuffle(relays []Candidate) {
	rand.Shuffle(len(relays), func(i, j int) { relays[i], relays[j] = relays[j], relays[i] })
}

// LeastLoaded takes the less loaded of two relays drawn at random. Taking the
// least loaded of all would send every new call to the same relay until its
// next report.
type LeastLoaded struct{}

func (LeastLoaded) Order(_ Call, relays []Candidate) {
	shuffle(relays)
	if len(relays) > 1 && relays[1].load() < relays[0].load() {
		relays[0], relays[1] = relays[1], relays[0]
	}
}

// Weighted draws relays in proportion to their weights. A relay without one
// has weight 1; one with weight 0 is only tried after all others.
type Weighted struct{ Weights map[string]int }

func (w Weighted) Order(_ Call, relays []Candidate) {
	shuffle(relays)
	for first := range relays {
		total := 0
		for _, c := range relays[first:] {
			total += w.weight(c)
		}
		if total == 0 {
			return
		}
		draw := rand.IntN(total)
		for i := first; i < len(relays); i++ {
			if draw -= w.weight(relays[i]); draw < 0 {
				relays[first], relays[i] = relays[i], relays[first]
				break
			}
		}
	}
}

func (w Weighted) weight(c Candidate) int {
	n, ok := w.Weights[c.Name]
	if !ok {
		return 1
	}
	return max(n, 0)
}

// Labels prefers relays by label, for instance the region: first the label that
// the call's media_relay names, then Preferred in its order, then the rest.
// Among equals the less loaded of two counts.
type Labels struct{ Preferred []string }

func (l Labels) Order(call Call, relays []Candidate) {
	LeastLoaded{}.Order(call, relays)
	slices.SortStableFunc(relays, func(a, b Candidate) int {
		return cmp.Compare(l.rank(call, a), l.rank(call, b))
	})
}

func (l Labels) rank(call Call, c Candidate) int {
	if call.MediaRelay != "" && slices.Contains(c.Labels, call.MediaRelay) {
		return 0
	}
	for i, label := range l.Preferred {
		if slices.Contains(c.Labels, label) {
			return i + 1
		}
	}
	return len(l.Preferred) + 1
}

// prefers says whether a call's media_relay names this relay: by its name, by
// the address it connects from, or by one it relays on.
func (c *Candidate) preferredBy(mediaRelay string) bool {
	if mediaRelay == "" {
		return false
	}
	if c.Name == mediaRelay {
		return true
	}
	addr, err := netip.ParseAddr(mediaRelay)
	return err == nil && slices.Contains(c.Addrs, addr.Unmap())
}
