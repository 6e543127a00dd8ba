package report

import (
	"bytes"
	"encoding/json"
	"fmt"
	"sync"
	"unicode/utf8"
)

// Append appends doc as one line of JSON in the form that readers of the
// original's documents have always seen: a space after each comma and colon,
// nothing but ASCII. Strings may hold any bytes: those that are not UTF-8 are
// written as the code points of the same number.
func Append(dst []byte, doc any) ([]byte, error) {
	switch doc := doc.(type) {
	case Session:
		return AppendSession(dst, &doc)
	case []Session:
		if doc != nil {
			return appendSessions(dst, doc)
		}
	}
	return appendAny(dst, doc)
}

// appendAny is for documents that are written now and then.
func appendAny(dst []byte, doc any) ([]byte, error) {
	buffer := buffers.Get().(*bytes.Buffer)
	defer func() {
		if buffer.Cap() <= keptBuffer {
			buffers.Put(buffer)
		}
	}()
	buffer.Reset()
	encoder := json.NewEncoder(buffer)
	encoder.SetEscapeHTML(false) // User-Agents have angle brackets
	if err := encoder.Encode(doc); err != nil {
		return dst, fmt.Errorf("encode a document: %w", err)
	}
	compact := bytes.TrimSuffix(buffer.Bytes(), []byte("\n"))
	inString := false
	for i := 0; i < len(compact); {
		c := compact[i]
		switch {
		case c == '\\' && inString:
			dst = append(dst, c, compact[i+1])
			i += 2
			continue
		case c == '"':
			inString = !inString
		case c >= utf8.RuneSelf:
			r, size := utf8.DecodeRune(compact[i:])
			dst = appendEscaped(dst, r)
			i += size
			continue
		}
		dst = append(dst, c)
		if !inString && (c == ',' || c == ':') {
			dst = append(dst, ' ')
		}
		i++
	}
	return dst, nil
}

// buffers are for documents of ordinary size. A large one would stay for ever.
var buffers = sync.Pool{New: func() any { return new(bytes.Buffer) }}

const keptBuffer = 64 << 10

func appendSessions(dst []byte, docs []Session) (_ []byte, err error) {
	dst = append(dst, '[')
	for i := range docs {
		if i > 0 {
			dst = append(dst, ',', ' ')
		}
		if dst, err = AppendSession(dst, &docs[i]); err != nil {
			return dst, err
		}
	}
	return append(dst, ']'), nil
}

// Text turns bytes from the network into text that JSON can hold: bytes that
// are not UTF-8 become the code points of the same number (as in ISO 8859-1).
func Text(s string) string {
	if utf8.ValidString(s) {
		return s
	}
	out := make([]rune, 0, len(s))
	for i := 0; i < len(s); {
		r, size := utf8.DecodeRuneInString(s[i:])
		if r == utf8.RuneError && size == 1 {
			r = rune(s[i])
		}
		out = append(out, r)
		i += size
	}
	return string(out)
}

// Plain is the document without what only link/2 carries.
func (s Session) Plain() Session {
	s.Streams = append([]Stream{}, s.Streams...)
	s.Strip()
	return s
}

// Strip takes out what only link/2 carries.
func (s *Session) Strip() {
	s.RecordID, s.Reason, s.Partial, s.DialogID, s.Relay = "", "", false, "", ""
	for i := range s.Streams {
		s.Streams[i].Caller, s.Streams[i].Callee = nil, nil
	}
}

// Plain is the document without what only link/2 carries.
func (r Relay) Plain() Relay {
	return Relay{IP: r.IP, Version: r.Version, Status: r.Status, Uptime: r.Uptime,
		SessionCount: r.SessionCount, StreamCount: r.StreamCount, BPSRelayed: r.BPSRelayed}
}
