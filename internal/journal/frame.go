package journal

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
)

const (
	magic      = "mp-journ"
	version    = 1
	headerSize = 16
	headSize   = 12 // of a frame

	// maxPayload bounds what a damaged length can make a reader ask for. A call
	// needs some kilobytes.
	maxPayload = 16 << 20
)

type operation byte

const (
	opPut    operation = 1
	opDelete operation = 2
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// salt makes the checksums of a segment its own, so that bytes inside a value, which
// anybody may have sent, are no frame even if damage leads the reader there.
type salt uint64

func (s salt) seed() uint32 {
	var b [8]byte
	binary.LittleEndian.PutUint64(b[:], uint64(s))
	return crc32.Checksum(b[:], castagnoli)
}

func appendHeader(dst []byte) []byte {
	at := len(dst)
	dst = append(dst, magic...)
	dst = binary.LittleEndian.AppendUint16(dst, version)
	dst = binary.LittleEndian.AppendUint16(dst, 0)
	return binary.LittleEndian.AppendUint32(dst, crc32.Checksum(dst[at:], castagnoli))
}

// parseHeader returns the version of a segment; ok is false if the header is damaged.
func parseHeader(b []byte) (v int, ok bool) {
	if len(b) < headerSize || string(b[:len(magic)]) != magic ||
		crc32.Checksum(b[:headerSize-4], castagnoli) != binary.LittleEndian.Uint32(b[headerSize-4:]) {
		return 0, false
	}
	return int(binary.LittleEndian.Uint16(b[len(magic):])), true
}

// appendFrame appends the frame that will stand at an offset of a segment.
func appendFrame(dst []byte, seed uint32, offset int64, op operation, key string, value []byte) []byte {
	at := len(dst)
	dst = append(dst, make([]byte, headSize)...)
	dst = append(dst, byte(op))
	dst = binary.AppendUvarint(dst, uint64(len(key)))
	dst = append(dst, key...)
	dst = append(dst, value...)
	payload := dst[at+headSize:]
	binary.LittleEndian.PutUint32(dst[at:], uint32(len(payload)))
	binary.LittleEndian.PutUint32(dst[at+4:], crc32.Checksum(payload, castagnoli))
	binary.LittleEndian.PutUint32(dst[at+8:], headSum(dst[at:], seed, offset))
	return dst
}

// headSum is the third word of a frame's head.
func headSum(head []byte, seed uint32, offset int64) uint32 {
	var b [16]byte
	copy(b[:8], head)
	binary.LittleEndian.PutUint64(b[8:], uint64(offset))
	return crc32.Update(seed, castagnoli, b[:])
}

// parseHead returns the length and checksum of a frame's payload. ok is false if no
// frame begins here.
func parseHead(b []byte, seed uint32, offset int64) (length int, sum uint32, ok bool) {
	if len(b) < headSize || binary.LittleEndian.Uint32(b[8:]) != headSum(b, seed, offset) {
		return 0, 0, false
	}
	n := binary.LittleEndian.Uint32(b)
	return int(n), binary.LittleEndian.Uint32(b[4:]), n <= maxPayload
}

// errPayload: the checksum is right and the content is not, so another version wrote it.
var errPayload = errors.New("record of an unknown kind")

// parsePayload cuts a payload into its parts, which alias it.
func parsePayload(b []byte) (op operation, key, value []byte, err error) {
	if len(b) == 0 || operation(b[0]) != opPut && operation(b[0]) != opDelete {
		return 0, nil, nil, errPayload
	}
	n, size := binary.Uvarint(b[1:])
	if size <= 0 || n > uint64(len(b)-1-size) {
		return 0, nil, nil, errPayload
	}
	rest := b[1+size:]
	return operation(b[0]), rest[:n], rest[n:], nil
}
