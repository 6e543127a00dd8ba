package manage

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
)

// Format is how lists of documents are written.
type Format uint8

const (
	Array Format = iota // one JSON array on one line
	Lines               // one document per line, then an empty line
)

// ParseFormat reads the configuration's word for a format.
func ParseFormat(s string) (Format, error) {
	switch s {
	case "", "array":
		return Array, nil
	case "lines":
		return Lines, nil
	}
	return Array, fmt.Errorf("management format %q: not array or lines", s)
}

// AppendDocs writes documents, each one line of JSON.
func AppendDocs(dst []byte, f Format, docs []json.RawMessage) []byte {
	l := List{Format: f}
	return l.Close(l.Append(dst, docs))
}

// List writes documents as they come. Until Close, what was written is no answer.
type List struct {
	Format Format
	begun  bool
}

// Append writes some documents, each one line of JSON.
func (l *List) Append(dst []byte, docs []json.RawMessage) []byte {
	for _, d := range docs {
		switch {
		case l.Format == Lines:
			dst = append(append(dst, d...), '\r', '\n')
			continue
		case l.begun:
			dst = append(dst, ',', ' ')
		default:
			dst = append(dst, '[')
		}
		dst = append(dst, d...)
		l.begun = true
	}
	return dst
}

// Close writes the end.
func (l *List) Close(dst []byte) []byte {
	switch {
	case l.Format == Lines:
		return append(dst, '\r', '\n')
	case !l.begun:
		dst = append(dst, '[')
	}
	return append(dst, ']', '\r', '\n')
}

// AppendText writes a one-line answer that is no document, like the version.
func AppendText(dst []byte, text string) []byte {
	dst = append(dst, oneLine(text)...)
	return append(dst, '\r', '\n')
}

// AppendError writes the answer to a command that failed: the word error and,
// for commands that are ours, why.
func AppendError(dst []byte, why string) []byte {
	dst = append(dst, "error"...)
	if why != "" {
		dst = append(dst, ' ')
		dst = append(dst, oneLine(why)...)
	}
	return append(dst, '\r', '\n')
}

func oneLine(s string) string {
	return strings.Map(func(r rune) rune {
		if r == '\r' || r == '\n' {
			return ' '
		}
		return r
	}, s)
}

// Answer is what a client received.
type Answer struct {
	Docs  []json.RawMessage // nil unless a list was answered
	Text  string            // version
	Error string            // why it failed; "unknown command" for the bare word
}

// ReadAnswer puts an answer together for a client. next returns one line
// without its end. Both formats are recognised by their first byte.
func ReadAnswer(next func() ([]byte, error)) (Answer, error) {
	line, err := next()
	if err != nil {
		return Answer{}, err
	}
	switch {
	case len(line) == 0: // lines: an empty list
		return Answer{Docs: []json.RawMessage{}}, nil
	case line[0] == '[':
		docs := []json.RawMessage{}
		if err := json.Unmarshal(line, &docs); err != nil {
			return Answer{}, fmt.Errorf("answer of the dispatcher: %w", err)
		}
		return Answer{Docs: docs}, nil
	case line[0] == '{':
		return readLines(line, next)
	case string(line) == "error":
		return Answer{Error: ErrUnknown.Error()}, nil
	}
	if why, ok := bytes.CutPrefix(line, []byte("error ")); ok {
		return Answer{Error: string(why)}, nil
	}
	return Answer{Text: string(line)}, nil
}

func readLines(line []byte, next func() ([]byte, error)) (Answer, error) {
	docs := []json.RawMessage{}
	for len(line) > 0 {
		if !json.Valid(line) {
			return Answer{}, fmt.Errorf("answer of the dispatcher: line %d is not JSON: %.60q", len(docs)+1, line)
		}
		docs = append(docs, bytes.Clone(line))
		var err error
		if line, err = next(); err != nil {
			return Answer{}, fmt.Errorf("answer of the dispatcher ends after %d documents: %w", len(docs), err)
		}
	}
	return Answer{Docs: docs}, nil
}
