package main

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"path"
	"strings"
)

// skipList is test/skips.txt: the tests that may be skipped, each with its reason.
//
//	# comment
//	package-suffix  test-pattern  reason to the end of the line
//
// The pattern is that of path.Match on each part of the test's name between slashes.
type skipList []allowedSkip

type allowedSkip struct{ pkg, pattern, reason string }

func readSkips(name string) (skipList, error) {
	f, err := os.Open(name)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the list of allowed skips: %w", err)
	}
	defer f.Close()
	var l skipList
	in := bufio.NewScanner(f)
	for n := 1; in.Scan(); n++ {
		line := strings.TrimSpace(in.Text())
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		w := strings.Fields(line)
		if len(w) < 4 {
			return nil, fmt.Errorf("%s:%d: want package, test and a reason of some words, got %q", name, n, line)
		}
		if _, err := path.Match(w[1], ""); err != nil {
			return nil, fmt.Errorf("%s:%d: pattern %q: %w", name, n, w[1], err)
		}
		l = append(l, allowedSkip{w[0], w[1], strings.Join(w[2:], " ")})
	}
	if err := in.Err(); err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	return l, nil
}

// match tells whether a skip is allowed, and why.
func (l skipList) match(s skip) (reason string, ok bool) {
	for _, a := range l {
		if s.pkg != a.pkg && !strings.HasSuffix(s.pkg, "/"+a.pkg) {
			continue
		}
		if same, _ := path.Match(a.pattern, s.test); same {
			return a.reason, true
		}
	}
	return "", false
}
