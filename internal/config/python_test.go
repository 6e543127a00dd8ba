package config

import (
	"bytes"
	"encoding/json"
	"math/rand"
	"os/exec"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// reference reads files with the parser that the format is named after, with names
// compared as the original compares them. It prints null for a file that is refused.
const reference = `
import sys, json, configparser, io
class Parser(configparser.ConfigParser):
    def optionxform(self, name):
        return name.replace('-', '_')
out = []
for text in json.load(sys.stdin):
    parser = Parser(interpolation=None)
    try:
        parser.read_file(io.TextIOWrapper(io.BytesIO(text.encode()), encoding='utf8'))
    except configparser.Error:
        out.append(None)
        continue
    found = {name: dict(values) for name, values in parser._sections.items()}
    if parser._defaults:
        found['DEFAULT'] = dict(parser._defaults)
    out.append(found)
json.dump(out, sys.stdout)
`

// Files put together at random from what files are made of are accepted, refused and
// understood as Python does.
func TestParseLikePython(t *testing.T) {
	python, err := exec.LookPath("python3")
	if err != nil || exec.Command(python, "-c", "import configparser, json").Run() != nil {
		t.Skip("python3 with its configparser is not installed")
	}
	pieces := []string{
		"[a]", "[b] x", "[DEFAULT]", "k", "k-1", "k_1", "=", ":", " ", "  ", "\t", "\n", "\n", "\n", "\r\n", "#c", ";c", "v",
		"%%", "\"", "`", "\\", "[", "]", "é", "\u00a0",
	}
	random := rand.New(rand.NewSource(1))
	files := make([]string, 4000)
	for i := range files {
		var b strings.Builder
		b.WriteString("[s]\n")
		for range random.Intn(25) {
			b.WriteString(pieces[random.Intn(len(pieces))])
		}
		files[i] = b.String()
	}
	input, err := json.Marshal(files)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(python, "-c", reference)
	cmd.Stdin = bytes.NewReader(input)
	output, err := cmd.Output()
	if err != nil {
		t.Fatal("python3: ", err)
	}
	var want []map[string]map[string]string
	if err := json.Unmarshal(output, &want); err != nil || len(want) != len(files) {
		t.Fatalf("python3 answers %d files: %v", len(want), err)
	}
	accepted := 0
	for i, text := range files {
		sections, problems := parse("f", []byte(text))
		if refused := len(problems) > 0; refused != (want[i] == nil) {
			t.Errorf("%q: refused %v, by Python %v", text, refused, want[i] == nil)
		}
		if want[i] == nil || len(problems) > 0 {
			continue
		}
		accepted++
		got := map[string]map[string]string{}
		for _, s := range sections {
			if got[s.name] == nil && (s.name != defaultSection || len(s.entries) > 0) {
				got[s.name] = map[string]string{}
			}
			for _, e := range s.entries {
				got[s.name][e.name] = e.value
			}
		}
		if diff := cmp.Diff(want[i], got); diff != "" {
			t.Errorf("%q, -Python +here:\n%s", text, diff)
		}
	}
	if accepted < len(files)/10 {
		t.Errorf("only %d of %d files were accepted: too few to mean anything", accepted, len(files))
	}
}
