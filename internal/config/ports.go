package config

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// A PortRange is the media ports of a relay: Start is the first, End is the one behind
// the last. Both are even, so that it holds whole pairs of RTP and RTCP.
type PortRange struct{ Start, End int }

// String prints start:end.
func (r PortRange) String() string { return fmt.Sprintf("%d:%d", r.Start, r.End) }

// Size is the number of ports.
func (r PortRange) Size() int { return r.End - r.Start }

var portRange = kind[PortRange]{
	word:  "start:end",
	parse: ParsePortRange,
	print: PortRange.String,
}

// ParsePortRange reads start:end.
func ParsePortRange(s string) (PortRange, error) {
	first, second, _ := strings.Cut(s, ":")
	start, err1 := strconv.Atoi(strings.TrimSpace(first))
	end, err2 := strconv.Atoi(strings.TrimSpace(second))
	switch {
	case err1 != nil || err2 != nil:
		return PortRange{}, errors.New("want start:end, as in 40000:60000")
	case start < 1024 || end > 65536:
		return PortRange{}, errors.New("want ports from 1024 to 65536 (the end itself is not used)")
	case start%2 != 0 || end%2 != 0:
		return PortRange{}, errors.New("want two even numbers: RTP takes the even port, RTCP the odd one above it")
	case start >= end:
		return PortRange{}, errors.New("want a start below the end")
	}
	return PortRange{start, end}, nil
}
