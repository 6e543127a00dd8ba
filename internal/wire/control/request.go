// Package control is the wire format between a SIP proxy's mediaproxy module
// and the dispatcher: line-based requests, one-line replies.
//
//	update CR LF                       command word
//	call_id: 3c26@192.0.2.10 CR LF     headers: name, colon, space, value
//	to_tag: CR LF                      an empty value: as if the line were absent
//	CR LF                              the empty line ends the request
//
//	203.0.113.9 50002 50006 CR LF      the reply is always one line
//
// Values are bytes. They need not be UTF-8 and may hold any byte but a line
// feed, which always ends a line (with or without the carriage return before
// it), so that no value can smuggle a header to the next reader. The package
// knows no sockets; a request that cannot be read is consumed up to its empty
// line, so that the connection it came on can live on.
package control

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
)

// The replies that are words. Everything else an update is answered with is an
// Answer.
const (
	ReplyError   = "error"
	ReplyRemoved = "removed"
	ReplyHalting = "halting"
)

// The commands a module sends.
const (
	CommandUpdate = "update"
	CommandRemove = "remove"
)

const (
	// MaxLine is the longest line a reader of the original accepts; the modules
	// stay under 8 KiB for the whole request.
	MaxLine = 16384
	// MaxRequest bounds a whole request, so that a peer which never sends the
	// empty line cannot make us keep what it sends.
	MaxRequest = 4 * MaxLine
	// maxHeaders bounds what is kept of one request; the modules send twelve.
	maxHeaders = 256
)

var (
	// ErrIncomplete means that the buffer ends before the request does.
	ErrIncomplete = errors.New("request is not complete yet")
	// ErrTooLong means that a line or the request passes its limit; the place
	// where the next request starts is then unknown.
	ErrTooLong = errors.New("line or request is too long")
)

// SyntaxError tells what about a request was wrong and where.
type SyntaxError struct {
	Line   int    // 1 is the command
	Offset int    // of that line, from the start of the request
	Text   string // what is wrong with it
}

func (e *SyntaxError) Error() string {
	return fmt.Sprintf("line %d (offset %d): %s", e.Line, e.Offset, e.Text)
}

// Header is one name and value of a request.
type Header struct{ Name, Value string }

// Request is one command with its headers, those with empty values left out.
type Request struct {
	Command string
	Headers []Header
}

// Get finds a header by its exact name. The last one counts.
func (r Request) Get(name string) (string, bool) { return get(r.Headers, name) }

func get(hs []Header, name string) (string, bool) {
	for i := len(hs) - 1; i >= 0; i-- {
		if hs[i].Name == name {
			return hs[i].Value, true
		}
	}
	return "", false
}

// Parse reads the first request of b and returns how many bytes it took. It
// copies what it keeps. ErrIncomplete comes with 0 bytes; a *SyntaxError comes
// with the length of the whole bad request; after ErrTooLong there is no way to
// go on. limit bounds one line without its end; MaxRequest bounds the whole.
func Parse(b []byte, limit int) (req Request, n int, err error) {
	start := 0
	for start < len(b) { // empty lines between requests mean nothing
		switch {
		case b[start] == '\n':
			start++
		case b[start] == '\r' && start+1 < len(b) && b[start+1] == '\n':
			start += 2
		default:
			return parseFrom(b, start, limit)
		}
	}
	return Request{}, 0, ErrIncomplete
}

func parseFrom(b []byte, start, limit int) (Request, int, error) {
	end, next, err := findEnd(b, start, limit)
	if err != nil {
		return Request{}, 0, err
	}
	text := string(b[start:end]) // one copy; everything below points into it
	command, rest, _ := strings.Cut(text, "\n")
	req := Request{Command: strings.TrimSuffix(command, "\r")}
	offset := len(command) + 1
	for line := 2; rest != ""; line++ {
		var raw string
		raw, rest, _ = strings.Cut(rest, "\n")
		h, keep, fault := parseHeader(strings.TrimSuffix(raw, "\r"))
		if fault == "" && keep && len(req.Headers) == maxHeaders {
			fault = fmt.Sprintf("more than %d headers", maxHeaders)
		}
		if fault != "" {
			return Request{Command: req.Command}, next, &SyntaxError{Line: line, Offset: offset, Text: fault}
		}
		if keep {
			if req.Headers == nil {
				req.Headers = make([]Header, 0, 12)
			}
			req.Headers = append(req.Headers, h)
		}
		offset += len(raw) + 1
	}
	return req, next, nil
}

// findEnd finds the empty line that ends the request at start: end is where its
// last header ends, next where the next request begins.
func findEnd(b []byte, start, limit int) (end, next int, err error) {
	for at := start; ; {
		i := bytes.IndexByte(b[at:], '\n')
		if i < 0 {
			if len(b)-at > limit+1 || len(b)-start > MaxRequest {
				return 0, 0, ErrTooLong
			}
			return 0, 0, ErrIncomplete
		}
		line := bytes.TrimSuffix(b[at:at+i], []byte{'\r'})
		if len(line) > limit || at+i-start > MaxRequest {
			return 0, 0, ErrTooLong
		}
		if len(line) == 0 && at > start {
			return at, at + i + 1, nil
		}
		at += i + 1
	}
}

// parseHeader splits one header line. keep is false for an empty value.
func parseHeader(line string) (h Header, keep bool, fault string) {
	if line[:1] == " " || line[:1] == "\t" {
		return h, false, "line starts with white space: a folded header value must be unfolded first"
	}
	name, value, ok := strings.Cut(line, ": ")
	switch {
	case !ok:
		return h, false, fmt.Sprintf("header %.40q has no colon and space", line)
	case name == "":
		return h, false, "header has no name"
	}
	return Header{name, value}, value != "", ""
}

// Append writes a request as a module does, its empty line included. Command,
// names and values must not contain line feeds.
func Append(dst []byte, r Request) []byte {
	dst = append(dst, r.Command...)
	dst = append(dst, '\r', '\n')
	dst = AppendHeaders(dst, r.Headers)
	return append(dst, '\r', '\n')
}

// AppendHeaders writes header lines, without the empty line after them.
func AppendHeaders(dst []byte, hs []Header) []byte {
	for _, h := range hs {
		dst = append(dst, h.Name...)
		dst = append(dst, ':', ' ')
		dst = append(dst, h.Value...)
		dst = append(dst, '\r', '\n')
	}
	return dst
}
