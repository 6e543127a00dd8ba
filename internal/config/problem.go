package config

import (
	"fmt"
	"slices"
	"strings"
)

// Severity says what a Problem means for the start of a program.
type Severity uint8

const (
	// Notice: nothing is wrong, but something has no effect here.
	Notice Severity = iota
	// Warning: the original ignores it, so the daemons start; strict_config and
	// `mediaproxy check` refuse it.
	Warning
	// Error: the start stops.
	Error
)

func (s Severity) String() string {
	return [...]string{"notice", "warning", "error"}[s]
}

// A Problem is one thing to say about a configuration: where it is, what was found
// and what would be right.
type Problem struct {
	Severity Severity
	File     string
	Line     int    // 0: the whole file
	Section  string // empty: outside of all sections
	Key      string // empty: the section itself
	Text     string
}

// String prints `file:line: severity: [Section] key: text`, the form editors jump to.
func (p Problem) String() string {
	var b strings.Builder
	if p.File != "" {
		b.WriteString(p.File)
		if p.Line > 0 {
			fmt.Fprintf(&b, ":%d", p.Line)
		}
		b.WriteString(": ")
	}
	b.WriteString(p.Severity.String() + ": ")
	if p.Section != "" {
		b.WriteString("[" + p.Section + "]")
		if p.Key != "" {
			b.WriteString(" " + p.Key)
		}
		b.WriteString(": ")
	}
	b.WriteString(p.Text)
	return b.String()
}

// Problems is everything found in one load, in the order of files and lines.
type Problems []Problem

// Fatal returns the errors.
func (ps Problems) Fatal() Problems {
	return ps.where(func(p Problem) bool { return p.Severity == Error })
}

// Strict returns the problems with every warning turned into an error.
func (ps Problems) Strict() Problems {
	out := slices.Clone(ps)
	for i := range out {
		if out[i].Severity == Warning {
			out[i].Severity = Error
		}
	}
	return out
}

// For returns the problems as a program of that role sees them: an error in a section
// that it does not use is no reason to stay down, as it is none for the original.
func (ps Problems) For(role Role) Problems {
	out := slices.Clone(ps)
	for i, p := range out {
		s, known := sectionNamed(p.Section)
		if known && p.Key != "" && p.Severity == Error && s.roles&role == 0 {
			out[i].Severity = Warning
		}
	}
	return out
}

// Err returns nil, or an error of several lines that lists every fatal problem.
func (ps Problems) Err() error {
	fatal := ps.Fatal()
	if len(fatal) == 0 {
		return nil
	}
	return &InvalidError{Problems: fatal}
}

func (ps Problems) where(keep func(Problem) bool) Problems {
	var out Problems
	for _, p := range ps {
		if keep(p) {
			out = append(out, p)
		}
	}
	return out
}

// InvalidError is the refusal of a configuration, with all reasons.
type InvalidError struct{ Problems Problems }

func (e *InvalidError) Error() string {
	lines := make([]string, 0, len(e.Problems)+1)
	lines = append(lines, fmt.Sprintf("configuration has %d error(s)", len(e.Problems)))
	for _, p := range e.Problems {
		lines = append(lines, "  "+p.String())
	}
	return strings.Join(lines, "\n")
}
