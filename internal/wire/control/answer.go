package control

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// Answer is the positive reply to an update: the relay's address and one RTP
// port for each stream of the offer, 0 for a stream that is not relayed. RTCP
// uses the port after it.
type Answer struct {
	IP    netip.Addr
	Ports []uint16
}

// ParseAnswer reads "IP port port...", without line end. Words like error or
// None are errors.
func ParseAnswer(line []byte) (Answer, error) {
	var a Answer
	text := string(line)
	for at := 0; at < len(text); {
		if isSpace(text[at]) {
			at++
			continue
		}
		word := text[at:]
		if i := strings.IndexAny(word, " \t\r\n"); i >= 0 {
			word = word[:i]
		}
		if !a.IP.IsValid() {
			ip, ok := parseAddr(word)
			if !ok {
				return Answer{}, fmt.Errorf("answer (offset %d): %.60q is not an IP address", at, word)
			}
			a.IP = ip
		} else {
			n, err := strconv.ParseUint(word, 10, 16)
			if err != nil {
				return Answer{}, fmt.Errorf("answer (offset %d): %.40q is not a port", at, word)
			}
			if len(a.Ports) == MaxStreams {
				return Answer{}, fmt.Errorf("answer (offset %d): more than %d ports", at, MaxStreams)
			}
			a.Ports = append(a.Ports, uint16(n))
		}
		at += len(word)
	}
	if !a.IP.IsValid() {
		return Answer{}, fmt.Errorf("answer (offset 0): empty")
	}
	return a, nil
}

func isSpace(c byte) bool { return c == ' ' || c == '\t' || c == '\r' || c == '\n' }

// Append writes the answer without a line end.
func (a Answer) Append(dst []byte) []byte {
	dst = a.IP.AppendTo(dst)
	for _, p := range a.Ports {
		dst = append(dst, ' ')
		dst = strconv.AppendUint(dst, uint64(p), 10)
	}
	return dst
}
