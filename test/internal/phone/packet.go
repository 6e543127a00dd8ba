package phone

import (
	"bytes"
	"encoding/binary"
)

const (
	samples = 160        // 20 ms of G.711
	word    = "PHONE-OF" // a mark begins with it
)

// mark is what a packet says about itself.
type mark struct {
	id    ID
	phase uint8
	sent  int64 // nanoseconds since the studio's start
}

const markSize = len(word) + 4 + 1 + 1 + 8

// appendRTP writes a packet whose payload begins with the mark.
func appendRTP(dst []byte, m mark, ssrc uint32, sequence uint16, stamp uint32) []byte {
	start := len(dst)
	dst = append(dst, 0x80, 0)
	dst = binary.BigEndian.AppendUint16(dst, sequence)
	dst = binary.BigEndian.AppendUint32(dst, stamp)
	dst = binary.BigEndian.AppendUint32(dst, ssrc)
	dst = appendMark(dst, m)
	for len(dst)-start < 12+samples {
		dst = append(dst, 0xd5)
	}
	return dst
}

// appendReport writes a sender report and an APP packet with the mark (RFC 3550
// sections 6.4.1 and 6.7).
func appendReport(dst []byte, m mark, ssrc, stamp uint32) []byte {
	dst = append(dst, 0x80, 200, 0, 6)
	dst = binary.BigEndian.AppendUint32(dst, ssrc)
	dst = append(dst, make([]byte, 8)...) // NTP time: none
	dst = binary.BigEndian.AppendUint32(dst, stamp)
	dst = append(dst, make([]byte, 8)...) // counts
	dst = append(dst, 0x80, 204, 0, 8)
	dst = binary.BigEndian.AppendUint32(dst, ssrc)
	dst = append(dst, "TEST"...)
	dst = appendMark(dst, m)
	return append(dst, 0, 0)
}

func appendMark(dst []byte, m mark) []byte {
	dst = append(dst, word...)
	dst = binary.BigEndian.AppendUint32(dst, m.id.Call)
	dst = append(dst, m.id.Side, m.phase)
	return binary.BigEndian.AppendUint64(dst, uint64(m.sent))
}

// readMark finds the mark, wherever it stands.
func readMark(b []byte) (mark, bool) {
	i := bytes.Index(b, []byte(word))
	if i < 0 || len(b) < i+markSize {
		return mark{}, false
	}
	b = b[i+len(word):]
	return mark{ID{binary.BigEndian.Uint32(b), b[4]}, b[5], int64(binary.BigEndian.Uint64(b[6:]))}, true
}

// CallOf tells which call a phone's packet belongs to.
func CallOf(packet []byte) (call uint32, ok bool) {
	m, ok := readMark(packet)
	return m.id.Call, ok
}
