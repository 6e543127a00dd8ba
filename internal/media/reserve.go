package media

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// AddReserved adds a range to the kernel's list of reserved ports, which is sorted and
// has forms such as "8080,40000-59999". It changes nothing if the range is in it.
func AddReserved(list string, first, last uint16) (merged string, changed bool) {
	type span struct{ first, last int }
	add := span{int(first), int(last)}
	var spans []span
	for part := range strings.SplitSeq(list, ",") {
		from, to, isRange := strings.Cut(part, "-")
		a, err := strconv.Atoi(from)
		if err != nil {
			continue // the kernel writes no such thing; an empty list is one empty part
		}
		b := a
		if isRange {
			if b, err = strconv.Atoi(to); err != nil {
				continue
			}
		}
		if a <= add.first && b >= add.last {
			return list, false
		}
		spans = append(spans, span{a, b})
	}
	spans = append(spans, add)
	slices.SortFunc(spans, func(x, y span) int { return x.first - y.first })
	var out []string
	for i := 0; i < len(spans); {
		s := spans[i]
		for i++; i < len(spans) && spans[i].first <= s.last+1; i++ {
			s.last = max(s.last, spans[i].last)
		}
		if s.first == s.last {
			out = append(out, strconv.Itoa(s.first))
		} else {
			out = append(out, fmt.Sprintf("%d-%d", s.first, s.last))
		}
	}
	return strings.Join(out, ","), true
}
