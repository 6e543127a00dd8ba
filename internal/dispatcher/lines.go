package dispatcher

import (
	"bytes"
	"errors"
	"io"

	"example.org/mediaproxy/internal/wire/relaylink"
)

const (
	readSize = 16 << 10
	// keepBuffer is the largest buffer a quiet connection keeps, so that pages of
	// statistics need no new one each. Only relays write lines that need one.
	keepBuffer = 256 << 10
	// smallReads is after how many reads in a row that would have fit the usual buffer a
	// larger one goes too: with hundreds of relays those that once held a list of calls
	// would be most of a dispatcher's memory.
	smallReads = 64
)

// lineReader cuts a connection into lines. Its buffer follows what arrives, not
// what a peer announces.
type lineReader struct {
	conn  io.Reader
	buf   []byte // buf[start:end] is not handed out yet
	start int
	end   int
	seen  int // of buf[start:end], known to hold no line feed
	small int // reads in a row that needed no large buffer
}

// next returns one line, valid until the next call.
func (r *lineReader) next(limit int) ([]byte, error) {
	for {
		if line, n, err := r.split(limit); err == nil {
			r.start += n
			r.seen = 0
			return line, nil
		} else if !errors.Is(err, relaylink.ErrIncomplete) {
			return nil, err
		}
		r.room()
		n, err := r.conn.Read(r.buf[r.end:])
		r.end += n
		if err != nil && n == 0 {
			return nil, err
		}
	}
}

// split looks for a line without reading the same megabytes again and again.
func (r *lineReader) split(limit int) ([]byte, int, error) {
	have := r.buf[r.start:r.end]
	if i := bytes.IndexByte(have[r.seen:], '\n'); i >= 0 {
		return relaylink.SplitLine(have[:r.seen+i+1], limit)
	}
	r.seen = len(have)
	if len(have) > limit+1 {
		return nil, 0, relaylink.ErrTooLong
	}
	return nil, 0, relaylink.ErrIncomplete
}

// room makes place for the next read.
func (r *lineReader) room() {
	have := r.buf[r.start:r.end]
	if r.small++; len(have) > readSize/2 { // a long line comes in pieces, as large as TLS makes them
		r.small = 0
	}
	if len(have) == 0 && (len(r.buf) > keepBuffer || len(r.buf) > readSize && r.small > smallReads) {
		r.buf = nil
	}
	if len(r.buf)-r.end >= readSize/4 && r.start < len(r.buf) {
		return
	}
	size := max(readSize, 2*len(have))
	if size > len(r.buf) || len(r.buf) == 0 {
		grown := make([]byte, size)
		copy(grown, have)
		r.buf = grown
	} else {
		copy(r.buf, have)
	}
	r.start, r.end = 0, len(have)
}
