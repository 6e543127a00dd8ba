package main

import (
	"fmt"
	"io"
	"os"
	"strings"
)

// result is what one stage found.
type result struct {
	stage          string
	passed, failed int
	skipped        []skip
	failures       []string // one line each
	seconds        float64
}

// skip is a test that did not run, and why.
type skip struct {
	pkg, test, reason string
}

func (r *result) failf(format string, args ...any) {
	r.failed++
	r.failures = append(r.failures, fmt.Sprintf(format, args...))
}

// check counts one step. The end of the stage's log is shown when it failed.
func (r *result) check(err error, log io.Writer, what string) {
	if err == nil {
		r.passed++
		return
	}
	r.failf("%s: %v", what, err)
	if f, ok := log.(*os.File); ok {
		showTail(f.Name())
	}
}

// showTail prints the last lines of a log: enough to see the cause, not the whole story.
func showTail(name string) {
	const lines = 40
	text, err := os.ReadFile(name)
	if err != nil {
		return
	}
	all := strings.Split(strings.TrimRight(string(text), "\n"), "\n")
	if len(all) > lines {
		all = all[len(all)-lines:]
	}
	fmt.Println("    " + strings.Join(all, "\n    "))
}

// summary prints the table and returns the exit code.
func summary(w io.Writer, results []*result, allowed skipList) int {
	bad := 0
	var passed, failed, skipped int
	var seconds float64
	var reasons, causes []string
	for _, r := range results {
		for _, s := range r.skipped {
			if why, ok := allowed.match(s); ok {
				reasons = append(reasons, fmt.Sprintf("%s %s: %s", s.pkg, s.test, why))
			} else {
				r.failf("%s %s was skipped (%s) and test/skips.txt does not allow it", s.pkg, s.test, s.reason)
			}
		}
		passed, failed, skipped = passed+r.passed, failed+r.failed, skipped+len(r.skipped)
		seconds += r.seconds
		for _, f := range r.failures {
			causes = append(causes, r.stage+": "+f)
		}
		if r.failed > 0 {
			bad = 1
		}
	}
	fmt.Fprintf(w, "\n%-12s %7s %7s %8s %8s\n", "stage", "passed", "failed", "skipped", "seconds")
	for _, r := range results {
		fmt.Fprintf(w, "%-12s %7d %7d %8d %8.1f\n", r.stage, r.passed, r.failed, len(r.skipped), r.seconds)
	}
	fmt.Fprintf(w, "%-12s %7d %7d %8d %8.1f\n", "total", passed, failed, skipped, seconds)
	list(w, "skipped", reasons)
	list(w, "failed", causes)
	if bad == 0 {
		fmt.Fprintln(w, "\nGATE PASSED")
	} else {
		fmt.Fprintln(w, "\nGATE FAILED (logs in build/gate)")
	}
	return bad
}

func list(w io.Writer, title string, lines []string) {
	if len(lines) == 0 {
		return
	}
	fmt.Fprintf(w, "\n%s:\n", title)
	for _, line := range lines {
		fmt.Fprintf(w, "  %s\n", line)
	}
}
