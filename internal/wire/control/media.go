package control

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// MaxStreams bounds the streams of one SDP. The modules refuse more than 32
// m= lines; without a bound one line could ask for thousands of ports.
const MaxStreams = 64

// MediaError tells what about a media header was wrong and where.
type MediaError struct {
	Offset int // of the stream, into the value
	Text   string
}

func (e *MediaError) Error() string {
	return fmt.Sprintf("header media (offset %d): %s", e.Offset, e.Text)
}

// ParseMedia reads the value of a media header:
//
//	audio:192.168.1.5:4000:sendrecv:ice=no,video:2001:db8::5:4002:sendonly
//
// Addresses are not bracketed, so each stream is read from its direction word
// backwards. Empty elements and parameters are skipped, unknown parameters
// ignored, anything else unreadable is a *MediaError.
func ParseMedia(s string) ([]Media, error) {
	var list []Media
	for at := 0; at <= len(s); {
		element := s[at:]
		if i := strings.IndexByte(element, ','); i >= 0 {
			element = element[:i]
		}
		if element != "" {
			m, fault := parseStream(element)
			if fault == "" && len(list) == MaxStreams {
				fault = fmt.Sprintf("more than %d streams", MaxStreams)
			}
			if fault != "" {
				return nil, &MediaError{Offset: at, Text: fault}
			}
			list = append(list, m)
		}
		at += len(element) + 1
	}
	return list, nil
}

func parseStream(s string) (m Media, fault string) {
	head, ice := cutParameters(s)
	head, m.Direction = cutLast(head)
	if !isDirection(m.Direction) {
		return m, fmt.Sprintf("%.40q is not a direction (sendrecv, sendonly, recvonly, inactive)", m.Direction)
	}
	head, port := cutLast(head)
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return m, fmt.Sprintf("%.40q is not a port", port)
	}
	kind, address, _ := strings.Cut(head, ":")
	if kind == "" {
		return m, "stream has no media type"
	}
	addr, ok := parseAddr(address)
	if !ok {
		return m, fmt.Sprintf("%.60q is not an IP address", address)
	}
	m.Type, m.Addr, m.Port, m.ICE = kind, addr, uint16(n), ice
	return m, ""
}

// cutParameters takes the name=value parameters off the end.
func cutParameters(s string) (head string, ice bool) {
	seen := false
	for {
		rest, last := cutLast(s)
		name, value, ok := strings.Cut(last, "=")
		if (!ok && last != "") || rest == "" {
			return s, ice
		}
		if name == "ice" && !seen { // read from behind: the last one counts
			ice, seen = value == "yes", true
		}
		s = rest
	}
}

// cutLast splits at the last colon.
func cutLast(s string) (head, last string) {
	i := strings.LastIndexByte(s, ':')
	if i < 0 {
		return "", s
	}
	return s[:i], s[i+1:]
}

func isDirection(s string) bool {
	for _, d := range [...]string{"sendrecv", "sendonly", "recvonly", "inactive"} {
		if strings.EqualFold(s, d) {
			return true
		}
	}
	return false
}

// parseAddr reads an address without zone; an IPv4 address in IPv6 clothes is
// an IPv4 address.
func parseAddr(s string) (netip.Addr, bool) {
	a, err := netip.ParseAddr(s)
	if err != nil || a.Zone() != "" {
		return netip.Addr{}, false
	}
	return a.Unmap(), true
}

// AppendMedia writes the value of a media header as the modules do.
func AppendMedia(dst []byte, list []Media) []byte {
	for i, m := range list {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = append(dst, m.Type...)
		dst = append(dst, ':')
		dst = m.Addr.AppendTo(dst)
		dst = append(dst, ':')
		dst = strconv.AppendUint(dst, uint64(m.Port), 10)
		dst = append(dst, ':')
		dst = append(dst, m.Direction...)
		if m.ICE {
			dst = append(dst, ":ice=yes"...)
		} else {
			dst = append(dst, ":ice=no"...)
		}
	}
	return dst
}
