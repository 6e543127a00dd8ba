package journal

import (
	"errors"
	"fmt"
	"hash/crc32"
	"io"
)

// found is one frame of a segment. key and value alias the reader's buffer.
type found struct {
	op     operation
	key    []byte
	value  []byte
	offset int64
	size   int // of the whole frame
}

// damage is a part of a segment that holds no frame.
type damage struct {
	from, to int64
	tail     bool // nothing follows
	why      error
}

var (
	errTorn   = errors.New("not a whole record")
	errHeader = errors.New("not the header of a journal")
)

// newerError: the segment was written by a later version of this program.
type newerError struct{ version int }

func (e newerError) Error() string {
	return fmt.Sprintf("format version %d; this program reads version %d", e.version, version)
}

const readAhead = 256 << 10

// window reads a file from front to back and keeps the part around the current offset.
type window struct {
	r    io.ReaderAt
	size int64
	buf  []byte
	from int64 // offset of buf[0]
}

// at returns n bytes at an offset, fewer at the end of the file. Offsets must not fall.
func (w *window) at(offset int64, n int) ([]byte, error) {
	n = int(min(int64(n), w.size-offset))
	if have := w.from + int64(len(w.buf)) - offset; have >= int64(n) {
		return w.buf[offset-w.from:][:n], nil
	}
	want := int(min(max(int64(n), readAhead), w.size-offset))
	kept := w.buf[min(int64(len(w.buf)), offset-w.from):]
	next := make([]byte, want)
	copied := copy(next, kept)
	read, err := w.r.ReadAt(next[copied:], offset+int64(copied))
	if err != nil && !(errors.Is(err, io.EOF) && copied+read == want) {
		return nil, err
	}
	w.buf, w.from = next, offset
	return w.buf[:n], nil
}

// scan reads a segment and calls each for every frame. What is not a frame is
// stepped over byte by byte until one follows, and returned. An error means that
// the file cannot be read, or must not be.
func scan(r io.ReaderAt, size int64, s salt, each func(found)) (bad []damage, err error) {
	w := &window{r: r, size: size}
	header, err := w.at(0, headerSize)
	if err != nil {
		return nil, err
	}
	switch v, ok := parseHeader(header); {
	case !ok:
		bad = append(bad, damage{from: 0, to: min(headerSize, size), tail: size <= headerSize, why: errHeader})
	case v > version:
		return nil, newerError{v}
	}
	seed := s.seed()
	var open *damage
	for offset := int64(headerSize); offset < size; {
		f, why, err := next(w, seed, offset)
		if err != nil {
			return bad, err
		}
		if why != nil {
			if open == nil {
				open = &damage{from: offset, why: why}
			}
			// A frame whose checksums hold and whose content is unknown is one step.
			offset += int64(max(1, f.size))
			continue
		}
		if open != nil {
			open.to = offset
			bad, open = append(bad, *open), nil
		}
		each(f)
		offset += int64(f.size)
	}
	if open != nil {
		open.to, open.tail = size, true
		bad = append(bad, *open)
	}
	return bad, nil
}

// next reads the frame at an offset; why says that there is none.
func next(w *window, seed uint32, offset int64) (f found, why, err error) {
	head, err := w.at(offset, headSize)
	if err != nil {
		return found{}, nil, err
	}
	length, sum, ok := parseHead(head, seed, offset)
	if !ok || int64(length) > w.size-offset-headSize {
		return found{}, errTorn, nil
	}
	frame, err := w.at(offset, headSize+length)
	if err != nil {
		return found{}, nil, err
	}
	payload := frame[headSize:]
	if crc32.Checksum(payload, castagnoli) != sum {
		return found{}, errTorn, nil
	}
	f = found{offset: offset, size: len(frame)}
	f.op, f.key, f.value, why = parsePayload(payload)
	return f, why, nil
}
