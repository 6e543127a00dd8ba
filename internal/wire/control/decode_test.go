package control

import (
	"errors"
	"net/netip"
	"reflect"
	"strings"
	"testing"
)

const firstUpdate = "update\r\ntype: request\r\ndialog_id: 13116830126763\r\ncall_id: 3c26700c1adb@192.0.2.10\r\ncseq: 1\r\n" +
	"from_uri: alice@example.com\r\nto_uri: bob@example.com\r\nfrom_tag: k2u5x\r\nto_tag: \r\nuser_agent: Phone/1.0\r\n" +
	"signaling_ip: 198.51.100.7\r\nmedia_relay: \r\n" +
	"media: audio:192.168.1.5:4000:sendrecv:ice=no,video:2001:db8::5:4002:SendOnly:ice=yes\r\n\r\n"

func TestUpdateBothWays(t *testing.T) {
	req, _, err := Parse([]byte(firstUpdate), MaxLine)
	if err != nil {
		t.Fatal(err)
	}
	u, err := DecodeUpdate(req.Headers)
	if err != nil {
		t.Fatal(err)
	}
	want := Update{
		Kind: KindRequest, CallID: "3c26700c1adb@192.0.2.10", FromTag: "k2u5x",
		FromURI: "alice@example.com", ToURI: "bob@example.com", UserAgent: "Phone/1.0", CSeq: 1, DialogID: "13116830126763",
		Signaling: Signaling{IP: netip.MustParseAddr("198.51.100.7")},
		HasMedia:  true,
		Media: []Media{
			{Type: "audio", Addr: netip.MustParseAddr("192.168.1.5"), Port: 4000, Direction: "sendrecv"},
			{Type: "video", Addr: netip.MustParseAddr("2001:db8::5"), Port: 4002, Direction: "SendOnly", ICE: true},
		},
	}
	if !reflect.DeepEqual(u, want) {
		t.Errorf("decoded\n got %+v\nwant %+v", u, want)
	}
	if got := string(Append(nil, Request{CommandUpdate, u.Headers()})); got != firstUpdate {
		t.Errorf("written again\n got %q\nwant %q", got, firstUpdate)
	}
}

func TestDecodeUpdateErrors(t *testing.T) {
	full := map[string]string{"type": "reply", "call_id": "c", "from_tag": "f", "cseq": "1"}
	with := func(name, value string) (hs []Header) {
		for _, k := range []string{"type", "call_id", "from_tag", "cseq"} {
			if k != name {
				hs = append(hs, Header{k, full[k]})
			}
		}
		if value != "" {
			hs = append(hs, Header{name, value})
		}
		return hs
	}
	for _, tt := range []struct{ name, value, want string }{
		{"type", "", "header type (offset 0): missing or empty"},
		{"type", "Request", `header type (offset 0): "Request" is neither request nor reply`},
		{"call_id", "", "header call_id (offset 0): missing or empty"},
		{"from_tag", "", "header from_tag (offset 0): missing or empty"},
		{"cseq", "", "header cseq (offset 0): missing or empty"},
		{"cseq", "-1", `header cseq (offset 0): "-1" is not a number below 2^32`},
		{"cseq", "4294967296", `header cseq (offset 0): "4294967296" is not a number below 2^32`},
		{"media", "audio:1.2.3.4:5:sendrecv,audio", `header media (offset 25): "audio" is not a direction (sendrecv, sendonly, recvonly, inactive)`},
		{"user_agent", "", ""},
		{"cseq", "4294967295", ""},
	} {
		_, err := DecodeUpdate(with(tt.name, tt.value))
		if got := errText(err); got != tt.want {
			t.Errorf("%s = %q: error %q, want %q", tt.name, tt.value, got, tt.want)
		}
		var header *HeaderError
		var media *MediaError
		if err != nil && !errors.As(err, &header) && !errors.As(err, &media) {
			t.Errorf("%s = %q: untyped error %T", tt.name, tt.value, err)
		}
	}
}

func TestDecodeRemove(t *testing.T) {
	r, err := DecodeRemove([]Header{{"call_id", "c"}, {"from_tag", "f"}})
	if err != nil || r != (Remove{CallID: "c", FromTag: "f"}) {
		t.Errorf("got %+v, %v", r, err)
	}
	want := "remove\r\ncall_id: c\r\nfrom_tag: f\r\nto_tag: \r\n\r\n"
	if got := string(Append(nil, Request{CommandRemove, r.Headers()})); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if _, err := DecodeRemove([]Header{{"from_tag", "f"}}); err == nil {
		t.Error("a remove without call_id was accepted")
	}
}

func TestParseMedia(t *testing.T) {
	ip := netip.MustParseAddr
	for _, tt := range []struct {
		in   string
		want []Media
		err  string
	}{
		{"audio:10.0.0.1:4000:sendrecv", []Media{{"audio", ip("10.0.0.1"), 4000, "sendrecv", false}}, ""},
		{"audio:2001:db8::5:4000:sendrecv:ice=yes", []Media{{"audio", ip("2001:db8::5"), 4000, "sendrecv", true}}, ""},
		{"audio::::0:inactive", []Media{{"audio", ip("::"), 0, "inactive", false}}, ""},
		{"audio:::1:9:inactive", []Media{{"audio", ip("::1"), 9, "inactive", false}}, ""},
		{"audio:::ffff:10.0.0.1:9:inactive", []Media{{"audio", ip("10.0.0.1"), 9, "inactive", false}}, ""},
		{"image:0.0.0.0:0:RecvOnly:x=1::ice=yes:", []Media{{"image", ip("0.0.0.0"), 0, "RecvOnly", true}}, ""},
		{"audio:1.2.3.4:5:sendrecv:ice=yes:ice=no", []Media{{"audio", ip("1.2.3.4"), 5, "sendrecv", false}}, ""},
		{",,audio:1.2.3.4:5:sendrecv,,", []Media{{"audio", ip("1.2.3.4"), 5, "sendrecv", false}}, ""},
		{"", nil, ""},
		{",", nil, ""},
		{"audio", nil, `header media (offset 0): "audio" is not a direction (sendrecv, sendonly, recvonly, inactive)`},
		{"audio:1.2.3.4:5:sideways", nil, `header media (offset 0): "sideways" is not a direction (sendrecv, sendonly, recvonly, inactive)`},
		{"audio:1.2.3.4:65536:sendrecv", nil, `header media (offset 0): "65536" is not a port`},
		{"audio:1.2.3.4:+5:sendrecv", nil, `header media (offset 0): "+5" is not a port`},
		{",audio:1.2.3:5:sendrecv", nil, `header media (offset 1): "1.2.3" is not an IP address`},
		{"audio:fe80::1%eth0:5:sendrecv", nil, `header media (offset 0): "fe80::1%eth0" is not an IP address`},
		{":1.2.3.4:5:sendrecv", nil, "header media (offset 0): stream has no media type"},
		{"sendrecv", nil, `header media (offset 0): "" is not a port`},
		{"ice=yes", nil, `header media (offset 0): "ice=yes" is not a direction (sendrecv, sendonly, recvonly, inactive)`},
		{strings.Repeat("a:1.2.3.4:5:inactive,", MaxStreams+1), nil, "header media (offset 1344): more than 64 streams"},
	} {
		got, err := ParseMedia(tt.in)
		if !reflect.DeepEqual(got, tt.want) || errText(err) != tt.err {
			t.Errorf("ParseMedia(%q)\n got %+v, %v\nwant %+v, %s", tt.in, got, err, tt.want, tt.err)
		}
	}
}

func TestParseSignaling(t *testing.T) {
	ip := netip.MustParseAddr
	for _, tt := range []struct {
		in, out string
		want    Signaling
	}{
		{"198.51.100.7", "198.51.100.7", Signaling{IP: ip("198.51.100.7")}},
		{"2001:db8::1", "2001:db8::1", Signaling{IP: ip("2001:db8::1")}},
		{"198.51.100.7_192.0.2.1", "198.51.100.7_192.0.2.1", Signaling{IP: ip("198.51.100.7"), DestinationIP: ip("192.0.2.1")}},
		{"1.2.3.4_5.6.7.8_9.9.9.9", "", Signaling{}},
		{"junk_192.0.2.1", `{"destination_ip":"192.0.2.1"}`, Signaling{DestinationIP: ip("192.0.2.1")}},
		{`{"signaling_ip": "1.2.3.4", "destination_ip": null, "username": "al\"ice"}`,
			`{"signaling_ip":"1.2.3.4","username":"al\"ice"}`, Signaling{IP: ip("1.2.3.4"), Username: `al"ice`}},
		{`{"signaling_ip": 5, "username": ["x"]}`, "", Signaling{}},
		{`{"signaling_ip": `, "", Signaling{}},
		{"junk\xff", "", Signaling{}},
		{"", "", Signaling{}},
	} {
		got := ParseSignaling(tt.in)
		if got != tt.want || got.String() != tt.out {
			t.Errorf("ParseSignaling(%q) = %+v %q, want %+v %q", tt.in, got, got, tt.want, tt.out)
		}
	}
}

func TestParseAnswer(t *testing.T) {
	ip := netip.MustParseAddr
	for _, tt := range []struct {
		in, out string
		want    Answer
		err     string
	}{
		{"203.0.113.9 50002 50006", "203.0.113.9 50002 50006", Answer{ip("203.0.113.9"), []uint16{50002, 50006}}, ""},
		{"2001:db8::9 0\r\n", "2001:db8::9 0", Answer{ip("2001:db8::9"), []uint16{0}}, ""},
		{" 203.0.113.9\t1 ", "203.0.113.9 1", Answer{ip("203.0.113.9"), []uint16{1}}, ""},
		{"None", "", Answer{}, `answer (offset 0): "None" is not an IP address`},
		{"error", "", Answer{}, `answer (offset 0): "error" is not an IP address`},
		{"1.2.3.4 5 70000", "", Answer{}, `answer (offset 10): "70000" is not a port`},
		{"", "", Answer{}, "answer (offset 0): empty"},
		{"1.2.3.4" + strings.Repeat(" 1", 65), "", Answer{}, "answer (offset 136): more than 64 ports"},
	} {
		got, err := ParseAnswer([]byte(tt.in))
		if !reflect.DeepEqual(got, tt.want) || errText(err) != tt.err {
			t.Errorf("ParseAnswer(%q) = %+v, %v; want %+v, %s", tt.in, got, err, tt.want, tt.err)
		}
		if err == nil && string(got.Append(nil)) != tt.out {
			t.Errorf("ParseAnswer(%q) written as %q, want %q", tt.in, got.Append(nil), tt.out)
		}
	}
}

func FuzzMedia(f *testing.F) {
	f.Add("audio:10.0.0.1:4000:sendrecv:ice=no,video:2001:db8::5:4002:SendOnly:ice=yes")
	f.Add("a::::0:inactive:x=y::")
	f.Fuzz(func(t *testing.T, in string) {
		first, err := ParseMedia(in)
		if err != nil {
			return
		}
		if len(first) > MaxStreams {
			t.Fatalf("%d streams", len(first))
		}
		wire := AppendMedia(nil, first)
		second, err := ParseMedia(string(wire))
		if err != nil || !reflect.DeepEqual(first, second) {
			t.Fatalf("%q\n first %+v\n  wire %q\nsecond %+v %v", in, first, wire, second, err)
		}
	})
}

func FuzzSignaling(f *testing.F) {
	for _, s := range []string{"1.2.3.4", "1.2.3.4_::1", `{"signaling_ip": "1.2.3.4", "username": "u\u00e9"}`, "{"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, in string) {
		first := ParseSignaling(in)
		if second := ParseSignaling(first.String()); second != first {
			t.Fatalf("%q: first %+v, %q, second %+v", in, first, first, second)
		}
	})
}

func FuzzAnswer(f *testing.F) {
	f.Add([]byte("203.0.113.9 50002 50006"))
	f.Add([]byte("::1 0"))
	f.Fuzz(func(t *testing.T, in []byte) {
		first, err := ParseAnswer(in)
		if err != nil {
			return
		}
		second, err := ParseAnswer(first.Append(nil))
		if err != nil || !reflect.DeepEqual(first, second) {
			t.Fatalf("%q: first %+v, second %+v, %v", in, first, second, err)
		}
	})
}

func FuzzDecodeUpdate(f *testing.F) {
	f.Add([]byte(firstUpdate))
	f.Fuzz(func(t *testing.T, in []byte) {
		req, _, err := Parse(in, MaxLine)
		if err != nil {
			return
		}
		first, err := DecodeUpdate(req.Headers)
		if err != nil {
			return
		}
		again, _, err := Parse(Append(nil, Request{CommandUpdate, first.Headers()}), MaxRequest)
		if err != nil {
			t.Fatalf("%q: %v", in, err)
		}
		second, err := DecodeUpdate(again.Headers)
		if err != nil || !reflect.DeepEqual(first, second) {
			t.Fatalf("%q\n first %+v\nsecond %+v %v", in, first, second, err)
		}
	})
}

func BenchmarkParseUpdate(b *testing.B) {
	in := []byte(firstUpdate)
	b.ReportAllocs()
	for b.Loop() {
		req, _, err := Parse(in, MaxLine)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := DecodeUpdate(req.Headers); err != nil {
			b.Fatal(err)
		}
	}
}
