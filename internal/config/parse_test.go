package config

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// dump prints what parse found, one line each, for comparison.
func dump(sections []section, problems Problems) string {
	var b strings.Builder
	for _, s := range sections {
		fmt.Fprintf(&b, "%d [%s]\n", s.line, s.name)
		for _, e := range s.entries {
			fmt.Fprintf(&b, "%d %s=%q\n", e.line, e.name, e.value)
		}
	}
	for _, p := range problems {
		fmt.Fprintf(&b, "%d ! %s\n", p.Line, p.Text)
	}
	return b.String()
}

// The wanted values were compared with Python's ConfigParser.
func TestParse(t *testing.T) {
	tests := []struct{ name, in, want string }{
		{"empty", "", ""},
		{"both delimiters", "[a]\nb = c\nd: e\n", "1 [a]\n2 b=\"c\"\n3 d=\"e\"\n"},
		{"first delimiter counts", "[a]\nb = c:d = e\n", "1 [a]\n2 b=\"c:d = e\"\n"},
		{"no blanks", "[a]\nb=c", "1 [a]\n2 b=\"c\"\n"},
		{"space in a name", "[a]\nb c = d\n", "1 [a]\n2 b c=\"d\"\n"},
		{"dash equals underscore", "[a]\nb-c = d\n", "1 [a]\n2 b_c=\"d\"\n"},
		{"case stays", "[a]\nBc = d\n", "1 [a]\n2 Bc=\"d\"\n"},
		{"comments", "# x\n; y\n[a]\n  # z\nb = c\n", "3 [a]\n5 b=\"c\"\n"},
		{"no comment behind a value", "[a]\nb = c ; d # e\n", "1 [a]\n2 b=\"c ; d # e\"\n"},
		{"quotes are text", "[a]\nb = \"c\"\nd = `e\nf = \"\"\"g\n", "1 [a]\n2 b=\"\\\"c\\\"\"\n3 d=\"`e\"\n4 f=\"\\\"\\\"\\\"g\"\n"},
		{"backslash is text", "[a]\nb = c\\\nd = e\n", "1 [a]\n2 b=\"c\\\\\"\n3 d=\"e\"\n"},
		{"continuation", "[a]\nb = c\n  d\n\te\nf = g\n", "1 [a]\n2 b=\"c\\nd\\ne\"\n5 f=\"g\"\n"},
		{"continuation behind nothing", "[a]\nb =\n  c\n", "1 [a]\n2 b=\"\\nc\"\n"},
		{"comment inside a continuation", "[a]\nb = c\n# x\n  d\n", "1 [a]\n2 b=\"c\\nd\"\n"},
		{"empty line inside a continuation", "[a]\nb = c\n\n  d\n\n", "1 [a]\n2 b=\"c\\n\\nd\"\n"},
		{"continuation looks like a section", "[a]\nb = c\n [d]\n", "1 [a]\n2 b=\"c\\n[d]\"\n"},
		{"all indented", "  [a]\n  b = c\n  d = e\n", "1 [a]\n2 b=\"c\"\n3 d=\"e\"\n"},
		{"text behind a section", "[a] ; b\nc = d\n", "1 [a]\n2 c=\"d\"\n"},
		{"bracket in a section", "[a]b]\n", "1 [a]b]\n"},
		{"line ends", "[a]\r\nb = c\rd = e\n", "1 [a]\n2 b=\"c\"\n3 d=\"e\"\n"},
		{"byte order mark", "\xef\xbb\xbf[a]\nb = c\n", "1 [a]\n2 b=\"c\"\n"},
		{"not UTF-8", "[a]\nb = \xff\n", "1 [a]\n2 b=\"\\xff\"\n"},
		{"before a section", "b = c\n", "1 ! setting before the first [section]: \"b = c\"\n"},
		{"no delimiter", "[a]\nb\nc = d\n", "1 [a]\n3 c=\"d\"\n2 ! neither a [section] nor name = value: \"b\"\n"},
		{"no name", "[a]\n= b\n", "1 [a]\n2 ! there is no name before \"=\"\n"},
		{"empty section name", "[a]\n[]\n", "1 [a]\n2 ! neither a [section] nor name = value: \"[]\"\n"},
		{"twice", "[a]\nb-c = 1\nb_c = 2\n", "1 [a]\n2 b_c=\"1\"\n3 b_c=\"2\"\n3 ! set twice, first at line 2; keep one of them\n"},
		{"section twice", "[a]\nb = 1\n[a]\nc = 2\n", "1 [a]\n2 b=\"1\"\n3 [a]\n4 c=\"2\"\n3 ! section is already there at line 1; put its settings together\n"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if diff := cmp.Diff(tt.want, dump(parse("f", []byte(tt.in)))); diff != "" {
				t.Errorf("parse(%q), -want +got:\n%s", tt.in, diff)
			}
		})
	}
}

// print writes sections so that parse reads the same again.
func print(sections []section) []byte {
	var b strings.Builder
	for _, s := range sections {
		fmt.Fprintf(&b, "[%s]\n", s.name)
		for _, e := range s.entries {
			fmt.Fprintf(&b, "%s = %s\n", e.name, strings.ReplaceAll(e.value, "\n", "\n\t"))
		}
	}
	return []byte(b.String())
}

func FuzzParse(f *testing.F) {
	f.Add([]byte("[Relay]\nrelay_ip = 192.0.2.1\nlabels: a,\n  b\n\n  c\n# d\n"))
	f.Add([]byte("x = 1\n[a] b]\n[]\n=\n`x` = \"\"\"\r\r\n;\n"))
	f.Fuzz(func(t *testing.T, in []byte) {
		sections, problems := parse("f", in)
		lines := strings.Count(strings.ReplaceAll(string(in), "\r", "\n"), "\n") + 1
		if n := len(sections) + len(problems); n > 2*lines {
			t.Fatalf("%d sections and problems from %d lines", n, lines)
		}
		size := 0
		for _, s := range sections {
			size += len(s.name)
			for _, e := range s.entries {
				size += len(e.name) + len(e.value)
				if e.line < s.line || e.line > lines {
					t.Fatalf("%q is said to be at line %d of %d", e.name, e.line, lines)
				}
			}
		}
		if size > len(in) {
			t.Fatalf("%d bytes of values from %d bytes of file", size, len(in))
		}
		again, _ := parse("f", print(sections))
		strip := func(sections []section) string {
			for i := range sections {
				sections[i].line = 0
				for j := range sections[i].entries {
					sections[i].entries[j].line = 0
				}
			}
			return dump(sections, nil)
		}
		if diff := cmp.Diff(strip(sections), strip(again)); diff != "" {
			t.Fatalf("printed and parsed again, -first +second:\n%s", diff)
		}
	})
}
