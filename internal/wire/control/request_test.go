package control

import (
	"bytes"
	"errors"
	"reflect"
	"strings"
	"testing"
)

func TestParse(t *testing.T) {
	for _, tt := range []struct {
		name, in string
		want     Request
		n        int
		err      string
	}{
		{"update", "update\r\ntype: request\r\ncall_id: c@h\r\n\r\nrest",
			Request{"update", []Header{{"type", "request"}, {"call_id", "c@h"}}}, 39, ""},
		{"empty values are absent", "remove\r\ncall_id: c\r\nto_tag: \r\n\r\n",
			Request{"remove", []Header{{"call_id", "c"}}}, 32, ""},
		{"split at the first colon only", "x\r\nuser_agent: a: b: c\r\n\r\n",
			Request{"x", []Header{{"user_agent", "a: b: c"}}}, 26, ""},
		{"bytes are bytes", "x\r\nuser_agent: M\xfcller \x00\t\r\xff\r\n\r\n",
			Request{"x", []Header{{"user_agent", "M\xfcller \x00\t\r\xff"}}}, 30, ""},
		{"line feed ends a line", "x\na: b\n\n", Request{"x", []Header{{"a", "b"}}}, 8, ""},
		{"no headers", "version\r\n\r\n", Request{Command: "version"}, 11, ""},
		{"empty lines before", "\r\n\n\r\nversion\r\n\r\n", Request{Command: "version"}, 16, ""},
		{"nothing", "", Request{}, 0, ErrIncomplete.Error()},
		{"only empty lines", "\r\n\r\n", Request{}, 0, ErrIncomplete.Error()},
		{"no empty line yet", "update\r\ncall_id: c\r\n", Request{}, 0, ErrIncomplete.Error()},
		{"half an empty line", "update\r\ncall_id: c\r\n\r", Request{}, 0, ErrIncomplete.Error()},
		{"no colon and space", "update\r\ncall_id:c\r\na: b\r\n\r\nnext",
			Request{Command: "update"}, 27, `line 2 (offset 8): header "call_id:c" has no colon and space`},
		{"folded", "update\r\na: b\r\n\tc: d\r\n\r\n",
			Request{Command: "update"}, 23, "line 3 (offset 14): line starts with white space: a folded header value must be unfolded first"},
		{"no name", "update\r\n: b\r\n\r\n", Request{Command: "update"}, 15, "line 2 (offset 8): header has no name"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			req, n, err := Parse([]byte(tt.in), 64)
			if !reflect.DeepEqual(req, tt.want) || n != tt.n {
				t.Errorf("Parse(%q) = %+v, %d; want %+v, %d", tt.in, req, n, tt.want, tt.n)
			}
			if got := errText(err); got != tt.err {
				t.Errorf("Parse(%q) error %q, want %q", tt.in, got, tt.err)
			}
		})
	}
}

func errText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

func TestParseLimits(t *testing.T) {
	line := func(n int) string { return "x\r\na: " + strings.Repeat("b", n-3) + "\r\n\r\n" }
	if _, _, err := Parse([]byte(line(MaxLine)), MaxLine); err != nil {
		t.Errorf("a line of the limit: %v", err)
	}
	if _, _, err := Parse([]byte(line(MaxLine+1)), MaxLine); !errors.Is(err, ErrTooLong) {
		t.Errorf("a line over the limit: %v", err)
	}
	if _, _, err := Parse(bytes.Repeat([]byte("a"), MaxLine+2), MaxLine); !errors.Is(err, ErrTooLong) {
		t.Errorf("a line over the limit without end: %v", err)
	}
	if _, _, err := Parse(bytes.Repeat([]byte("a: b\r\n"), MaxRequest/6+1), MaxLine); !errors.Is(err, ErrTooLong) {
		t.Errorf("a request without end: %v", err)
	}
	var syntax *SyntaxError
	many := "x\r\n" + strings.Repeat("a: b\r\n", maxHeaders+1) + "\r\n"
	if _, n, err := Parse([]byte(many), MaxLine); !errors.As(err, &syntax) || n != len(many) {
		t.Errorf("%d headers: %d, %v", maxHeaders+1, n, err)
	}
}

func TestGet(t *testing.T) {
	r := Request{Headers: []Header{{"a", "1"}, {"b", "2"}, {"a", "3"}}}
	if v, ok := r.Get("a"); v != "3" || !ok {
		t.Errorf("Get(a) = %q, %v: the last one counts", v, ok)
	}
	if _, ok := r.Get("A"); ok {
		t.Error("names are case-sensitive")
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte("update\r\ntype: request\r\ncall_id: c@h\r\nto_tag: \r\n\r\nrest"))
	f.Add([]byte("\r\n\nx\na: b: c\n\n"))
	f.Add([]byte("x\r\n folded\r\n\r\n"))
	f.Fuzz(func(t *testing.T, in []byte) {
		first, n, err := Parse(in, 256)
		if n < 0 || n > len(in) {
			t.Fatalf("consumed %d of %d", n, len(in))
		}
		if err != nil {
			return
		}
		wire := Append(nil, first)
		if len(wire) > 2*n+4 {
			t.Fatalf("%d bytes became %d", n, len(wire))
		}
		second, m, err := Parse(wire, 256)
		if err != nil || m != len(wire) || !reflect.DeepEqual(first, second) {
			t.Fatalf("%q\n first %+v\n  wire %q\nsecond %+v %v", in, first, wire, second, err)
		}
	})
}
