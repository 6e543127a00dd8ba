package config

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write what came out into the golden files")

// A golden file holds one case: the files read, then what comes of them. Effective
// values are listed where they differ from the defaults.
//
//	=== file NAME
//	=== effective
//	=== problems
func TestGolden(t *testing.T) {
	names, err := filepath.Glob("testdata/golden/*.txt")
	if err != nil || len(names) == 0 {
		t.Fatal("no golden files", err)
	}
	for _, name := range names {
		t.Run(strings.TrimSuffix(filepath.Base(name), ".txt"), func(t *testing.T) {
			golden, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			input, _, _ := strings.Cut(string(golden), "=== effective\n")
			c, problems := load(splitFiles(t, input))
			got := input + "=== effective\n" + changed(c) + "=== problems\n"
			for _, p := range problems {
				got += p.String() + "\n"
			}
			if *update {
				if err := os.WriteFile(name, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if diff := cmp.Diff(string(golden), got); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

func splitFiles(t *testing.T, input string) []file {
	t.Helper()
	var files []file
	for i, part := range strings.Split(input, "=== file ") {
		if i == 0 {
			continue // a comment before the first file
		}
		name, text, _ := strings.Cut(part, "\n")
		files = append(files, file{name, []byte(text)})
	}
	return files
}

// changed prints the settings that differ from the defaults.
func changed(c *Config) string {
	var b strings.Builder
	def := Default()
	for _, s := range sections {
		for _, k := range s.keys {
			if got := k.get(c); got != k.get(def) {
				if k.secret {
					got = "(set)"
				}
				b.WriteString("[" + s.name + "] " + assignment(k.name, got) + "\n")
			}
		}
	}
	return b.String()
}

func TestLoadFiles(t *testing.T) {
	dir := t.TempDir()
	first, second := filepath.Join(dir, "a.ini"), filepath.Join(dir, "b.ini")
	write(t, first, "[Relay]\nstream_timeout = 10\nidle_timeout = 20\n")
	write(t, second, "[Relay]\nidle_timeout = 30\n")

	c, problems := Load(filepath.Join(dir, "absent.ini"), first, second)
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	if got := []float64{c.Relay.StreamTimeout.Seconds(), c.Relay.IdleTimeout.Seconds()}; got[0] != 10 || got[1] != 30 {
		t.Errorf("timeouts = %v, want 10 and 30", got)
	}
	if o, ok := c.Where("Relay", "idle_timeout"); !ok || o != (Origin{second, 2}) {
		t.Errorf("Where = %v, %v; want line 2 of the second file", o, ok)
	}
	if o, ok := c.Where("Relay", "on_hold_timeout"); ok {
		t.Errorf("Where of a default = %v, want none", o)
	}
	if _, problems := Load(dir); len(problems.Fatal()) != 1 {
		t.Errorf("a folder instead of a file: %v, want one error", problems)
	}
}

func TestSeverities(t *testing.T) {
	_, problems := Parse("f", []byte("[Relay]\nx_y_z = 1\nport_range = 1:2\n[Dispatcher]\nlisten = nowhere\n"))
	count := func(ps Problems) int { return len(ps.Fatal()) }
	if got := count(problems); got != 2 {
		t.Errorf("%d errors, want 2: %v", got, problems)
	}
	if got := count(problems.Strict()); got != 3 {
		t.Errorf("%d errors when strict, want 3", got)
	}
	if got := count(problems.For(RoleRelay)); got != 1 {
		t.Errorf("%d errors for a relay, want 1: the other is the dispatcher's", got)
	}
	err := problems.Err()
	for _, want := range []string{"2 error(s)", "f:3: error: [Relay] port_range: \"1:2\"", "f:5: error: [Dispatcher] listen: \"nowhere\""} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Err() = %v, want %q in it", err, want)
		}
	}
	if err := Problems(nil).Err(); err != nil {
		t.Errorf("no problems give %v", err)
	}
}

// The sample file, as it is and with every comment mark removed, means the defaults.
func TestSample(t *testing.T) {
	onDisk, err := os.ReadFile("../../config.ini.sample")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(Sample()), string(onDisk)); diff != "" {
		t.Errorf("config.ini.sample is not what the table says (run go generate ./internal/config), -want +got:\n%s", diff)
	}
	want := string(Default().Effective())
	for name, text := range map[string]string{
		"as it is":     string(onDisk),
		"all settings": strings.ReplaceAll(strings.ReplaceAll(string(onDisk), "\n;", "\n"), "\n ", "\n; "),
	} {
		c, problems := Parse("sample", []byte(text))
		for _, p := range problems {
			if p.Severity != Notice {
				t.Errorf("%s: %v", name, p)
			}
		}
		if diff := cmp.Diff(want, string(c.Effective())); diff != "" {
			t.Errorf("%s: differs from the defaults, -default +sample:\n%s", name, diff)
		}
	}
}

func TestDocs(t *testing.T) {
	onDisk, err := os.ReadFile("../../docs/configuration.md")
	if err != nil {
		t.Fatal(err)
	}
	want, err := UpdateDocs(onDisk)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(onDisk)); diff != "" {
		t.Errorf("docs/configuration.md is not what the table says (run go generate ./internal/config), -want +got:\n%s", diff)
	}
	if _, err := UpdateDocs([]byte("no marks")); err == nil {
		t.Error("a document without marks was taken")
	}
}

// Every setting has an explanation, a type and a default that it reads itself.
func TestTable(t *testing.T) {
	for _, s := range sections {
		seen := map[string]bool{}
		for _, k := range s.keys {
			where := "[" + s.name + "] " + k.name
			if seen[k.name] {
				t.Errorf("%s is there twice", where)
			}
			seen[k.name] = true
			if k.name != normalName(k.name) || k.word == "" || !strings.HasSuffix(k.help, ".") {
				t.Errorf("%s: name %q, type %q or help %q is not right", where, k.name, k.word, k.help)
			}
		}
	}
}

func TestSecretsStayOut(t *testing.T) {
	c, problems := Parse("f", []byte("[Database]\ndburi = mysql://u:s3cret@h/d\n\n  x\n"))
	if strings.Contains(problems.Err().Error(), "s3cret") {
		t.Error("a password stands in a problem:", problems)
	}
	c.Database.URI = "mysql://u:s3cret@h/d"
	if bytes.Contains(c.Effective(), []byte("s3cret")) {
		t.Error("a password stands in the effective configuration")
	}
}

// FuzzLoad: what is printed loads to the same values, and no input makes more messages
// than it has lines.
func FuzzLoad(f *testing.F) {
	names, _ := filepath.Glob("testdata/golden/*.txt")
	for _, name := range names {
		text, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
	}
	f.Add(Sample())
	f.Fuzz(func(t *testing.T, in []byte) {
		c, problems := Parse("f", in)
		lines := bytes.Count(bytes.ReplaceAll(in, []byte("\r"), []byte("\n")), []byte("\n")) + 1
		if limit := 3*lines*len(sections) + 1; len(problems) > limit {
			t.Fatalf("%d problems from %d lines", len(problems), lines)
		}
		for _, p := range problems {
			if p.Line > lines || p.Severity > Error || p.Text == "" {
				t.Fatalf("strange problem %+v", p)
			}
		}
		first := c.Effective()
		again, problems := Parse("effective", first)
		problems = slices.DeleteFunc(problems, func(p Problem) bool { // passwords are not printed, so it has no dburi
			return p.Key == "accounting" && strings.Contains(p.Text, "dburi")
		})
		if err := problems.Err(); err != nil {
			t.Fatalf("the effective configuration is refused: %v\n%s", err, first)
		}
		again.Database.URI = c.Database.URI
		if diff := cmp.Diff(string(first), string(again.Effective())); diff != "" {
			t.Fatalf("the effective configuration loads to other values, -first +second:\n%s", diff)
		}
	})
}

func write(t *testing.T, name, text string) {
	t.Helper()
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}
