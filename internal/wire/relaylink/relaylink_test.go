package relaylink

import (
	"bytes"
	"errors"
	"reflect"
	"strings"
	"testing"

	"example.org/mediaproxy/internal/wire/control"
)

func TestSplitLine(t *testing.T) {
	for _, tt := range []struct {
		name, in, line string
		n              int
		err            error
	}{
		{"crlf", "ping\r\nx", "ping", 6, nil},
		{"lf", "ping\nx", "ping", 5, nil},
		{"only one CR belongs to the end", "a\r\r\n", "a\r", 4, nil},
		{"empty", "\r\n", "", 2, nil},
		{"incomplete", "pin", "", 0, ErrIncomplete},
		{"exactly the limit", "12345678\r\n", "12345678", 10, nil},
		{"one over", "123456789\r\n", "", 0, ErrTooLong},
		{"over without end", "1234567890", "", 0, ErrTooLong},
		{"at the limit, CR seen", "12345678\r", "", 0, ErrIncomplete},
	} {
		t.Run(tt.name, func(t *testing.T) {
			line, n, err := SplitLine([]byte(tt.in), 8)
			if string(line) != tt.line || n != tt.n || !errors.Is(err, tt.err) {
				t.Errorf("SplitLine(%q) = %q, %d, %v; want %q, %d, %v", tt.in, line, n, err, tt.line, tt.n, tt.err)
			}
		})
	}
}

// orders feeds bytes to a reader as a relay would.
func orders(t *testing.T, r *OrderReader, in string) (got []Order, faults []string) {
	t.Helper()
	b := []byte(in)
	for len(b) > 0 {
		line, n, err := SplitLine(b, MaxCommandLine)
		if err != nil {
			return got, append(faults, err.Error())
		}
		order, done, err := r.Line(line)
		if err != nil {
			faults = append(faults, err.Error())
		}
		if done {
			order.Body = bytes.Clone(order.Body)
			got = append(got, order)
		}
		b = b[n:]
	}
	return got, faults
}

func TestOrderReader(t *testing.T) {
	h := func(name, value string) control.Header { return control.Header{Name: name, Value: value} }
	command := func(name, seq string, hs ...control.Header) Order {
		return Order{Kind: OrderCommand, Command: Command{Name: name, Seq: seq, Headers: hs}}
	}
	for _, tt := range []struct {
		name   string
		link2  bool
		in     string
		want   []Order
		faults []string
	}{
		{"remove", false, "remove 8\r\ncall_id: c1\r\nfrom_tag: f\r\n\r\n",
			[]Order{command("remove", "8", h("call_id", "c1"), h("from_tag", "f"))}, nil},
		{"without headers", false, "sessions 0\r\n\r\nsummary 1\n\n",
			[]Order{command("sessions", "0"), command("summary", "1")}, nil},
		{"pong between headers", false, "update 1\r\ncall_id: c\r\npong\r\ncseq: 1\r\n\r\n",
			[]Order{{Kind: OrderPong}, command("update", "1", h("call_id", "c"), h("cseq", "1"))}, nil},
		{"headers of an unknown command are its own", false, "dance 3\r\nupdate: 4\r\n\r\nsummary 5\r\n\r\n",
			[]Order{command("dance", "3", h("update", "4")), command("summary", "5")}, nil},
		{"bad first line is skipped", false, "what is this\r\nsummary 5\r\n\r\n",
			[]Order{command("summary", "5")}, []string{`offset 0: "what is this" is not a command and its number`}},
		{"bad header is skipped", false, "summary 5\r\nnothing\r\ncseq: 4\r\n\r\n",
			[]Order{command("summary", "5", h("cseq", "4"))}, []string{`offset 0: header "nothing" has no name, colon and space`}},
		{"empty header", false, "remove 5\r\nto_tag: \r\ncall_id: a: b\r\n\r\n",
			[]Order{command("remove", "5", h("call_id", "a: b"))}, nil},
		{"bytes are bytes", false, "remove 5\r\ncall_id: \xff\x00\t\r\n\r\n",
			[]Order{command("remove", "5", h("call_id", "\xff\x00\t"))}, nil},
		{"link/2", true, "hello {\"name\": \"d\"}\r\nack 0af3\r\npong\r\nlist 0\r\nlimit: 10\r\n\r\n",
			[]Order{{Kind: OrderHello, Body: []byte(`{"name": "d"}`)}, {Kind: OrderAck, Body: []byte("0af3")}, {Kind: OrderPong},
				command("list", "0", h("limit", "10"))}, nil},
		{"ack is a command on the plain protocol", false, "ack 0af3\r\n\r\n", []Order{command("ack", "0af3")}, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, faults := orders(t, &OrderReader{Link2: tt.link2}, tt.in)
			if !reflect.DeepEqual(got, tt.want) {
				t.Errorf("orders of %q:\n got %+v\nwant %+v", tt.in, got, tt.want)
			}
			if !reflect.DeepEqual(faults, tt.faults) {
				t.Errorf("faults of %q:\n got %q\nwant %q", tt.in, faults, tt.faults)
			}
		})
	}
}

func TestOrderReaderBounds(t *testing.T) {
	r := &OrderReader{}
	if _, _, err := r.Line([]byte("update 1")); err != nil {
		t.Fatal(err)
	}
	for i := 0; ; i++ {
		_, _, err := r.Line([]byte("x: " + strings.Repeat("y", 1000)))
		if errors.Is(err, ErrTooLong) {
			if i > 70 {
				t.Errorf("a command of %d lines of 1000 bytes was kept", i)
			}
			return
		}
		if err != nil || i > 1000 {
			t.Fatalf("line %d: %v", i, err)
		}
	}
}

func TestParseReport(t *testing.T) {
	for _, tt := range []struct {
		in, seq, body string
		kind          ReportKind
		fault         string
	}{
		{"ping", "", "", ReportPing, ""},
		{`ping {"sessions": 3}`, "", `{"sessions": 3}`, ReportPing, ""},
		{"7 203.0.113.9 50002 50006", "7", "203.0.113.9 50002 50006", ReportAnswer, ""},
		{"0 []", "0", "[]", ReportAnswer, ""},
		{"9 ", "9", "", ReportAnswer, ""},
		{`expired {"call_id": "c 1"}`, "", `{"call_id": "c 1"}`, ReportExpired, ""},
		{`hello {}`, "", `{}`, ReportHello, ""},
		{`released {"call_id": "c"}`, "", `{"call_id": "c"}`, ReportReleased, ""},
		{"released ", "", "", 0, "offset 9: released without a call"},
		{"expired", "", "", 0, "offset 7: expired without a session"},
		{"hello ", "", "", 0, "offset 6: hello without a body"},
		{"", "", "", 0, "offset 0: empty line"},
		{"nonsense", "", "", 0, `offset 8: "nonsense" is not a number and its answer`},
	} {
		got, err := ParseReport([]byte(tt.in))
		if got.Kind != tt.kind || string(got.Seq) != tt.seq || string(got.Body) != tt.body {
			t.Errorf("ParseReport(%q) = %d %q %q, want %d %q %q", tt.in, got.Kind, got.Seq, got.Body, tt.kind, tt.seq, tt.body)
		}
		if (err == nil) != (tt.fault == "") || err != nil && err.Error() != tt.fault {
			t.Errorf("ParseReport(%q) error = %v, want %q", tt.in, err, tt.fault)
		}
	}
}

func TestAppend(t *testing.T) {
	got := AppendCommand(nil, Command{Name: Remove, Seq: "8", Headers: []control.Header{{Name: "call_id", Value: "c1"}}})
	got = AppendPong(got)
	got = AppendAck(got, "r1")
	got = AppendHello(got, []byte("{}"))
	got = AppendAnswer(got, "8", []byte("error"))
	got = AppendPing(got, nil)
	got = AppendPing(got, []byte("{}"))
	got = AppendExpired(got, []byte("{}"))
	got = AppendReleased(got, []byte("{}"))
	want := "remove 8\r\ncall_id: c1\r\n\r\npong\r\nack r1\r\nhello {}\r\n8 error\r\nping\r\nping {}\r\nexpired {}\r\nreleased {}\r\n"
	if string(got) != want {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}

func TestCutReason(t *testing.T) {
	for _, tt := range []struct {
		in, word, reason string
		ok               bool
	}{
		{"error", "error", "", true},
		{"error ports exhausted: 3 of 3", "error", "ports exhausted: 3 of 3", true},
		{"halting", "halting", "", true},
		{"errors", "", "", false},
		{"None", "", "", false},
		{"1.2.3.4 5", "", "", false},
	} {
		word, reason, ok := CutReason([]byte(tt.in))
		if word != tt.word || reason != tt.reason || ok != tt.ok {
			t.Errorf("CutReason(%q) = %q, %q, %v", tt.in, word, reason, ok)
		}
	}
}

func TestHello(t *testing.T) {
	h, err := ParseRelayHello([]byte(`{"name":"a/1.2.3.4","instance":"ff","ip":"1.2.3.4","ips":["1.2.3.4","::ffff:1.2.3.4","2001:db8::1","x"],"new":1}`))
	if err != nil {
		t.Fatal(err)
	}
	if got := h.Addrs(); len(got) != 2 || got[0].String() != "1.2.3.4" || got[1].String() != "2001:db8::1" {
		t.Errorf("Addrs() = %v", got)
	}
	for _, bad := range []string{``, `[]`, `{"name":"","instance":"x"}`, `{"name":"x"}`, `{"name":"a\nb","instance":"x"}`,
		`{"name":"` + strings.Repeat("n", 256) + `","instance":"x"}`, `{"name":5,"instance":"x"}`} {
		if _, err := ParseRelayHello([]byte(bad)); err == nil {
			t.Errorf("ParseRelayHello(%q) gave no error", bad)
		}
	}
	if d, err := ParseDispatcherHello([]byte(`{"name":"d","refused":"why"}`)); err != nil || d.Refused != "why" {
		t.Errorf("ParseDispatcherHello = %+v, %v", d, err)
	}
	l, err := ParseLoad([]byte(`{"sessions":3,"draining":true}`))
	if err != nil || l.Sessions != 3 || l.Draining == nil || !*l.Draining {
		t.Errorf("ParseLoad = %+v, %v", l, err)
	}
}

func FuzzParseReport(f *testing.F) {
	for _, s := range []string{"ping", "ping {}", "7 1.2.3.4 5", "expired {}", "released {}", "hello {}", " x", "9 "} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, line []byte) {
		if bytes.IndexByte(line, '\n') >= 0 || bytes.HasSuffix(line, []byte{'\r'}) {
			return // SplitLine never hands these out
		}
		first, err := ParseReport(line)
		if err != nil {
			return
		}
		wire := AppendReport(nil, first)
		again, n, err := SplitLine(wire, len(line)+1)
		if err != nil || n != len(wire) {
			t.Fatalf("%q was written as %q: %v", line, wire, err)
		}
		second, err := ParseReport(again)
		if err != nil || second.Kind != first.Kind || !bytes.Equal(second.Seq, first.Seq) || !bytes.Equal(second.Body, first.Body) {
			t.Fatalf("%q: first %+v, second %+v, %v", line, first, second, err)
		}
	})
}

func FuzzOrders(f *testing.F) {
	f.Add([]byte("update 1\r\ncall_id: c\r\npong\r\ncseq: 1\r\n\r\n"), true)
	f.Add([]byte("hello {}\r\nack 1\r\nlist 0\n\n"), true)
	f.Add([]byte("a b\r\n:\r\nc: \r\n\r\n\r\n\r\n"), false)
	f.Fuzz(func(t *testing.T, in []byte, link2 bool) {
		first, _ := orders(t, &OrderReader{Link2: link2}, string(in))
		var wire []byte
		for _, o := range first {
			switch o.Kind {
			case OrderCommand:
				wire = AppendCommand(wire, o.Command)
			case OrderPong:
				wire = AppendPong(wire)
			case OrderHello:
				wire = AppendHello(wire, o.Body)
			case OrderAck:
				wire = AppendAck(wire, string(o.Body))
			}
		}
		second, faults := orders(t, &OrderReader{Link2: link2}, string(wire))
		if faults != nil || len(first) != len(second) || len(first) > 0 && !reflect.DeepEqual(first, second) {
			t.Fatalf("%q\n first %+v\nsecond %+v\nfaults %q", in, first, second, faults)
		}
	})
}

func FuzzHello(f *testing.F) {
	f.Add([]byte(`{"name":"a","instance":"b","ips":["1.2.3.4"]}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		h, err := ParseRelayHello(body)
		if err != nil {
			return
		}
		if h.Name == "" || len(h.Name) > maxName || strings.ContainsAny(h.Name, "\r\n") || len(h.Addrs()) > len(h.IPs)+1 {
			t.Fatalf("%q gave %+v", body, h)
		}
	})
}
