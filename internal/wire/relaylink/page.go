package relaylink

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"
)

// A page of sessions answers `sessions` with the header limit:
//
//	{"sessions": [{...}, {...}], "next": 4711}
//
// next is what the header after of the next page is to be; without it the page
// is the last one. A relay that knows no pages answers with all, as ever:
//
//	[{...}, {...}]

// OpenPage begins a page; documents follow with a comma and a space between them.
func OpenPage(dst []byte) []byte { return append(dst, `{"sessions": [`...) }

// ClosePage ends it. next 0: no page follows.
func ClosePage(dst []byte, next uint64) []byte {
	dst = append(dst, ']')
	if next != 0 {
		dst = strconv.AppendUint(append(dst, `, "next": `...), next, 10)
	}
	return append(dst, '}')
}

// ParsePage appends the documents of a page to docs; they alias body. It looks at
// brackets and strings only, so that whoever passes documents on need not take
// megabytes apart: what is between them is the relay's word.
func ParsePage(docs []json.RawMessage, body []byte) (_ []json.RawMessage, next uint64, err error) {
	s := &scanner{b: body}
	switch s.peek() {
	case '[':
		docs, err = s.documents(docs)
	case '{':
		docs, next, err = s.page(docs)
	default:
		err = s.fault("neither a page nor a list of sessions")
	}
	if err == nil && s.peek() != 0 {
		err = s.fault("more than one page")
	}
	return docs, next, err
}

// scanner finds where values of JSON begin and end.
type scanner struct {
	b  []byte
	at int
}

func (s *scanner) fault(text string) error { return &SyntaxError{Offset: s.at, Text: text} }

// peek is the next byte that is no space; 0 at the end.
func (s *scanner) peek() byte {
	for ; s.at < len(s.b); s.at++ {
		switch c := s.b[s.at]; c {
		case ' ', '\t', '\r', '\n':
		default:
			return c
		}
	}
	return 0
}

func (s *scanner) take(c byte) bool {
	if s.peek() != c {
		return false
	}
	s.at++
	return true
}

// page reads the members; those that it does not know came later.
func (s *scanner) page(docs []json.RawMessage) (_ []json.RawMessage, next uint64, err error) {
	s.at++
	have := false
	for first := true; !s.take('}'); first = false {
		if !first && !s.take(',') {
			return docs, 0, s.fault("no comma between members")
		}
		if s.peek() != '"' {
			return docs, 0, s.fault("no name of a member")
		}
		name, err := s.value()
		if err != nil {
			return docs, 0, err
		}
		if !s.take(':') {
			return docs, 0, s.fault("no colon behind a name")
		}
		switch {
		case string(name) == `"sessions"` && !have:
			have = true
			docs, err = s.documents(docs)
		case string(name) == `"next"` && next == 0:
			next, err = s.number()
		case bytes.IndexByte(name, '\\') >= 0, string(name) == `"sessions"`, string(name) == `"next"`:
			err = s.fault(fmt.Sprintf("member %.20s a second time, or written oddly", name))
		default:
			_, err = s.value()
		}
		if err != nil {
			return docs, 0, err
		}
	}
	if !have {
		return docs, 0, s.fault("page without sessions")
	}
	return docs, next, nil
}

func (s *scanner) number() (uint64, error) {
	value, err := s.value()
	if err != nil {
		return 0, err
	}
	n, err := strconv.ParseUint(string(value), 10, 64)
	if err != nil || n == 0 {
		return 0, s.fault(fmt.Sprintf("next is %.30q, no number above 0", value))
	}
	return n, nil
}

// documents reads an array of objects.
func (s *scanner) documents(docs []json.RawMessage) ([]json.RawMessage, error) {
	if !s.take('[') {
		return docs, s.fault("sessions are no array")
	}
	for first := true; !s.take(']'); first = false {
		if !first && !s.take(',') {
			return docs, s.fault("no comma between sessions")
		}
		if s.peek() != '{' {
			return docs, s.fault("session is no object")
		}
		doc, err := s.value()
		if err != nil {
			return docs, err
		}
		docs = append(docs, doc)
	}
	return docs, nil
}

// maxDepth is more than any document of ours has.
const maxDepth = 32

// value passes over one value.
func (s *scanner) value() ([]byte, error) {
	var open [maxDepth]byte // the brackets that are to close
	depth := 0
	s.peek()
	for from := s.at; s.at < len(s.b); {
		switch c := s.b[s.at]; c {
		case '"':
			if !s.text() {
				return nil, s.fault("string without end")
			}
			if depth == 0 {
				return s.b[from:s.at], nil
			}
			continue
		case '{', '[':
			if depth == maxDepth {
				return nil, s.fault("too deep")
			}
			open[depth] = c + 2 // what closes it stands two further in ASCII
			depth++
		case '}', ']', ',':
			if depth == 0 { // of what is around
				if s.at == from {
					return nil, s.fault("no value")
				}
				return bytes.TrimRight(s.b[from:s.at], " \t\r"), nil
			}
			if c == ',' {
				break
			}
			depth--
			if open[depth] != c {
				return nil, s.fault("brackets do not match")
			}
			if depth == 0 {
				s.at++
				return s.b[from:s.at], nil
			}
		}
		s.at++
	}
	return nil, s.fault("ends too early")
}

// text passes over a string.
func (s *scanner) text() bool {
	for i := s.at + 1; ; i++ {
		n := bytes.IndexByte(s.b[i:], '"')
		if n < 0 {
			return false
		}
		i += n
		escapes := 0
		for s.b[i-1-escapes] == '\\' {
			escapes++
		}
		if escapes%2 == 0 {
			s.at = i + 1
			return true
		}
	}
}
