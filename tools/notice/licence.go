package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// licence is what a module's folder says about its terms.
type licence struct {
	name   string // SPDX identifier
	text   string
	notice string // the module's own NOTICE, which Apache-2.0 section 4(d) passes on
	source string // where it can be had, for licences that ask to say so
}

var fileNames = []string{"LICENSE", "LICENSE.txt", "LICENSE.md", "LICENCE", "COPYING", "License"}

func licenceOf(dir string) (licence, error) {
	if dir == "" {
		return licence{}, errors.New("not in the module cache; type: go mod download")
	}
	text := ""
	for _, name := range fileNames {
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err == nil {
			text = tidy(string(b))
			break
		}
	}
	if text == "" {
		return licence{}, fmt.Errorf("no licence file in %s", dir)
	}
	name, err := identify(text)
	if err != nil {
		return licence{}, err
	}
	l := licence{name: name, text: text}
	if b, err := os.ReadFile(filepath.Join(dir, "NOTICE")); err == nil {
		l.notice = tidy(string(b))
	}
	return l, nil
}

// identify recognises the licences that may be linked into an Apache-2.0 program.
// Anything else is an error that a person has to look at.
func identify(text string) (string, error) {
	flat := strings.ToLower(strings.Join(strings.Fields(text), " "))
	has := func(s string) bool { return strings.Contains(flat, s) }
	switch {
	case strings.HasPrefix(flat, "mozilla public license version 2.0"): // it names GNU licences as others that may apply
		return "MPL-2.0", nil
	case has("gnu general public license") || has("gnu lesser") || has("gnu affero"):
		return "", errors.New("GNU licence: may not be linked into this program")
	case has("apache license version 2.0"), has("apache license, version 2.0"):
		return "Apache-2.0", nil
	case has("permission to use, copy, modify, and/or distribute this software for any purpose"):
		return "ISC", nil
	case has("permission is hereby granted, free of charge"):
		return "MIT", nil
	case has("redistributions of source code must retain"):
		if has("neither the name") || has("names of its contributors") {
			return "BSD-3-Clause", nil
		}
		return "BSD-2-Clause", nil
	}
	return "", errors.New("unknown licence: read it, then teach tools/notice its words")
}

// tidy removes what editors leave behind, so that NOTICE passes the rules for text files.
func tidy(text string) string {
	lines := strings.Split(strings.ReplaceAll(text, "\r\n", "\n"), "\n")
	for i, line := range lines {
		lines[i] = strings.TrimRight(line, " \t")
	}
	return strings.Trim(strings.Join(lines, "\n"), "\n")
}
