package relaylink

import (
	"bytes"
	"encoding/json"
	"errors"
	"strconv"
	"strings"
	"testing"
)

func TestParsePage(t *testing.T) {
	deep := strings.Repeat("[", maxDepth) + strings.Repeat("]", maxDepth)
	for _, tt := range []struct {
		name, in string
		docs     []string
		next     uint64
		fault    string
	}{
		{"nothing", `{"sessions": []}`, nil, 0, ""},
		{"the last page", `{"sessions": [{"a": 1}, {}]}`, []string{`{"a": 1}`, `{}`}, 0, ""},
		{"more follow", `{"sessions": [{"a": 1}], "next": 4711}`, []string{`{"a": 1}`}, 4711, ""},
		{"the largest", `{"sessions":[],"next":18446744073709551615}`, nil, 1<<64 - 1, ""},
		{"another order, other spaces", " {\t\"next\" : 7 , \"sessions\" :\r[ { } , {} ] } ", []string{`{ }`, `{}`}, 7, ""},
		{"members that came later", `{"x": {"sessions": [1]}, "sessions": [{}], "y": [[]], "z": null, "zz": "]}"}`, []string{`{}`}, 0, ""},
		{"a relay without pages", `[{"a": [1, {"b": "]"}]}, {"c": 2}]`, []string{`{"a": [1, {"b": "]"}]}`, `{"c": 2}`}, 0, ""},
		{"one without calls", `[]`, nil, 0, ""},
		{"quotes and brackets in text", `[{"a": "\"}\\"}, {"b\\\"": "{[,"}]`, []string{`{"a": "\"}\\"}`, `{"b\\\"": "{[,"}`}, 0, ""},
		{"empty", ``, nil, 0, "neither a page nor a list"},
		{"a word", `error unknown command`, nil, 0, "neither a page nor a list"},
		{"no sessions", `{"next": 1}`, nil, 0, "page without sessions"},
		{"cut in a string", `{"sessions": [{"a": "b`, nil, 0, "string without end"},
		{"cut in an object", `{"sessions": [{"a": 1`, nil, 0, "ends too early"},
		{"cut between objects", `{"sessions": [{"a": 1}`, nil, 0, "no comma between sessions"},
		{"cut behind the list", `{"sessions": []`, nil, 0, "no comma between members"},
		{"brackets that do not match", `[{"a": [1}]`, nil, 0, "brackets do not match"},
		{"a list of something else", `[1, 2]`, nil, 0, "session is no object"},
		{"sessions that are no list", `{"sessions": {}}`, nil, 0, "sessions are no array"},
		{"no comma", `[{} {}]`, nil, 0, "no comma between sessions"},
		{"a comma too many", `[{},]`, nil, 0, "session is no object"},
		{"two pages", `[][]`, nil, 0, "more than one page"},
		{"next 0", `{"sessions": [], "next": 0}`, nil, 0, "no number above 0"},
		{"next below 0", `{"sessions": [], "next": -1}`, nil, 0, "no number above 0"},
		{"next that is a string", `{"sessions": [], "next": "1"}`, nil, 0, "no number above 0"},
		{"next without value", `{"sessions": [], "next": }`, nil, 0, "no value"},
		{"sessions twice", `{"sessions": [], "sessions": []}`, nil, 0, "a second time"},
		{"next twice", `{"sessions": [], "next": 1, "next": 2}`, nil, 0, "a second time"},
		{"a name with escapes", `{"sessions": [], "n\u0065xt": 2}`, nil, 0, "written oddly"},
		{"a name that is none", `{sessions: []}`, nil, 0, "no name of a member"},
		{"no colon", `{"sessions" []}`, nil, 0, "no colon"},
		{"too deep", `[{"a": ` + deep + `}]`, nil, 0, "too deep"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			old := []json.RawMessage{json.RawMessage("old")}
			docs, next, err := ParsePage(old, []byte(tt.in))
			if tt.fault != "" {
				var syntax *SyntaxError
				if !errors.As(err, &syntax) || !strings.Contains(syntax.Text, tt.fault) || syntax.Offset > len(tt.in) {
					t.Fatalf("%s: got error %v, want one about %q", tt.in, err, tt.fault)
				}
				return
			}
			if err != nil || next != tt.next || len(docs) != 1+len(tt.docs) {
				t.Fatalf("%s: got %q, next %d, %v", tt.in, docs, next, err)
			}
			for i, want := range tt.docs {
				if string(docs[i+1]) != want {
					t.Errorf("%s: document %d is %s, want %s", tt.in, i, docs[i+1], want)
				}
			}
		})
	}
}

// What is accepted is what encoding/json finds in it, if that accepts it too; and
// written as a page it is read again.
func FuzzParsePage(f *testing.F) {
	for _, s := range []string{`{"sessions": [{"a": "\"]"}, {}], "next": 12}`, `[{"a": [1, 2, {"b": null}]}]`, `{"x": -1.5e3, "sessions": []}`, ` [ ] `, `{"sessions": [{]}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		docs, next, err := ParsePage(nil, body)
		if err != nil {
			return
		}
		line := OpenPage(nil)
		for i, doc := range docs {
			if doc[0] != '{' || doc[len(doc)-1] != '}' {
				t.Fatalf("%q: document %q", body, doc)
			}
			if i > 0 {
				line = append(line, ',', ' ')
			}
			line = append(line, doc...)
		}
		line = ClosePage(line, next)
		again, nextAgain, err := ParsePage(nil, line)
		if err != nil || nextAgain != next || len(again) != len(docs) {
			t.Fatalf("%q was written as %q: %d of %d, next %d of %d, %v", body, line, len(again), len(docs), nextAgain, next, err)
		}
		for i := range docs {
			if !bytes.Equal(docs[i], again[i]) {
				t.Fatalf("%q was written as %q: %q, want %q", body, line, again[i], docs[i])
			}
		}
		if !json.Valid(body) {
			return // looser here
		}
		var list []json.RawMessage
		var members map[string]json.RawMessage
		if json.Unmarshal(body, &members) == nil {
			body = members["sessions"]
			if n, _ := strconv.ParseUint(string(members["next"]), 10, 64); n != next {
				t.Fatalf("next %d, want %d", next, n)
			}
		}
		if err := json.Unmarshal(body, &list); err != nil || len(list) != len(docs) {
			t.Fatalf("%q: %d documents, want %d, %v", body, len(docs), len(list), err)
		}
		for i := range list {
			if !bytes.Equal(list[i], docs[i]) {
				t.Fatalf("document %d is %q, want %q", i, docs[i], list[i])
			}
		}
	})
}

func BenchmarkParsePage(b *testing.B) {
	line := OpenPage(nil)
	for range 128 {
		if len(line) > 20 {
			line = append(line, ',', ' ')
		}
		line = append(line, `{"call_id": "3c26700c1adb-1@192.0.2.10", "from_tag": "k2u5x", "to_tag": null, "duration": 4711, "caller_ua": "Phone \"1\"", `+
			`"streams": [{"media_type": "audio", "caller_packets": 123456, "caller_local": "203.0.113.9:50000", "callee_remote": "Unknown"}]}`...)
	}
	line = ClosePage(line, 128)
	var docs []json.RawMessage
	b.SetBytes(int64(len(line)))
	b.ReportAllocs()
	for b.Loop() {
		var err error
		if docs, _, err = ParsePage(docs[:0], line); err != nil || len(docs) != 128 {
			b.Fatal(len(docs), err)
		}
	}
}
