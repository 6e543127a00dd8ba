package config

import (
	"bytes"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// An entry is one setting as it stands in a file.
type entry struct {
	name  string // "-" already turned into "_"
	value string // continuation lines joined by "\n", not yet interpolated
	file  string
	line  int // of the name, from 1
}

// A section is one [section] of one file.
type section struct {
	name    string
	file    string
	line    int
	entries []entry
}

// parse reads the syntax of Python's ConfigParser, which the files of the original
// are written for:
//
//	[section]
//	# a comment, like ";", takes a whole line; there are no comments behind a value
//	name = value        ":" works like "="; names are case-sensitive, "-" equals "_"
//	    more of value   a line that is indented deeper than its name continues it
//
// Whatever ConfigParser refuses is a problem; reading goes on behind it, so that one
// run shows all of them. What it does here is checked line by line against Python,
// which no INI library for Go follows to the end (they give quotes and backticks a
// meaning, and keep no line numbers).
func parse(file string, text []byte) ([]section, Problems) {
	p := parser{file: file, sections: map[string]int{}, names: map[settingName]int{}}
	text = bytes.TrimPrefix(text, []byte("\xef\xbb\xbf"))
	for len(text) > 0 {
		var line []byte
		line, text = cutLine(text)
		p.line++
		p.read(string(line))
	}
	p.endValue()
	return p.out, p.problems
}

// cutLine splits at LF, CR LF or CR, the line ends that Python reads as one.
func cutLine(text []byte) (line, rest []byte) {
	i := bytes.IndexAny(text, "\r\n")
	switch {
	case i < 0:
		return text, nil
	case text[i] == '\r' && i+1 < len(text) && text[i+1] == '\n':
		return text[:i], text[i+2:]
	}
	return text[:i], text[i+1:]
}

type parser struct {
	file     string
	line     int
	out      []section
	problems Problems

	sections map[string]int // section → its first line
	names    map[settingName]int

	indent int      // of the line that began the present section or value
	value  []string // lines of the value being read; nil when there is none
}

func (p *parser) read(line string) {
	text := strings.TrimFunc(line, unicode.IsSpace)
	if text == "" {
		if p.value != nil {
			p.value = append(p.value, "") // only matters when the value goes on behind it
		}
		return
	}
	if text[0] == '#' || text[0] == ';' {
		return
	}
	indent := utf8.RuneCountInString(line[:strings.IndexFunc(line, notSpace)]) // Python counts characters
	if p.value != nil && indent > p.indent {
		p.value = append(p.value, text)
		return
	}
	p.endValue()
	p.indent = indent
	if end := strings.LastIndexByte(text, ']'); text[0] == '[' && end > 1 {
		p.beginSection(text[1:end])
		return
	}
	p.beginValue(text)
}

func (p *parser) beginSection(name string) {
	if first, ok := p.sections[name]; ok && name != defaultSection { // that one may stand twice
		p.problem(name, "", "section is already there at line %d; put its settings together", first)
	} else {
		p.sections[name] = p.line
	}
	p.out = append(p.out, section{name: name, file: p.file, line: p.line})
}

func (p *parser) beginValue(text string) {
	at := strings.IndexAny(text, "=:")
	switch {
	case len(p.out) == 0:
		p.problem("", "", "setting before the first [section]: %s", quote(text))
		return
	case at < 0:
		p.problem(p.current().name, "", "neither a [section] nor name = value: %s", quote(text))
		return
	case at == 0:
		p.problem(p.current().name, "", "there is no name before %q", text[:1])
		return
	}
	name := normalName(strings.TrimRightFunc(text[:at], unicode.IsSpace))
	value := strings.TrimFunc(text[at+1:], unicode.IsSpace)
	s := p.current()
	full := settingName{s.name, name}
	if first, ok := p.names[full]; ok {
		p.problem(s.name, name, "set twice, first at line %d; keep one of them", first)
	} else {
		p.names[full] = p.line
	}
	s.entries = append(s.entries, entry{name: name, file: p.file, line: p.line})
	p.value = []string{value}
}

func notSpace(r rune) bool { return !unicode.IsSpace(r) }

// endValue joins the lines read so far and hands them to their entry.
func (p *parser) endValue() {
	if p.value == nil {
		return
	}
	s := p.current()
	s.entries[len(s.entries)-1].value = strings.TrimRightFunc(strings.Join(p.value, "\n"), unicode.IsSpace)
	p.value = nil
}

func (p *parser) current() *section { return &p.out[len(p.out)-1] }

func (p *parser) problem(section, key, format string, args ...any) {
	p.problems = append(p.problems, Problem{
		Severity: Error, File: p.file, Line: p.line, Section: section, Key: key, Text: fmt.Sprintf(format, args...),
	})
}

// normalName is how the original compares names of settings.
func normalName(name string) string { return strings.ReplaceAll(name, "-", "_") }

// quote prints a piece of a file in a message, cut to a length that a log line bears.
func quote(s string) string {
	if len(s) > 60 {
		s = s[:60] + "..."
	}
	return fmt.Sprintf("%q", s)
}
