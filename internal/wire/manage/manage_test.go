package manage

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"reflect"
	"strings"
	"testing"
)

func TestParseRequest(t *testing.T) {
	for _, tt := range []struct {
		in   string
		want Request
		err  string
	}{
		{"summary", Request{Verb: Summary}, ""},
		{"sessions", Request{Verb: Sessions}, ""},
		{"version", Request{Verb: Version}, ""},
		{"quit", Request{Verb: Quit}, ""},
		{"exit", Request{Verb: Quit}, ""},
		{"session 3c26@192.0.2.10", Request{Verb: Session, CallID: "3c26@192.0.2.10"}, ""},
		{"explain a%20b", Request{Verb: Explain, CallID: "a%20b"}, ""},
		{"terminate c", Request{Verb: Terminate, CallID: "c"}, ""},
		{"drain relay/192.0.2.1", Request{Verb: Drain, Relay: "relay/192.0.2.1"}, ""},
		{"drain 192.0.2.1 cancel", Request{Verb: Drain, Relay: "192.0.2.1", Cancel: true}, ""},
		{"sessions lost", Request{Verb: Sessions, Filter: Filter{Lost: true}}, ""},
		{"sessions call_id=c=d from=al to=bo relay=r order=-duration limit=50",
			Request{Verb: Sessions, Filter: Filter{CallID: "c=d", From: "al", To: "bo", Relay: "r", Order: "-duration", Limit: 50}}, ""},
		{"stored", Request{Verb: Stored}, ""},
		{"stored after=7 since=1700000000 limit=20", Request{Verb: Stored, Page: Page{After: 7, Since: 1700000000, Limit: 20}}, ""},
		{"stored after=-1", Request{Verb: Stored}, `"after=-1": want after=, since= or limit= and a number`},
		{"stored before=1", Request{Verb: Stored}, `"before=1": want after=, since= or limit= and a number`},
		{"stored limit=1048577", Request{Verb: Stored}, "limit is too large"},
		{"", Request{}, "unknown command"},
		{"Summary", Request{}, "unknown command"},
		{"summary now", Request{}, "unknown command"},
		{"help", Request{}, "unknown command"},
		{"session", Request{}, "session needs one Call-ID, got 0 words"},
		{"terminate a b", Request{}, "terminate needs one Call-ID, got 2 words"},
		{"drain", Request{}, "drain needs a relay and, to take it back, the word cancel"},
		{"drain r stop", Request{}, "drain needs a relay and, to take it back, the word cancel"},
		{"sessions found", Request{Verb: Sessions}, `"found" is neither lost nor name=value`},
		{"sessions limit=0", Request{Verb: Sessions}, "limit=0: not a number above 0"},
		{"sessions limit=x", Request{Verb: Sessions}, "limit=x: not a number above 0"},
		{"sessions order=age", Request{Verb: Sessions}, "order=age: not one of start, duration, bytes, call_id, from, to, relay"},
		{"sessions ip=1", Request{Verb: Sessions}, `no filter "ip": have call_id, from, to, relay, order, limit, lost`},
	} {
		got, err := ParseRequest([]byte(tt.in))
		text := ""
		if err != nil {
			text = err.Error()
		}
		if !reflect.DeepEqual(got, tt.want) || text != tt.err {
			t.Errorf("ParseRequest(%q) = %+v, %q; want %+v, %q", tt.in, got, text, tt.want, tt.err)
		}
		var syntax *SyntaxError
		if err != nil && !errors.Is(err, ErrUnknown) && !errors.As(err, &syntax) {
			t.Errorf("ParseRequest(%q): untyped error %T", tt.in, err)
		}
	}
}

func TestAppendDocs(t *testing.T) {
	raw := func(s ...string) (docs []json.RawMessage) {
		for _, d := range s {
			docs = append(docs, json.RawMessage(d))
		}
		return docs
	}
	for _, tt := range []struct {
		format Format
		docs   []json.RawMessage
		want   string
	}{
		{Array, nil, "[]\r\n"},
		{Array, raw(`{"a": 1}`), "[{\"a\": 1}]\r\n"},
		{Array, raw(`{"a": 1}`, `{}`), "[{\"a\": 1}, {}]\r\n"},
		{Lines, nil, "\r\n"},
		{Lines, raw(`{"a": 1}`, `{}`), "{\"a\": 1}\r\n{}\r\n\r\n"},
	} {
		got := AppendDocs(nil, tt.format, tt.docs)
		if string(got) != tt.want {
			t.Errorf("AppendDocs(%d, %s) = %q, want %q", tt.format, tt.docs, got, tt.want)
		}
		// It is the same when documents come one after the other.
		list, pieces := List{Format: tt.format}, []byte(nil)
		for i := range tt.docs {
			pieces = list.Append(list.Append(pieces, tt.docs[i:i+1]), nil)
		}
		if pieces = list.Close(pieces); !bytes.Equal(pieces, got) {
			t.Errorf("in pieces %q, want %q", pieces, got)
		}
		back, err := ReadAnswer(reader(got))
		if err != nil || len(back.Docs) != len(tt.docs) || back.Docs == nil {
			t.Errorf("%q read as %+v, %v", got, back, err)
		}
		for i := range tt.docs {
			if !bytes.Equal(back.Docs[i], tt.docs[i]) {
				t.Errorf("%q: document %d read as %s", got, i, back.Docs[i])
			}
		}
	}
}

// reader hands out the lines of b.
func reader(b []byte) func() ([]byte, error) {
	return func() ([]byte, error) {
		line, rest, ok := bytes.Cut(b, []byte("\n"))
		if !ok {
			return nil, io.ErrUnexpectedEOF
		}
		b = rest
		return bytes.TrimSuffix(line, []byte("\r")), nil
	}
}

func TestReadAnswer(t *testing.T) {
	for _, tt := range []struct {
		in   string
		want Answer
		err  string
	}{
		{string(AppendError(nil, "")), Answer{Error: "unknown command"}, ""},
		{string(AppendError(nil, "no relay\nthere")), Answer{Error: "no relay there"}, ""},
		{string(AppendText(nil, "4.1.2")), Answer{Text: "4.1.2"}, ""},
		{"[1, 2\r\n", Answer{}, "answer of the dispatcher: unexpected end of JSON input"},
		{"{}\r\nx\r\n\r\n", Answer{}, `answer of the dispatcher: line 2 is not JSON: "x"`},
		{"{}\r\n", Answer{}, "answer of the dispatcher ends after 1 documents: unexpected EOF"},
		{"", Answer{}, "unexpected EOF"},
	} {
		got, err := ReadAnswer(reader([]byte(tt.in)))
		text := ""
		if err != nil {
			text = err.Error()
		}
		if !reflect.DeepEqual(got, tt.want) || text != tt.err {
			t.Errorf("ReadAnswer(%q) = %+v, %q; want %+v, %q", tt.in, got, text, tt.want, tt.err)
		}
	}
}

func TestParseFormat(t *testing.T) {
	for in, want := range map[string]Format{"": Array, "array": Array, "lines": Lines} {
		if got, err := ParseFormat(in); got != want || err != nil {
			t.Errorf("ParseFormat(%q) = %d, %v", in, got, err)
		}
	}
	if _, err := ParseFormat("xml"); err == nil {
		t.Error("xml is no format")
	}
}

func FuzzParseRequest(f *testing.F) {
	for _, s := range []string{"summary", "exit", "sessions lost call_id=c limit=3 order=-from", "drain r cancel", "stored after=1 since=2 limit=3", "session \xff"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, line []byte) {
		first, err := ParseRequest(line)
		if err != nil {
			return
		}
		wire := AppendRequest(nil, first)
		if !bytes.HasSuffix(wire, []byte("\r\n")) || strings.ContainsAny(string(wire[:len(wire)-2]), "\r\n") {
			t.Fatalf("%q was written as %q", line, wire)
		}
		second, err := ParseRequest(wire[:len(wire)-2])
		if err != nil || !reflect.DeepEqual(first, second) {
			t.Fatalf("%q: first %+v, second %+v, %v", line, first, second, err)
		}
	})
}

func FuzzReadAnswer(f *testing.F) {
	f.Add([]byte("[{\"a\": 1}, {}]\r\n"))
	f.Add([]byte("{\"a\": 1}\r\n{}\r\n\r\n"))
	f.Add([]byte("error why\r\n"))
	f.Fuzz(func(t *testing.T, in []byte) {
		first, err := ReadAnswer(reader(in))
		if err != nil || first.Docs == nil {
			return
		}
		second, err := ReadAnswer(reader(AppendDocs(nil, Array, first.Docs)))
		if err != nil || len(first.Docs) != len(second.Docs) {
			t.Fatalf("%q: first %q, second %q, %v", in, first.Docs, second.Docs, err)
		}
	})
}
