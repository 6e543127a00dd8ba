package radius

import (
	"encoding/hex"
	"math"
	"net/netip"
	"strings"
	"testing"
	"unicode/utf8"
)

func (l List) hex() string {
	var b strings.Builder
	for _, a := range l {
		b.WriteString(hex.EncodeToString([]byte{a.Type}) + ":" + hex.EncodeToString(a.Value) + " ")
	}
	return strings.TrimSpace(b.String())
}

func TestList(t *testing.T) {
	for _, c := range []struct {
		name string
		add  func(*List)
		want string
	}{
		{"text", func(l *List) { l.Text(1, "ab") }, "01:6162"},
		{"no text", func(l *List) { l.Text(1, "") }, ""},
		{"number", func(l *List) { l.Number(46, 61) }, "2e:0000003d"},
		{"negative", func(l *List) { l.Number(46, -1) }, "2e:00000000"},
		{"too large", func(l *List) { l.Number(46, 1<<32) }, "2e:ffffffff"},
		{"octets", func(l *List) { l.Octets(42, 52, math.MaxUint32) }, "2a:ffffffff"},
		{"gigawords", func(l *List) { l.Octets(42, 52, 1<<32) }, "2a:00000000 34:00000001"},
		{"many", func(l *List) { l.Octets(42, 52, math.MaxUint64) }, "2a:ffffffff 34:ffffffff"},
		{"IPv4", func(l *List) { l.Address(4, 95, netip.MustParseAddr("203.0.113.9")) }, "04:cb007109"},
		{"IPv4 as IPv6", func(l *List) { l.Address(4, 95, netip.MustParseAddr("::ffff:203.0.113.9")) }, "04:cb007109"},
		{"IPv6", func(l *List) { l.Address(4, 95, netip.MustParseAddr("fe80::1%lo")) }, "5f:fe800000000000000000000000000001"},
		{"no address", func(l *List) { l.Address(4, 95, netip.Addr{}) }, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			var l List
			if c.add(&l); l.hex() != c.want {
				t.Errorf("%s, want %s", l.hex(), c.want)
			}
		})
	}
}

func TestCut(t *testing.T) {
	for _, c := range []struct {
		s     string
		limit int
		want  string
	}{
		{"abc", 3, "abc"}, {"abcd", 3, "abc"}, {"aä", 3, "aä"}, {"aä", 2, "a"}, {"€", 2, ""}, {"a€€", 6, "a€"},
		{"a\xff", 9, "a\uFFFD"}, {"a\xff", 3, "a"}, {"", 0, ""},
	} {
		if got := Cut(c.s, c.limit); got != c.want {
			t.Errorf("Cut(%q, %d) = %q, want %q", c.s, c.limit, got, c.want)
		}
	}
}

// Any string becomes none or one attribute that a server can read, and the packet holds it.
func FuzzText(f *testing.F) {
	f.Add("plain", byte(1))
	f.Add(strings.Repeat("ä", 127), byte(235))
	f.Add("\xf0\x9f"+strings.Repeat("x", 300), byte(0))
	f.Fuzz(func(t *testing.T, s string, kind byte) {
		var l List
		l.Text(kind, s)
		if (len(l) == 0) != (s == "") || len(l) > 1 {
			t.Fatalf("%d attributes of %q", len(l), s)
		}
		request, err := packet("testing", l)
		if err != nil {
			t.Fatal(err)
		}
		if s == "" {
			return
		}
		v, whole := l[0].Value, strings.ToValidUTF8(s, "\uFFFD")
		if len(v) > MaxValue || !utf8.Valid(v) || !strings.HasPrefix(whole, string(v)) || len(v) < min(len(whole), MaxValue-utf8.UTFMax+1) {
			t.Errorf("%q became %q", s, v)
		}
		if want := append([]byte{kind, byte(len(v) + 2)}, v...); string(request[20:]) != string(want) {
			t.Errorf("packet %x, want %x", request[20:], want)
		}
	})
}
