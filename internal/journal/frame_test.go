package journal

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"hash/crc32"
	"testing"
)

// The format, byte by byte: what one version wrote the next has to read.
func TestFormat(t *testing.T) {
	got := hex.EncodeToString(appendHeader(nil))
	if want := "6d702d6a6f75726e01000000d681f4c1"; got != want {
		t.Errorf("header %s, want %s", got, want)
	}
	got = hex.EncodeToString(appendFrame(nil, salt(0x0102030405060708).seed(), 16, opPut, "key", []byte("value")))
	if want := "0a000000" + "29bc0c55" + "a58341df" + "01" + "03" + "6b6579" + "76616c7565"; got != want {
		t.Errorf("frame %s, want %s", got, want)
	}
	got = hex.EncodeToString(appendFrame(nil, salt(1).seed(), 40, opDelete, "", nil))
	if want := "02000000" + "3c4724d6" + "0e0a7e65" + "02" + "00"; got != want {
		t.Errorf("frame %s, want %s", got, want)
	}
}

func TestHeader(t *testing.T) {
	newer := appendHeader(nil)
	newer[len(magic)] = 2
	for _, c := range []struct {
		name   string
		header []byte
		bad    int
		err    error
	}{
		{"whole", appendHeader(nil), 0, nil},
		{"cut", appendHeader(nil)[:9], 1, nil},
		{"empty", nil, 1, nil},
		{"damaged version", newer, 1, nil}, // its checksum does not fit: not a newer one
		{"newer", sealed(newer), 0, newerError{2}},
	} {
		t.Run(c.name, func(t *testing.T) {
			bad, err := scan(bytes.NewReader(c.header), int64(len(c.header)), 1, func(found) { t.Error("a record in an empty segment") })
			if len(bad) != c.bad || !errors.Is(err, c.err) {
				t.Errorf("got %d damages and %v, want %d and %v", len(bad), err, c.bad, c.err)
			}
		})
	}
}

// sealed makes the checksum of a header right again.
func sealed(header []byte) []byte {
	h := bytes.Clone(header[:headerSize-4])
	return binary.LittleEndian.AppendUint32(h, crc32.Checksum(h, castagnoli))
}

type record struct {
	op         operation
	key, value string
}

// segmentOf writes records as a Log does.
func segmentOf(s salt, records []record) []byte {
	b := appendHeader(nil)
	for _, r := range records {
		b = appendFrame(b, s.seed(), int64(len(b)), r.op, r.key, []byte(r.value))
	}
	return b
}

// What was written is read; after any damage what is read was written, in its order.
func FuzzScan(f *testing.F) {
	f.Add([]byte("put key value"), uint16(0), byte(0), uint16(0), []byte{})
	f.Add([]byte("\x01a\x02bb\x80"), uint16(30), byte(1), uint16(3), []byte{0xff, 0xff, 0xff, 0x7f})
	f.Add(bytes.Repeat([]byte{7}, 300), uint16(16), byte(0xff), uint16(1), []byte("tail"))
	f.Fuzz(func(t *testing.T, seed []byte, at uint16, flip byte, cut uint16, tail []byte) {
		const s salt = 0x1122334455667788
		records := recordsFrom(seed)
		whole := segmentOf(s, records)
		if got := readAll(t, whole, s); !equal(got, records) {
			t.Fatalf("read %v, want %v", got, records)
		}
		hurt := append([]byte(nil), whole[:len(whole)-min(int(cut), len(whole))]...)
		for i := int(at); i < len(hurt) && i < int(at)+4; i++ {
			hurt[i] ^= flip
		}
		hurt = append(hurt, tail...)
		got := readAll(t, hurt, s)
		rest := records
		for _, r := range got {
			for len(rest) > 0 && rest[0] != r {
				rest = rest[1:]
			}
			if len(rest) == 0 {
				t.Fatalf("%v was read and never written there", r)
			}
			rest = rest[1:]
		}
		if at >= headerSize && len(records)-len(got) > 0 && flip == 0 && int(cut) == 0 {
			t.Fatalf("%d of %d records are left although nothing was hit", len(got), len(records))
		}
	})
}

// recordsFrom makes records of arbitrary bytes.
func recordsFrom(seed []byte) (records []record) {
	for len(seed) > 1 {
		n := min(int(seed[0])%40, len(seed)-1)
		r := record{op: opPut, key: string(seed[1 : 1+n/2]), value: string(seed[1+n/2 : 1+n])}
		if seed[0] >= 0xc0 {
			r.op, r.value = opDelete, ""
		}
		records = append(records, r)
		seed = seed[1+n:]
	}
	return records
}

func readAll(t *testing.T, b []byte, s salt) (records []record) {
	t.Helper()
	end := int64(0)
	bad, err := scan(bytes.NewReader(b), int64(len(b)), s, func(f found) {
		if f.offset < end {
			t.Fatalf("a record at %d inside the one that ends at %d", f.offset, end)
		}
		end = f.offset + int64(f.size)
		records = append(records, record{f.op, string(f.key), string(f.value)})
	})
	if newer := (newerError{}); err != nil && !errors.As(err, &newer) {
		t.Fatal(err)
	}
	for _, d := range bad {
		if d.from >= d.to && len(b) > 0 || d.to > int64(len(b)) || d.tail != (d.to == int64(len(b))) {
			t.Fatalf("damage %+v of %d bytes", d, len(b))
		}
	}
	return records
}

func equal(a, b []record) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i] != b[i] {
			return false
		}
	}
	return true
}

// A value that holds a whole segment of its own, as somebody may send it in a header of a
// message, is not read as records when damage leads the reader into it.
func TestFramesInsideValuesAreNone(t *testing.T) {
	evil := segmentOf(7, []record{{opPut, "evil", "1"}, {opPut, "evil", "2"}})
	b := segmentOf(8, []record{{opPut, "good", "0"}, {opPut, "victim", string(evil)}, {opPut, "good", "1"}})
	first := len(segmentOf(8, []record{{opPut, "good", "0"}}))
	b[first] ^= 1 // the head of the victim
	got := readAll(t, b, 8)
	if want := []record{{opPut, "good", "0"}, {opPut, "good", "1"}}; !equal(got, want) {
		t.Errorf("read %v, want %v", got, want)
	}
}

// A length is believed only as far as there are bytes.
func TestLengthsAreBounded(t *testing.T) {
	head := appendFrame(nil, salt(1).seed(), headerSize, opPut, "k", bytes.Repeat([]byte{1}, 1000))[:headSize]
	b := append(appendHeader(nil), head...)
	allocated := testing.AllocsPerRun(10, func() {
		if _, err := scan(bytes.NewReader(b), int64(len(b)), 1, func(found) { t.Error("a record") }); err != nil {
			t.Error(err)
		}
	})
	if allocated > 20 {
		t.Errorf("%.0f allocations", allocated)
	}
}
