package archtest

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"
)

// foreign are words that would tie the project to the machine or the folders it was
// written in. They are put together here so that this file does not contain them.
func foreign(root string) []string {
	list := []string{".." + "/shared", "/" + "work/", "." + "library/", "/" + "root/", "/tmp" + "/mp", "/" + "home/"}
	if home, err := os.UserHomeDir(); err == nil && len(home) > 1 {
		list = append(list, home+"/")
	}
	return append(list, root+"/")
}

// problems tells what is wrong with the text of one file.
func problems(text []byte, words []string) []string {
	var bad []string
	for _, w := range words {
		if bytes.Contains(text, []byte(w)) {
			bad = append(bad, "names a place outside of the project: "+w)
		}
	}
	switch {
	case len(text) == 0:
		return bad
	case !utf8.Valid(text):
		return append(bad, "is not UTF-8")
	case bytes.Contains(text, []byte("\r\n")):
		bad = append(bad, "has CR LF line ends")
	case !bytes.HasSuffix(text, []byte("\n")):
		bad = append(bad, "does not end in a line end")
	case bytes.HasSuffix(text, []byte("\n\n")):
		bad = append(bad, "ends in an empty line")
	}
	for n, line := range strings.Split(string(text), "\n") {
		if strings.TrimRight(line, " \t") != line {
			return append(bad, "has spaces at the end of line "+strconv.Itoa(n+1))
		}
	}
	return bad
}

// Recorded bytes are what they are; everything else a person reads.
func isText(name string) bool {
	if strings.Contains(name, "/testdata/") {
		return false
	}
	switch filepath.Ext(name) {
	case ".png", ".pcap", ".o", ".gz":
		return false
	}
	return true
}

func TestTextFiles(t *testing.T) {
	root := top(t)
	cmd := exec.Command("git", "-c", "safe.directory=*", "ls-files", "-z")
	cmd.Dir = root
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("list the tracked files: %v", err)
	}
	words := foreign(root)
	for name := range strings.SplitSeq(strings.Trim(string(out), "\x00"), "\x00") {
		text, err := os.ReadFile(filepath.Join(root, name))
		if os.IsNotExist(err) {
			continue // deleted, not committed yet
		}
		if err != nil {
			t.Error(err)
			continue
		}
		if !isText(name) {
			continue
		}
		for _, p := range problems(text, words) {
			t.Errorf("%s %s", name, p)
		}
	}
}

func TestProblems(t *testing.T) {
	words := []string{"/some" + "where/"}
	for _, c := range []struct{ text, want string }{
		{"good\n", ""},
		{"", ""},
		{"see /some" + "where/file\n", "outside of the project"},
		{"a \nb\n", "end of line 1"},
		{"a\n\tb\t\n", "end of line 2"},
		{"a\r\nb\r\n", "CR LF"},
		{"a", "line end"},
		{"a\n\n", "empty line"},
		{"a\xff\n", "UTF-8"},
	} {
		got := strings.Join(problems([]byte(c.text), words), "; ")
		if (got == "") != (c.want == "") || !strings.Contains(got, c.want) {
			t.Errorf("problems(%q) = %q, want %q", c.text, got, c.want)
		}
	}
}
