package rtp

import (
	"encoding/hex"
	"testing"
)

func unhex(t *testing.T, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestClassify(t *testing.T) {
	for _, c := range []struct {
		name, hex string
		want      Kind
	}{
		{"empty", "", KindOther},
		{"PCMA", "8008000100000064deadbeef", KindRTP},
		{"marker, type 101", "80e5000100000064deadbeef", KindRTP},
		{"sender report", "80c80006deadbeef", KindRTCP},
		{"receiver report", "81c90007deadbeef", KindRTCP},
		{"short RTP", "8008000100000064dead", KindOther},
		{"binding request", "000100002112a442000102030405060708090a0b", KindSTUN},
		{"binding error", "011100002112a442000102030405060708090a0b", KindSTUN},
		{"STUN without cookie", "0001000021120000000102030405060708090a0b", KindOther},
		{"STUN cut short", "000100002112a4420001020304050607", KindOther},
		{"DTLS 1.2 client hello", "16feff0000000000000000001f", KindDTLS},
		{"not quite DTLS", "16030100000000000000000000", KindOther},
		{"keep-alive CR LF", "0d0a", KindOther},
		{"UDPTL", "0001060102030405060000", KindOther},
		{"version 3", "c008000100000064deadbeef", KindOther},
	} {
		if got := Classify(unhex(t, c.hex)); got != c.want {
			t.Errorf("%s: got %v, want %v (%s)", c.name, got, c.want, c.hex)
		}
	}
}

func TestParse(t *testing.T) {
	got, ok := Parse(unhex(t, "80e8123400000064deadbeef00"))
	want := Header{PayloadType: 104, Sequence: 0x1234, Timestamp: 100, SSRC: 0xdeadbeef}
	if !ok || got != want {
		t.Errorf("got %+v %v, want %+v", got, ok, want)
	}
	if n, ok := UDPTLSequence(unhex(t, "01020600")); !ok || n != 0x0102 {
		t.Errorf("UDPTL sequence %x %v", n, ok)
	}
}

func TestCodecName(t *testing.T) {
	for pt, want := range map[uint8]string{0: "G711u", 8: "G711a", 18: "G729", 34: "H263", 96: "Dynamic(96)", 127: "Dynamic(127)", 35: "Unknown(35)", 95: "Unknown(95)"} {
		if got := CodecName(pt); got != want {
			t.Errorf("%d: got %q, want %q", pt, got, want)
		}
	}
}

// Parsers agree with the classification, and none reads past its input.
func FuzzClassify(f *testing.F) {
	for _, s := range []string{"\x80\x08\x00\x01\x00\x00\x00\x64\xde\xad\xbe\xef", "\x80\xc8\x00\x06\xde\xad\xbe\xef", "\x00\x01\x00\x00\x21\x12\xa4\x42abcdefghijkl", "\x16\xfe\xff0123456789", "\x00"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		b = b[:len(b):len(b)]
		kind := Classify(b)
		h, isRTP := Parse(b)
		if isRTP != (kind == KindRTP) {
			t.Errorf("Classify says %v, Parse says %v", kind, isRTP)
		}
		if isRTP && (h.PayloadType > 127 || h.PayloadType >= 64 && h.PayloadType <= 95) {
			t.Errorf("payload type %d in RTP", h.PayloadType)
		}
		if name := CodecName(h.PayloadType); name == "" || len(name) > 16 {
			t.Errorf("codec name %q", name)
		}
		if n, ok := UDPTLSequence(b); ok && n != uint16(b[0])<<8|uint16(b[1]) {
			t.Errorf("UDPTL sequence %d", n)
		}
	})
}
