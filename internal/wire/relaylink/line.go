// Package relaylink is the framing of the link between dispatcher and relay,
// in the plain protocol of the original and in link/2, which our programs
// choose by the TLS ALPN name "mediaproxy-link/2" before the first byte.
//
//	dispatcher to relay                    relay to dispatcher
//	  update 7 CR LF                         7 203.0.113.9 50002 CR LF
//	  call_id: c1 CR LF                      expired {JSON} CR LF
//	  CR LF                                  ping CR LF
//	  pong CR LF
//	link/2 adds
//	  hello {JSON} CR LF                     hello {JSON} CR LF (its first line)
//	  ack RECORD CR LF                       ping {JSON} CR LF
//	                                         released {JSON} CR LF
//
// A line ends in LF, with or without CR before it. Every command, known or not,
// is followed by header lines and an empty line. JSON goes through as raw
// bytes; only the greeting and the load have types here. No sockets, no time.
package relaylink

import (
	"bytes"
	"errors"
	"fmt"
)

// ALPN is the TLS protocol name of link/2. A connection without a negotiated
// name speaks the plain protocol.
const ALPN = "mediaproxy-link/2"

// Line limits, without line end.
const (
	// MaxCommandLine is what a relay accepts of a dispatcher.
	MaxCommandLine = 16384
	// MaxPlainReport is what the original's dispatcher accepts of a relay.
	MaxPlainReport = 4 << 20
	// MaxReport is what our dispatcher accepts of any relay: the statistics of
	// some 60 000 sessions.
	MaxReport = 64 << 20
)

var (
	// ErrIncomplete means that the buffer ends before the line does.
	ErrIncomplete = errors.New("line is not complete yet")
	// ErrTooLong means that the line passes the limit.
	ErrTooLong = errors.New("line is too long")
)

// SyntaxError tells what about a line was wrong. The link can go on after it.
type SyntaxError struct {
	Offset int // into the line
	Text   string
}

func (e *SyntaxError) Error() string { return fmt.Sprintf("offset %d: %s", e.Offset, e.Text) }

// SplitLine cuts the first line off b. line aliases b and has no line end; n is
// what to advance by.
func SplitLine(b []byte, limit int) (line []byte, n int, err error) {
	i := bytes.IndexByte(b, '\n')
	if i < 0 {
		if len(b) > limit+1 { // a CR may already be there
			return nil, 0, ErrTooLong
		}
		return nil, 0, ErrIncomplete
	}
	line = bytes.TrimSuffix(b[:i], []byte{'\r'})
	if len(line) > limit {
		return nil, 0, ErrTooLong
	}
	return line, i + 1, nil
}
