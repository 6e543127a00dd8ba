// Package rtp reads the headers of what arrives on a media port: RTP, RTCP,
// STUN, DTLS and UDPTL. It looks and never changes; it allocates nothing.
//
// Which is which follows RFC 7983 section 7, by the first byte:
//
//	  0..3    STUN, if the magic cookie stands at byte 4 (RFC 8489 section 5)
//	 20..63   DTLS, if a record version follows (RFC 9147 section 4)
//	128..191  RTP or RTCP: version 2; payload types 64..95 of the second byte
//	          (its low seven bits) are RTCP (RFC 5761 section 4)
//
// The fixed RTP header (RFC 3550 section 5.1):
//
//	 0                   1                   2                   3
//	+-+-+-+-+-------+-+-------------+-------------------------------+
//	|V=2|P|X|  CC   |M|     PT      |       sequence number         |
//	|                           timestamp                           |
//	|                             SSRC                              |
//	+---------------------------------------------------------------+
//
// UDPTL (ITU-T T.38 section 9.1) has no mark of its own: two bytes of sequence
// number, then the primary packet. Only the type of the stream, `image`, tells.
package rtp

import "encoding/binary"

// Kind is what a datagram looks like.
type Kind uint8

const (
	KindOther Kind = iota // none of the below: keep-alives, random bytes, UDPTL
	KindRTP
	KindRTCP
	KindSTUN
	KindDTLS
)

var kindNames = [...]string{"other", "RTP", "RTCP", "STUN", "DTLS"}

func (k Kind) String() string {
	if int(k) < len(kindNames) {
		return kindNames[k]
	}
	return "invalid"
}

// IsMedia says whether a datagram of this kind counts as traffic of a call.
// Connectivity checks and handshakes do not: they go on when nobody talks.
func (k Kind) IsMedia() bool { return k != KindSTUN && k != KindDTLS }

const (
	headerLen     = 12
	stunHeaderLen = 20
	stunCookie    = 0x2112A442
	dtlsHeaderLen = 13
	rtcpHeaderLen = 8 // header and the sender's SSRC
)

// Classify names a datagram by its first bytes.
func Classify(b []byte) Kind {
	if len(b) == 0 {
		return KindOther
	}
	switch first := b[0]; {
	case first < 4:
		if len(b) >= stunHeaderLen && binary.BigEndian.Uint32(b[4:]) == stunCookie {
			return KindSTUN
		}
	case first >= 20 && first <= 63:
		// Version 254.255 is DTLS 1.0, 254.253 is 1.2 and the plain records of
		// 1.3. Its encrypted records have no version; they are few, and a
		// weaker test would take arbitrary payload for a handshake.
		if len(b) >= dtlsHeaderLen && b[1] == 0xfe && (b[2] == 0xff || b[2] == 0xfd) {
			return KindDTLS
		}
	case first >= 128 && first <= 191:
		if len(b) >= rtcpHeaderLen && isRTCP(b[1]) {
			return KindRTCP
		}
		if len(b) >= headerLen {
			return KindRTP
		}
	}
	return KindOther
}

func isRTCP(second byte) bool { pt := second & 0x7f; return pt >= 64 && pt <= 95 }

// Header is the part of an RTP header that learning and quality need.
type Header struct {
	PayloadType uint8
	Sequence    uint16
	Timestamp   uint32
	SSRC        uint32
}

// Parse reads an RTP header. It fails for anything Classify does not call RTP.
func Parse(b []byte) (Header, bool) {
	if len(b) < headerLen || b[0]>>6 != 2 || isRTCP(b[1]) {
		return Header{}, false
	}
	return Header{
		PayloadType: b[1] & 0x7f,
		Sequence:    binary.BigEndian.Uint16(b[2:]),
		Timestamp:   binary.BigEndian.Uint32(b[4:]),
		SSRC:        binary.BigEndian.Uint32(b[8:]),
	}, true
}

// UDPTLSequence reads the sequence number of a UDPTL packet. The caller knows
// from the stream's type that it is one.
func UDPTLSequence(b []byte) (uint16, bool) {
	if len(b) < 3 {
		return 0, false
	}
	return binary.BigEndian.Uint16(b), true
}

// StaticClockRate is the timestamp rate in Hz of a static payload type
// (RFC 3551 section 6), 0 for dynamic and unassigned ones.
func StaticClockRate(payloadType uint8) uint32 {
	switch payloadType {
	case 0, 3, 4, 5, 7, 8, 9, 12, 13, 15, 18:
		return 8000
	case 6:
		return 16000
	case 10, 11:
		return 44100
	case 16:
		return 11025
	case 17:
		return 22050
	case 14, 25, 26, 28, 31, 32, 33, 34:
		return 90000
	}
	return 0
}
