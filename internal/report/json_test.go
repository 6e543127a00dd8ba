package report

import (
	"encoding/json"
	"strings"
	"testing"
)

func TestAppendIsTheFormReadersKnow(t *testing.T) {
	for _, c := range []struct {
		name string
		doc  any
		want string
	}{
		{"separators", map[string]any{"a": []int{1, 2}, "b": nil}, `{"a": [1, 2], "b": null}`},
		{"separators in strings stay", map[string]string{"ua": `a,b:c "d", {e}`}, `{"ua": "a,b:c \"d\", {e}"}`},
		{"angle brackets stay", []string{"<sip:a&b>"}, `["<sip:a&b>"]`},
		{"beyond ASCII", []string{"Zoë 😀"}, `["Zo\u00eb \ud83d\ude00"]`},
		{"line ends cannot break a line", []string{"a\r\nb\x00"}, `["a\r\nb\u0000"]`},
		{"bytes that are not UTF-8", []string{Text("Ph\xf6ne\xff")}, `["Ph\u00f6ne\u00ff"]`},
		{"backslash before a quote", []string{`\"`}, `["\\\""]`},
	} {
		got, err := Append(nil, c.doc)
		if err != nil || string(got) != c.want {
			t.Errorf("%s: got %s %v, want %s", c.name, got, err, c.want)
		}
	}
	if _, err := Append(nil, func() {}); err == nil {
		t.Error("what JSON cannot hold was accepted")
	}
}

// Whatever bytes a phone sends, the document is one ASCII line that says the same.
func FuzzAppend(f *testing.F) {
	for _, s := range []string{"", "a,b:c", "\xff\xfe", "\"\\", "\r\n", "\u2028", "\U0001F600"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		line, err := Append(nil, map[string]string{Text(s): Text(s)})
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range line {
			if c < 0x20 || c > 0x7f { // DEL passes, as in the original
				t.Fatalf("byte %#x in %q", c, line)
			}
		}
		var back map[string]string
		if err := json.Unmarshal(line, &back); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		if back[Text(s)] != Text(s) {
			t.Errorf("got %q, want %q", back, Text(s))
		}
	})
}

func TestPlainHasNothingNew(t *testing.T) {
	tag := "t"
	s := Session{CallID: "c", ToTag: &tag, RecordID: "r", Reason: "x", DialogID: "1:2", Relay: "n", Streams: []Stream{{Caller: &Quality{}, Callee: &Quality{}}}}
	line, err := Append(nil, s.Plain())
	if err != nil {
		t.Fatal(err)
	}
	for _, member := range []string{"record_id", "reason", "dialog_id", "relay", "quality"} {
		if strings.Contains(string(line), member) {
			t.Errorf("%s in %s", member, line)
		}
	}
	if s.Streams[0].Caller == nil {
		t.Error("the document itself was changed")
	}
	line, err = Append(nil, Relay{IP: "127.0.0.1", Version: "4.1.2", Status: "active", Uptime: 19, SessionCount: 3, StreamCount: map[string]int{"audio": 2}, Name: "n", Labels: []string{"eu"}}.Plain())
	want := `{"ip": "127.0.0.1", "version": "4.1.2", "status": "active", "uptime": 19, "session_count": 3, "stream_count": {"audio": 2}, "bps_relayed": 0}`
	if err != nil || string(line) != want {
		t.Errorf("got %s %v, want %s", line, err, want)
	}
}
