package config

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
)

// Load reads files in order; later ones override setting by setting. A file that does
// not exist is no problem. The configuration is complete whatever was found: a setting
// with a problem keeps its default.
func Load(files ...string) (*Config, Problems) {
	var texts []file
	var problems Problems
	for _, name := range files {
		text, err := os.ReadFile(name)
		switch {
		case errors.Is(err, fs.ErrNotExist):
		case err != nil:
			problems = append(problems, Problem{Severity: Error, File: name, Text: fmt.Sprintf("cannot be read: %v", err)})
		default:
			texts = append(texts, file{name, text})
		}
	}
	c, more := load(texts)
	return c, append(problems, more...)
}

// Parse reads one configuration from memory; name is used in problems.
func Parse(name string, text []byte) (*Config, Problems) {
	return load([]file{{name, text}})
}

type file struct {
	name string
	text []byte
}

// defaultSection is where ConfigParser looks for what a section does not set.
const defaultSection = "DEFAULT"

// loader merges files and then applies what is left.
type loader struct {
	c        *Config
	problems Problems
	merged   map[settingName]entry
	order    []settingName   // of first appearance
	present  map[string]bool // known sections that some file has
	idle     []string        // settings without effect
}

func load(files []file) (*Config, Problems) {
	l := &loader{c: Default(), merged: map[settingName]entry{}, present: map[string]bool{}}
	for _, f := range files {
		sections, problems := parse(f.name, f.text)
		l.problems = append(l.problems, problems...)
		for _, s := range sections {
			l.merge(s)
		}
	}
	for _, n := range l.order {
		if n.section == defaultSection {
			l.applyDefaults(n.key)
			continue
		}
		l.apply(n, l.merged[n])
	}
	l.checkCluster()
	l.checkDatabase()
	l.inOrder(files)
	if len(l.idle) > 0 {
		l.problems = append(l.problems, Problem{
			Severity: Notice, Text: "settings without effect in this version: " + strings.Join(l.idle, ", "),
		})
	}
	return l.c, l.problems
}

// inOrder sorts the problems as one would meet them reading the files.
func (l *loader) inOrder(files []file) {
	position := map[string]int{}
	for i, f := range files {
		position[f.name] = i
	}
	slices.SortStableFunc(l.problems, func(a, b Problem) int {
		return cmp.Or(cmp.Compare(position[a.File], position[b.File]), cmp.Compare(a.Line, b.Line))
	})
}

// merge takes over the settings of one section of one file.
func (l *loader) merge(s section) {
	spec, known := sectionNamed(s.name)
	if !known && s.name != defaultSection {
		l.unknownSection(s)
		return
	}
	l.present[s.name] = true
	for _, e := range s.entries {
		n := settingName{s.name, e.name}
		if _, ok := spec.key(e.name); !ok && known {
			l.unknownKey(s.name, spec, e) // kept: another value may refer to it
		}
		if _, again := l.merged[n]; !again {
			l.order = append(l.order, n)
		}
		l.merged[n] = e
	}
}

// applyDefaults gives a value of [DEFAULT] to the sections that have such a setting
// and leave it out.
func (l *loader) applyDefaults(name string) {
	for _, s := range sections {
		n := settingName{s.name, name}
		if _, own := l.merged[n]; !own && l.present[s.name] {
			l.apply(n, l.merged[settingName{defaultSection, name}])
		}
	}
}

func (l *loader) apply(n settingName, e entry) {
	spec, _ := sectionNamed(n.section)
	k, known := spec.key(n.key)
	if !known {
		return
	}
	if !k.unread {
		if err := l.set(k, n.section, e.value); err != nil {
			l.problem(Error, e.file, e.line, n.section, n.key, err.Error())
			return
		}
	}
	l.c.origins[n] = Origin{File: e.file, Line: e.line}
	if k.noEffect != "" {
		l.idle = append(l.idle, fmt.Sprintf("[%s] %s (%s:%d; %s)", n.section, n.key, e.file, e.line, k.noEffect))
	}
}

// set gives a setting its value.
func (l *loader) set(k key, section, raw string) error {
	value, err := interpolate(raw, func(name string) (string, bool) {
		if other, ok := l.merged[settingName{section, name}]; ok {
			return other.value, true
		}
		other, ok := l.merged[settingName{defaultSection, name}]
		return other.value, ok
	})
	if err != nil {
		return err
	}
	return k.apply(l.c, strings.TrimSpace(value))
}

func (l *loader) unknownSection(s section) {
	names := make([]string, len(sections))
	for i, known := range sections {
		names[i] = known.name
	}
	hint := "its settings are ignored; sections are " + strings.Join(names, ", ")
	if near := nearest(s.name, names); near != "" {
		hint = fmt.Sprintf("its settings are ignored; did you mean [%s]?", near)
	}
	l.problem(Warning, s.file, s.line, s.name, "", "unknown section, "+hint)
}

func (l *loader) unknownKey(section string, spec sectionSpec, e entry) {
	hint := ""
	names := make([]string, len(spec.keys))
	for i, k := range spec.keys {
		names[i] = k.name
	}
	for _, other := range sections {
		if _, ok := other.key(e.name); ok {
			hint = fmt.Sprintf("; it belongs to [%s]", other.name)
			break
		}
	}
	if near := nearest(e.name, names); hint == "" && near != "" {
		hint = fmt.Sprintf("; did you mean %s?", near)
	}
	l.problem(Warning, e.file, e.line, section, e.name, "unknown setting, ignored"+hint)
}

func (l *loader) problem(severity Severity, file string, line int, section, key, text string) {
	l.problems = append(l.problems, Problem{Severity: severity, File: file, Line: line, Section: section, Key: key, Text: text})
}
