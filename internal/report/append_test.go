package report

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math"
	"math/rand/v2"
	"reflect"
	"testing"
)

// any members are set at random, all kinds of text and number among them, so
// that a member which is new and not written by hand is found here.
func anySession(draw *rand.Rand) Session {
	var s Session
	fill(draw, reflect.ValueOf(&s).Elem())
	return s
}

var (
	oddTexts = []string{"", "a", "Phone/1.0 <x&y>", "Zo\u00eb \U0001F600", "\xff\xfe", "a\xc3", "\xed\xa0\x80", "\"\\/", "\b\f\n\r\t\v", "\x00\x1f\x7f\x80",
		"\u2028\u2029", "\ufffd", "a,b: c", "'"}
	oddFloats = []float64{0, math.Copysign(0, -1), 1, -1, 0.5, 1e-6, 9.99e-7, -1e-9, 1e-10, 1e20, 1e21, 1.5e300, math.MaxFloat64, math.SmallestNonzeroFloat64,
		1700000000.123456, 1 << 53}
)

func fill(draw *rand.Rand, v reflect.Value) {
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			fill(draw, v.Field(i))
		}
	case reflect.Pointer:
		if draw.IntN(3) > 0 {
			v.Set(reflect.New(v.Type().Elem()))
			fill(draw, v.Elem())
		}
	case reflect.Slice:
		if draw.IntN(8) > 0 {
			v.Set(reflect.MakeSlice(v.Type(), draw.IntN(4), 4))
			for i := range v.Len() {
				fill(draw, v.Index(i))
			}
		}
	case reflect.String:
		text := oddTexts[draw.IntN(len(oddTexts))]
		for range draw.IntN(3) {
			text += string(rune(draw.Uint32()>>draw.IntN(32))) + string([]byte{byte(draw.Uint32())}) + oddTexts[draw.IntN(len(oddTexts))]
		}
		v.SetString(text)
	case reflect.Bool:
		v.SetBool(draw.IntN(2) == 0)
	case reflect.Int64:
		v.SetInt(int64(draw.Uint64()) >> draw.IntN(64))
	case reflect.Uint64:
		v.SetUint(draw.Uint64() >> draw.IntN(64))
	case reflect.Float64:
		f := oddFloats[draw.IntN(len(oddFloats))]
		if r := math.Float64frombits(draw.Uint64()); draw.IntN(2) == 0 && r-r == 0 { // not NaN, not infinite
			f = r
		}
		v.SetFloat(f)
	default:
		panic("no member of a session was of this kind: " + v.Kind().String())
	}
}

// bothWays fails unless the writer of sessions writes what encoding/json does.
func bothWays(t *testing.T, s Session) {
	t.Helper()
	want, err := appendAny(nil, s)
	if err != nil {
		t.Fatal(err)
	}
	got, err := AppendSession([]byte("x"), &s)
	if err != nil || !bytes.Equal(got[1:], want) {
		t.Fatalf("session %+v:\n got %s, %v\nwant %s", s, got[1:], err, want)
	}
}

func TestSessionsAreWrittenAsEncodingJSONDoes(t *testing.T) {
	draw := rand.New(rand.NewPCG(1, 2))
	list := []Session{}
	for range 5000 {
		s := anySession(draw)
		bothWays(t, s)
		if len(list) < 5 {
			list = append(list, s)
		}
	}
	for _, some := range [][]Session{list, list[:1], {}, nil} {
		want, err := appendAny(nil, some)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := Append(nil, some); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%d sessions:\n got %s, %v\nwant %s", len(some), got, err, want)
		}
	}
}

func TestWhatJSONCannotHold(t *testing.T) {
	for _, f := range []float64{math.NaN(), math.Inf(1), math.Inf(-1)} {
		for name, s := range map[string]Session{
			"start":   {StartTime: &f},
			"delay":   {Streams: []Stream{{PostDialDelay: &f}}},
			"jitter":  {Streams: []Stream{{Caller: &Quality{JitterMS: f}}}},
			"silence": {Streams: []Stream{{Callee: &Quality{Silent: f}}}},
		} {
			_, want := appendAny(nil, s)
			_, got := Append(nil, s)
			if got == nil || got.Error() != want.Error() {
				t.Errorf("%s %v: got %v, want %v", name, f, got, want)
			}
			if _, listed := Append(nil, []Session{s}); listed == nil || errors.Unwrap(listed) == nil {
				t.Errorf("%s %v in a list: %v", name, f, listed)
			}
		}
	}
}

// Whatever text and numbers a session has, both ways to write it agree. The seed
// draws what the rest of the document is like.
func FuzzSession(f *testing.F) {
	for i, s := range oddTexts {
		f.Add(s, math.Float64bits(oddFloats[i]), uint64(i))
	}
	f.Fuzz(func(t *testing.T, text string, bits, seed uint64) {
		var key [32]byte
		binary.LittleEndian.PutUint64(key[:], seed)
		s := anySession(rand.New(rand.NewChaCha8(key)))
		s.CallID, s.ToTag, s.Relay = text, &text, text
		number := math.Float64frombits(bits)
		if number-number == 0 {
			s.StartTime = &number
			s.Streams = append(s.Streams, Stream{MediaType: text, PostDialDelay: &number, Caller: &Quality{Lost: int64(bits), JitterMS: number, Silent: -number}})
		}
		bothWays(t, s)
	})
}

func BenchmarkSession(b *testing.B) {
	start := 1700000000.123456
	s := Session{CallID: "3c26700c1adb-1@192.0.2.10", FromTag: "k2u5x", FromURI: "alice@example.com", ToURI: "bob@example.com",
		StartTime: &start, CallerUA: "Phone/1.0", CalleeUA: "Phone/1.0",
		Streams: []Stream{{MediaType: "audio", Status: StatusActive, CallerCodec: "G711u", CalleeCodec: "G711u",
			CallerLocal: "203.0.113.9:50000", CalleeLocal: "203.0.113.9:50002", CallerRemote: "198.51.100.7:9000", CalleeRemote: "Unknown",
			Caller: &Quality{JitterMS: 0.25, Silent: 0.013, Mover: "user-space"}, Callee: &Quality{Silent: -1, Mover: MoverUndecided}}}}
	for name, write := range map[string]func([]byte) ([]byte, error){
		"by hand":       func(dst []byte) ([]byte, error) { return AppendSession(dst, &s) },
		"encoding/json": func(dst []byte) ([]byte, error) { return appendAny(dst, s) },
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			var dst []byte
			for b.Loop() {
				line, err := write(dst[:0])
				if err != nil {
					b.Fatal(err)
				}
				dst = line
				b.SetBytes(int64(len(line)))
			}
		})
	}
}
