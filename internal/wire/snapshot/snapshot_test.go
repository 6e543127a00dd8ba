package snapshot

import (
	"bytes"
	"encoding/hex"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

type side uint8

type inner struct {
	Name string
	At   time.Duration
}

func (i *inner) Fields(c *Coder) {
	c.Text(1, &i.Name)
	c.Moment(2, &i.At)
}

type outer struct {
	Count uint64
	Delta int64
	Side  side
	Yes   bool
	Text  string
	IP    netip.Addr
	Port  netip.AddrPort
	Wall  time.Time
	At    time.Duration
	In    inner
	Maybe *inner
	List  []inner
}

func (o *outer) Fields(c *Coder) {
	c.Uint(1, &o.Count)
	Int(c, 2, &o.Delta)
	Int(c, 3, &o.Side)
	c.Bool(4, &o.Yes)
	c.Text(5, &o.Text)
	c.Addr(6, &o.IP)
	c.AddrPort(7, &o.Port)
	c.Time(8, &o.Wall)
	c.Moment(9, &o.At)
	Nested(c, 10, &o.In, (*inner).Fields)
	Pointer(c, 11, &o.Maybe, (*inner).Fields)
	List(c, 300, &o.List, (*inner).Fields)
}

var example = outer{Count: 300, Delta: -2, Side: 1, Yes: true, Text: "a\xff", IP: netip.MustParseAddr("fe80::1%eth0"), Port: netip.MustParseAddrPort("192.0.2.1:4000"),
	Wall: time.Unix(1893456000, 5), At: Never, In: inner{At: time.Second}, Maybe: &inner{}, List: []inner{{}, {Name: "x", At: 7}}}

// The bytes, which the next version has to read.
func TestForm(t *testing.T) {
	got := hex.EncodeToString(Append(nil, &example, (*outer).Fields))
	want := "02" + "ac02" + // 1
		"04" + "03" + "06" + "02" + "08" + "01" + "0b" + "02" + "61ff" + // 2 to 5
		"0d" + "14" + "fe80000000000000000000000000000165746830" + "0f" + "06" + "c0000201a00f" + // 6, 7
		"10" + "8a80a8dde68cf4c634" + "12" + "01" + // 8, 9
		"15" + "06" + "04" + "80a8d6b907" + "17" + "00" + // 10, 11
		"d904" + "00" + "d904" + "05" + "03" + "01" + "78" + "04" + "0e" // 300, twice
	if got != want {
		t.Errorf("got\n%s, want\n%s", got, want)
	}
	if b := Append([]byte("x"), new(outer), (*outer).Fields); string(b) != "x\x15\x00" {
		t.Errorf("nothing is %x", b)
	}
}

func TestReadsWhatWasWritten(t *testing.T) {
	var back outer
	if err := Parse(Append(nil, &example, (*outer).Fields), &back, (*outer).Fields); err != nil || !reflect.DeepEqual(back, example) {
		t.Errorf("got %+v, %v\nwant %+v", back, err, example)
	}
	rapid.Check(t, func(t *rapid.T) {
		in := func() inner {
			return inner{rapid.String().Draw(t, "name"), time.Duration(rapid.Int64().Draw(t, "at"))}
		}
		v := outer{Count: rapid.Uint64().Draw(t, "count"), Delta: rapid.Int64().Draw(t, "delta"), Side: side(rapid.Byte().Draw(t, "side")),
			Yes: rapid.Bool().Draw(t, "yes"), Text: string(rapid.SliceOf(rapid.Byte()).Draw(t, "text")), In: in()}
		for range rapid.IntRange(0, 3).Draw(t, "list") {
			v.List = append(v.List, in())
		}
		var back outer
		if err := Parse(Append(nil, &v, (*outer).Fields), &back, (*outer).Fields); err != nil || !reflect.DeepEqual(back, v) {
			t.Fatalf("got %+v, %v\nwant %+v", back, err, v)
		}
	})
}

type older struct {
	Yes  bool
	List []inner
}

func (o *older) Fields(c *Coder) {
	c.Bool(4, &o.Yes)
	List(c, 300, &o.List, (*inner).Fields)
}

// Fields come and go: a version that knows fewer passes over the others, one that knows
// more leaves what is missing as it was.
func TestVersionsReadEachOther(t *testing.T) {
	var old older
	if err := Parse(Append(nil, &example, (*outer).Fields), &old, (*older).Fields); err != nil || !old.Yes || len(old.List) != 2 || old.List[1].Name != "x" {
		t.Errorf("%+v, %v", old, err)
	}
	back := outer{Text: "default"}
	if err := Parse(Append(nil, &old, (*older).Fields), &back, (*outer).Fields); err != nil || !back.Yes || back.Text != "default" || len(back.List) != 2 {
		t.Errorf("%+v, %v", back, err)
	}
}

func TestShift(t *testing.T) {
	in := []inner{{At: Never}, {At: 0}, {At: 5 * time.Second}}
	fields := func(list *[]inner, c *Coder) {
		c.Shift(-time.Minute)
		List(c, 1, list, (*inner).Fields)
	}
	var out []inner
	if err := Parse(Append(nil, &in, fields), &out, fields); err != nil {
		t.Fatal(err)
	}
	if out[0].At != Never || out[1].At != 0 || out[2].At != -55*time.Second {
		t.Errorf("%v", out)
	}
}

func TestRefusals(t *testing.T) {
	for _, c := range []struct{ name, record, want string }{
		{"cut head", "ff", "ends within"},
		{"cut number", "0280", "ends within"},
		{"cut text", "0b0561", "ends within"},
		{"huge length", "0bffffffffffffffff7f61", "ends within"},
		{"text for a number", "030161", "field 1: field is of another kind"},
		{"number for a list", "d80401", "field 300: field is of another kind"},
		{"no address", "0d03010203", "field 6: 3 bytes are no address"},
		{"no port", "0f0101", "field 7: 1 bytes are no address and port"},
		{"inside another", "15020200", "field 1: field is of another kind"},
		{"in what is passed over", "0180", "ends within"},
	} {
		record, err := hex.DecodeString(c.record)
		if err != nil {
			t.Fatal(err)
		}
		if err := Parse(record, new(outer), (*outer).Fields); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %q", c.name, err, c.want)
		}
	}
}

// Whatever is read, writing and reading it again changes nothing.
func FuzzParse(f *testing.F) {
	f.Add(Append(nil, &example, (*outer).Fields))
	f.Add([]byte{})
	f.Add([]byte{0x0b, 0xff, 0xff, 0x03})
	f.Fuzz(func(t *testing.T, record []byte) {
		var v outer
		if Parse(record, &v, (*outer).Fields) != nil {
			return
		}
		b := Append(nil, &v, (*outer).Fields)
		var again outer
		if err := Parse(b, &again, (*outer).Fields); err != nil {
			t.Fatal(err)
		}
		if c := Append(nil, &again, (*outer).Fields); !bytes.Equal(b, c) {
			t.Fatalf("%x became %x", b, c)
		}
		if len(v.Text) > len(record) || len(v.List) > len(record) {
			t.Fatal("more came out than went in")
		}
	})
}

func BenchmarkAppend(b *testing.B) {
	b.ReportAllocs()
	var buf []byte
	for b.Loop() {
		buf = Append(buf[:0], &example, (*outer).Fields)
	}
}
