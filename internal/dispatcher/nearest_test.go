package dispatcher

import (
	"math/bits"
	"net/netip"
	"slices"
)

// Nearest prefers the relay whose address shares the longest prefix with the
// caller's. Among equals the less loaded of two counts.
type Nearest struct{}

func (Nearest) Order(call Call, relays []Candidate) {
	LeastLoaded{}.Order(call, relays)
	slices.SortStableFunc(relays, func(a, b Candidate) int {
		return nearness(call.Caller, b) - nearness(call.Caller, a)
	})
}

// nearness is the longest prefix, in bits, of any of the relay's addresses.
func nearness(caller netip.Addr, relay Candidate) (longest int) {
	for _, addr := range relay.Addrs {
		if addr.BitLen() != caller.BitLen() {
			continue // the other family, or no caller address at all
		}
		mine, theirs, same := caller.AsSlice(), addr.AsSlice(), 0
		for i := range mine {
			zeros := bits.LeadingZeros8(mine[i] ^ theirs[i])
			if same += zeros; zeros < 8 {
				break
			}
		}
		longest = max(longest, same)
	}
	return longest
}
