package main

import (
	"bytes"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func feed(t *testing.T, events ...event) *result {
	t.Helper()
	r := &result{stage: "unit"}
	tally := newTally(r, io.Discard)
	for _, e := range events {
		line, err := json.Marshal(e)
		if err != nil {
			t.Fatal(err)
		}
		tally.line(line)
	}
	return r
}

func TestTallyCounts(t *testing.T) {
	r := feed(t,
		event{Action: "pass", Package: "p", Test: "TestA"},
		event{Action: "output", Package: "p", Test: "TestB", Output: "=== RUN   TestB\n"},
		event{Action: "output", Package: "p", Test: "TestB", Output: "    b_test.go:12: needs root: run as root\n"},
		event{Action: "skip", Package: "p", Test: "TestB"},
		event{Action: "fail", Package: "p", Test: "TestC/case"},
		event{Action: "fail", Package: "p", Test: "TestC"},
		event{Action: "fail", Package: "p"},
		event{Action: "pass", Package: "q"},
	)
	if r.passed != 1 || r.failed != 1 || len(r.skipped) != 1 {
		t.Fatalf("got %d passed, %d failed, %d skipped; want 1 each", r.passed, r.failed, len(r.skipped))
	}
	if got, want := r.skipped[0].reason, "needs root: run as root"; got != want {
		t.Errorf("reason %q, want %q", got, want)
	}
}

// A package can fail without a failed test: a leak, a race at exit, a time-out, no build.
func TestTallyCountsPackages(t *testing.T) {
	r := feed(t, event{Action: "pass", Package: "p", Test: "TestA"}, event{Action: "fail", Package: "p"},
		event{Action: "build-fail", ImportPath: "q"})
	if r.failed != 2 {
		t.Errorf("got %d failures, want 2: %v", r.failed, r.failures)
	}
}

func TestSummaryFailsOnUnlistedSkip(t *testing.T) {
	name := filepath.Join(t.TempDir(), "skips.txt")
	list := "# comment\ntest/lab TestCalls/use/end-dialog no dialog in this mode\n"
	if err := os.WriteFile(name, []byte(list), 0o644); err != nil {
		t.Fatal(err)
	}
	allowed, err := readSkips(name)
	if err != nil {
		t.Fatal(err)
	}
	listed := skip{"example.org/mediaproxy/test/lab", "TestCalls/use/end-dialog", "x"}
	other := skip{"example.org/mediaproxy/test/lab", "TestCalls/use/audio", "x"}
	for _, c := range []struct {
		name  string
		skips []skip
		want  int
	}{{"none", nil, 0}, {"listed", []skip{listed}, 0}, {"unlisted", []skip{listed, other}, 1}} {
		var out bytes.Buffer
		got := summary(&out, []*result{{stage: "s", passed: 1, skipped: c.skips}}, allowed)
		if got != c.want {
			t.Errorf("%s: exit code %d, want %d\n%s", c.name, got, c.want, out.String())
		}
		if c.want == 1 && !strings.Contains(out.String(), "TestCalls/use/audio") {
			t.Errorf("%s: the summary does not name the test:\n%s", c.name, out.String())
		}
	}
}

func TestSkipsNeedAReason(t *testing.T) {
	name := filepath.Join(t.TempDir(), "skips.txt")
	if err := os.WriteFile(name, []byte("test/lab TestCalls\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := readSkips(name); err == nil {
		t.Error("a skip without a reason was accepted")
	}
}

func TestChoose(t *testing.T) {
	all, soak, err := choose("")
	if err != nil || soak {
		t.Fatalf("choose: soak=%v err=%v", soak, err)
	}
	for _, s := range all {
		if s.extra {
			t.Errorf("stage %s is part of the gate", s.name)
		}
	}
	if _, soak, err = choose("build,soak"); err != nil || !soak {
		t.Errorf("choose build,soak: soak=%v err=%v", soak, err)
	}
	if _, _, err = choose("nonsense"); err == nil {
		t.Error("an unknown stage was accepted")
	}
}
