// Package radius tells RADIUS servers something (RFC 2866) and waits until one of them says
// that it has it. It knows the protocol and the files that clients of RADIUS are configured
// with, not what is accounted for.
//
//	client.conf ─▶ servers, secrets, patience        ┐
//	dictionary  ─▶ numbers of attributes ─▶ a List   ├─▶ Client.Send ─▶ nil: a server has it
//
// An Accounting-Request is
//
//	code 4 (1) | identifier (1) | length (2) | authenticator (16) | attributes
//
// and an attribute type (1) | length (1) | value, 1 to 253 bytes.
package radius

import (
	"fmt"
	"log/slog"
	"math"
	"net/netip"
	"strings"
	"unicode/utf8"
)

// Types of attributes that every server knows (RFC 2865, 2866, 2869, 3162).
const (
	UserName            byte = 1
	NASIPAddress        byte = 4
	NASIdentifier       byte = 32
	AcctStatusType      byte = 40
	AcctDelayTime       byte = 41
	AcctInputOctets     byte = 42
	AcctOutputOctets    byte = 43
	AcctSessionID       byte = 44
	AcctSessionTime     byte = 46
	AcctInputGigawords  byte = 52
	AcctOutputGigawords byte = 53
	EventTimestamp      byte = 55
	NASIPv6Address      byte = 95
)

// MaxValue is the longest value of an attribute: its length is one byte and counts the
// type and itself.
const MaxValue = 253

// Attribute is one of a request.
type Attribute struct {
	Type  byte
	Value []byte
}

// List is the attributes of a request, in order. An empty value is left out: an attribute
// without one is malformed (RFC 2865 section 5).
type List []Attribute

// Text adds a string, cut to what fits.
func (l *List) Text(kind byte, s string) {
	if s = Cut(s, MaxValue); s != "" {
		*l = append(*l, Attribute{kind, []byte(s)})
	}
}

// Number adds an integer. What 32 bits cannot say becomes the nearest that they can.
func (l *List) Number(kind byte, n int64) {
	v := uint32(min(max(n, 0), math.MaxUint32))
	*l = append(*l, Attribute{kind, []byte{byte(v >> 24), byte(v >> 16), byte(v >> 8), byte(v)}})
}

// Octets adds a counter of 64 bits: the lower half, and the upper one unless it is 0 (RFC
// 2869 section 5.1).
func (l *List) Octets(low, high byte, n uint64) {
	l.Number(low, int64(n&math.MaxUint32))
	if n > math.MaxUint32 {
		l.Number(high, int64(n>>32))
	}
}

// Address adds an address of either family, if it is one.
func (l *List) Address(ipv4, ipv6 byte, a netip.Addr) {
	switch a = a.Unmap().WithZone(""); {
	case a.Is4():
		*l = append(*l, Attribute{ipv4, a.AsSlice()})
	case a.Is6():
		*l = append(*l, Attribute{ipv6, a.AsSlice()})
	}
}

// Cut is the longest beginning of a text that has at most so many bytes and ends with a
// whole character. Bytes that are no UTF-8 are replaced before.
func Cut(s string, limit int) string {
	s = strings.ToValidUTF8(s, "\uFFFD")
	if len(s) <= limit {
		return s
	}
	for limit > 0 && !utf8.RuneStart(s[limit]) {
		limit--
	}
	return s[:limit]
}

// Secret is what client and server share. It prints as a word that says so.
type Secret string

// Format keeps it out of everything that is printed.
func (Secret) Format(f fmt.State, _ rune) { f.Write([]byte("(secret)")) }

// LogValue keeps it out of logs.
func (Secret) LogValue() slog.Value { return slog.StringValue("(secret)") }

// MarshalText keeps it out of documents.
func (Secret) MarshalText() ([]byte, error) { return []byte("(secret)"), nil }
