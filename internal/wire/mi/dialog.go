package mi

import (
	"fmt"
	"strconv"
	"strings"
)

// DialogID is a proxy's own name of a dialog: a place in its table and a number there.
type DialogID struct {
	Entry, Number uint32
	Pair          bool // it was written as ENTRY:NUMBER
}

// ParseDialogID reads what the proxies' modules send: Kamailio ENTRY:NUMBER, each as a
// signed number of 32 bits; OpenSIPS one number, ENTRY·2³² + NUMBER.
func ParseDialogID(text string) (DialogID, error) {
	if left, right, ok := strings.Cut(text, ":"); ok {
		entry, err := word(left)
		if err != nil {
			return DialogID{}, fmt.Errorf("dialog id %.40q: offset 0: %w", text, err)
		}
		number, err := word(right)
		if err != nil {
			return DialogID{}, fmt.Errorf("dialog id %.40q: offset %d: %w", text, len(left)+1, err)
		}
		return DialogID{entry, number, true}, nil
	}
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		return DialogID{}, fmt.Errorf("dialog id %.40q is neither a number nor two with a colon", text)
	}
	return DialogID{uint32(n >> 32), uint32(n), false}, nil
}

// word reads 32 bits, signed or not.
func word(text string) (uint32, error) {
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < -1<<31 || n >= 1<<32 {
		return 0, fmt.Errorf("%.20q is not a number of 32 bits", text)
	}
	return uint32(n), nil
}

// Signed are the two numbers as Kamailio prints and reads them.
func (d DialogID) Signed() (entry, number int32) { return int32(d.Entry), int32(d.Number) }

// Decimal is the form of OpenSIPS 3.0.
func (d DialogID) Decimal() string {
	return strconv.FormatUint(uint64(d.Entry)<<32|uint64(d.Number), 10)
}

// Hexadecimal is the form of OpenSIPS 3.1 and later: both numbers in hexadecimal with the
// least digit first, and a dot between them.
func (d DialogID) Hexadecimal() string { return reversed(d.Entry) + "." + reversed(d.Number) }

func reversed(n uint32) string {
	b := strconv.AppendUint(nil, uint64(n), 16)
	for i, j := 0, len(b)-1; i < j; i, j = i+1, j-1 {
		b[i], b[j] = b[j], b[i]
	}
	return string(b)
}
