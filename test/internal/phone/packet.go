package phone

import (
	"bytes"
	"encoding/binary"
)

const (
	samples = 160 // 20 ms of G.711
	mark    = "PHONE-OF"
)

// appendRTP writes a packet whose payload begins with the mark.
func appendRTP(dst []byte, id ID, ssrc uint32, sequence uint16, stamp uint32) []byte {
	start := len(dst)
	dst = append(dst, 0x80, 0)
	dst = binary.BigEndian.AppendUint16(dst, sequence)
	dst = binary.BigEndian.AppendUint32(dst, stamp)
	dst = binary.BigEndian.AppendUint32(dst, ssrc)
	dst = appendMark(dst, id)
	for len(dst)-start < 12+samples {
		dst = append(dst, 0xd5)
	}
	return dst
}

// appendReport writes a sender report and an APP packet with the mark (RFC 3550
// sections 6.4.1 and 6.7).
func appendReport(dst []byte, id ID, ssrc, stamp uint32) []byte {
	dst = append(dst, 0x80, 200, 0, 6)
	dst = binary.BigEndian.AppendUint32(dst, ssrc)
	dst = append(dst, make([]byte, 8)...) // NTP time: none
	dst = binary.BigEndian.AppendUint32(dst, stamp)
	dst = append(dst, make([]byte, 8)...) // counts
	dst = append(dst, 0x80, 204, 0, 6)
	dst = binary.BigEndian.AppendUint32(dst, ssrc)
	dst = append(dst, "TEST"...)
	dst = appendMark(dst, id)
	return append(dst, 0, 0, 0)
}

func appendMark(dst []byte, id ID) []byte {
	dst = append(dst, mark...)
	dst = binary.BigEndian.AppendUint32(dst, id.Call)
	return append(dst, id.Side)
}

// readMark finds who a packet is from, wherever the mark stands.
func readMark(b []byte) (ID, bool) {
	i := bytes.Index(b, []byte(mark))
	if i < 0 || len(b) < i+len(mark)+5 {
		return ID{}, false
	}
	b = b[i+len(mark):]
	return ID{binary.BigEndian.Uint32(b), b[4]}, true
}
