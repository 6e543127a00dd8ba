package journal

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"slices"
	"strings"
)

const segmentSuffix = ".journal"

// segment is one file.
type segment struct {
	file
	name   string
	number uint64
	salt   salt
	seed   uint32
	end    int64 // where the next frame goes; guarded by Log.mu
}

func createSegment(files storage, number uint64) (*segment, error) {
	var b [8]byte
	rand.Read(b[:]) // never fails
	s := &segment{number: number, salt: salt(binary.LittleEndian.Uint64(b[:])), end: headerSize}
	s.seed = s.salt.seed()
	s.name = fmt.Sprintf("%08d-%016x%s", number, uint64(s.salt), segmentSuffix)
	var err error
	if s.file, err = files.create(s.name); err != nil {
		return nil, fmt.Errorf("begin a segment of the journal: %w", err)
	}
	if _, err := s.WriteAt(appendHeader(nil), 0); err != nil {
		err = fmt.Errorf("begin a segment of the journal: %w", err)
		return nil, errors.Join(err, s.Close(), files.remove(s.name))
	}
	return s, nil
}

// parseName returns nil for other files.
func parseName(name string) *segment {
	base, ok := strings.CutSuffix(name, segmentSuffix)
	if !ok {
		return nil
	}
	s := &segment{name: name}
	if n, err := fmt.Sscanf(base, "%d-%x", &s.number, &s.salt); n != 2 || err != nil {
		return nil
	}
	s.seed = s.salt.seed()
	return s
}

// load reads all segments. Nothing is appended to them: how a file ends that was
// written before a crash is not certain.
func (l *Log) load() error {
	names, err := l.files.list()
	if err != nil {
		return err
	}
	var all []*segment
	for _, name := range names {
		if s := parseName(name); s != nil {
			all = append(all, s)
		}
	}
	slices.SortFunc(all, func(a, b *segment) int { return int(a.number) - int(b.number) })
	for _, s := range all {
		if s.file, err = l.files.open(s.name); err != nil {
			return err
		}
		l.segments = append(l.segments, s)
		l.number = s.number
		if err := l.read(s); err != nil {
			return err
		}
	}
	return nil
}

func (l *Log) read(s *segment) error {
	size, err := s.size()
	if err != nil {
		return err
	}
	bad, err := scan(s, size, s.salt, func(f found) { l.note(f.op, string(f.key), s, f.offset, f.size) })
	var newer newerError
	if errors.As(err, &newer) {
		return fmt.Errorf("%s: %w: %w; start that version again, or remove the folder to go on without the calls in it", s.name, ErrNewer, err)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", s.name, err)
	}
	for _, d := range bad {
		if d.tail {
			l.opts.Log.Warn("the end of the journal is cut off: its last record was not written wholly", "folder", l.where, "file", s.name,
				"from", d.from, "bytes", d.to-d.from)
			continue
		}
		l.opts.Log.Error("the journal is damaged: the records in this part are lost, or come back as they were before", "folder", l.where, "file", s.name,
			"from", d.from, "bytes", d.to-d.from, "error", d.why)
	}
	return nil
}

// read returns the value of a record.
func (p place) read() ([]byte, error) {
	frame := make([]byte, p.size)
	if _, err := p.segment.ReadAt(frame, p.offset); err != nil {
		return nil, fmt.Errorf("%s at %d: %w", p.segment.name, p.offset, err)
	}
	length, sum, ok := parseHead(frame, p.segment.seed, p.offset)
	if !ok || headSize+length != len(frame) || crc32.Checksum(frame[headSize:], castagnoli) != sum {
		return nil, fmt.Errorf("%s at %d: %w", p.segment.name, p.offset, errTorn)
	}
	_, _, value, err := parsePayload(frame[headSize:])
	return value, err
}
