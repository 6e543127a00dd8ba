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

// AppendList appends documents as one array, one after the other: thousands at
// once would leave megabytes behind for the garbage collector to clear away.
func AppendList[T any](dst []byte, docs []T) ([]byte, error) {
	dst = append(dst, '[')
	for i, doc := range docs {
		if i > 0 {
			dst = append(dst, ',', ' ')
		}
		var err error
		if dst, err = Append(dst, doc); err != nil {
			return dst, err
		}
	}
	return append(dst, ']'), nil
}

func appendEscaped(dst []byte, r rune) []byte {
	if r >= 1<<16 {
		r -= 1 << 16
		return fmt.Appendf(dst, `\u%04x\u%04x`, 0xd800+(r>>10), 0xdc00+(r&0x3ff))
	}
	return fmt.Appendf(dst, `\u%04x`, r)
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
	s.RecordID, s.Reason, s.DialogID, s.Relay = "", "", "", ""
	streams := make([]Stream, len(s.Streams))
	for i, stream := range s.Streams {
		stream.Caller, stream.Callee = nil, nil
		streams[i] = stream
	}
	s.Streams = streams
	return s
}

// Plain is the document without what only link/2 carries.
func (r Relay) Plain() Relay {
	return Relay{IP: r.IP, Version: r.Version, Status: r.Status, Uptime: r.Uptime,
		SessionCount: r.SessionCount, StreamCount: r.StreamCount, BPSRelayed: r.BPSRelayed}
}
