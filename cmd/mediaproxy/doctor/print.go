package doctor

import (
	"fmt"
	"io"
	"strings"
	"unicode"

	"example.org/mediaproxy/internal/report"
)

// Print writes results for people: a line for each, and below it what mends it.
func Print(out io.Writer, results []Result) error {
	width := 0
	for _, r := range results {
		width = max(width, len(r.name()))
	}
	var b strings.Builder
	for _, r := range results {
		fmt.Fprintf(&b, "%s  %-*s  %s\n", r.Verdict, width, r.name(), r.Found)
		if r.Mend != "" {
			fmt.Fprintf(&b, "%*s  %s\n", len("pass")+2+width, "", r.Mend)
		}
	}
	_, err := io.WriteString(out, strings.Map(printable, b.String()))
	return err
}

// printable keeps a terminal from obeying the name of a program.
func printable(r rune) rune {
	if r == '\n' || unicode.IsPrint(r) {
		return r
	}
	return '?'
}

func (r Result) name() string {
	if r.Device == "" {
		return r.Check
	}
	return r.Check + " " + r.Device
}

// PrintJSON writes results as an array, a document on each line.
func PrintJSON(out io.Writer, results []Result) error {
	text := []byte("[")
	var err error
	for i, r := range results {
		if i > 0 {
			text = append(text, ',')
		}
		if text, err = report.Append(append(text, '\n'), r); err != nil {
			return err
		}
	}
	_, err = out.Write(append(text, "\n]\n"...))
	return err
}

// Count is how many results have a verdict.
func Count(results []Result, v Verdict) int {
	n := 0
	for _, r := range results {
		if r.Verdict == v {
			n++
		}
	}
	return n
}

// Summary is one line about all results.
func Summary(results []Result) string {
	return fmt.Sprintf("%d failed, %d warned, %d passed, %d skipped",
		Count(results, Fail), Count(results, Warn), Count(results, Pass), Count(results, Skip))
}
