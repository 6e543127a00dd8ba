package radius

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"

	"example.org/mediaproxy/internal/config"
)

// reader reads files of lines and notes everything that is wrong with them.
type reader struct {
	read     func(path string) ([]byte, error)
	problems config.Problems
}

// line is one that says something: its number and its words, the comment taken off.
type line struct {
	file  string
	n     int
	words []string
}

// maxFile is above any dictionary; it is for a path that names something else.
const maxFile = 8 << 20

// maxProblems is what somebody may want to read about one set of files.
const maxProblems = 50

// readFile reads a file, and waits for no pipe.
func readFile(path string) ([]byte, error) {
	info, err := os.Stat(path)
	switch {
	case err != nil:
		return nil, err
	case info.IsDir():
		return nil, errors.New("is a folder, want a file")
	case !info.Mode().IsRegular():
		return nil, errors.New("want a regular file")
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err == nil && len(text) > maxFile {
		return nil, errors.New("has more than 8 MiB, so it is another kind of file")
	}
	return text, err
}

// lines returns those of a file that are not empty. A # ends a line, where it begins a word
// other than the second: that one may be a secret.
func (r *reader) lines(path string) ([]line, error) {
	text, err := r.read(path)
	if err != nil {
		return nil, reason(err)
	}
	text = bytes.TrimPrefix(text, []byte("\ufeff"))
	var lines []line
	n := 0
	for one := range strings.Lines(string(text)) {
		n++
		words := strings.Fields(one)
		for i, w := range words {
			if w[0] == '#' && i != 1 {
				words = words[:i]
				break
			}
		}
		if len(words) > 0 {
			lines = append(lines, line{path, n, words})
		}
	}
	return lines, nil
}

var errNoFile = errors.New("there is no such file")

// reason is an error about a file without its name, which stands in front already.
func reason(err error) error {
	var withPath *fs.PathError
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return errNoFile
	case errors.As(err, &withPath):
		return withPath.Err
	}
	return err
}

func (r *reader) problem(severity config.Severity, file string, n int, format string, args ...any) {
	if len(r.problems) < maxProblems {
		r.problems = append(r.problems, config.Problem{Severity: severity, File: file, Line: n, Text: fmt.Sprintf(format, args...)})
	}
}

func (r *reader) wrong(l line, format string, args ...any) {
	r.problem(config.Error, l.file, l.n, format, args...)
}
