package media

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
)

const reservedPorts = "/proc/sys/net/ipv4/ip_local_reserved_ports"

// ReservePorts asks the kernel to keep a range of ports from programs that bind
// any free port. It adds to what is reserved already, for IPv4 and IPv6 alike.
// The hint of its error is the line to type instead.
func ReservePorts(first, last uint16) error {
	text, err := os.ReadFile(reservedPorts)
	if err != nil {
		return fmt.Errorf("read the reserved ports: %w", err)
	}
	merged, changed := addReserved(strings.TrimSpace(string(text)), first, last)
	if !changed {
		return nil
	}
	if err := os.WriteFile(reservedPorts, []byte(merged), 0o644); err != nil {
		return fmt.Errorf("other programs may take media ports; as root: sysctl -w net.ipv4.ip_local_reserved_ports=%s (%w)", merged, err)
	}
	return nil
}

// addReserved adds a range to the kernel's list, which is sorted and has forms
// such as "8080,40000-59999".
func addReserved(list string, first, last uint16) (merged string, changed bool) {
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
