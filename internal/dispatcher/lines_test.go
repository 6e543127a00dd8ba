package dispatcher

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"example.org/mediaproxy/internal/wire/relaylink"
)

func TestLineReader(t *testing.T) {
	long := strings.Repeat("x", 3*readSize)
	text := "ping\r\n" + long + "\r\n\n1 2\n" + strings.Repeat("7 short\r\n", 5000)
	want := append([]string{"ping", long, "", "1 2"}, strings.Split(strings.TrimSuffix(strings.Repeat("7 short\n", 5000), "\n"), "\n")...)
	for name, in := range map[string]io.Reader{
		"whole": strings.NewReader(text), "halves": iotest.HalfReader(strings.NewReader(text)), "bytes": iotest.OneByteReader(strings.NewReader(text)),
	} {
		r := &lineReader{conn: in}
		for i, w := range want {
			line, err := r.next(4 * readSize)
			if err != nil || string(line) != w {
				t.Fatalf("%s: line %d is %.30q, %v; want %.30q", name, i, line, err, w)
			}
		}
		if _, err := r.next(4 * readSize); !errors.Is(err, io.EOF) {
			t.Errorf("%s: at the end: %v", name, err)
		}
	}
	if _, err := (&lineReader{conn: strings.NewReader(long)}).next(100); !errors.Is(err, relaylink.ErrTooLong) {
		t.Errorf("a long line without end: %v", err)
	}
}

// A page's buffer serves the next page, and goes when none comes.
func TestLineReaderLetsGo(t *testing.T) {
	page, ping := strings.Repeat("x", 150<<10)+"\n", "ping\n"
	in := &lineByLine{}
	r := &lineReader{conn: in}
	read := func(line string) int {
		t.Helper()
		in.rest = append(in.rest, line)
		if got, err := r.next(1 << 20); err != nil || string(got)+"\n" != line {
			t.Fatalf("got %.20q, %v", got, err)
		}
		return len(r.buf)
	}
	large := read(page)
	if large < len(page) || large > keepBuffer {
		t.Fatalf("%d bytes for a page", large)
	}
	for range 3 {
		for range smallReads / 2 {
			read(ping)
		}
		if n := read(page); n != large {
			t.Fatalf("%d bytes for the next page, had %d", n, large)
		}
	}
	for range 2 * smallReads {
		read(ping)
	}
	if n := read(ping); n > readSize {
		t.Errorf("%d bytes are kept for pings", n)
	}
}

// lineByLine is a connection that brings one line at a time, in pieces as large as those of TLS.
type lineByLine struct{ rest []string }

func (l *lineByLine) Read(b []byte) (int, error) {
	n := copy(b[:min(len(b), 16<<10)], l.rest[0])
	if l.rest[0] = l.rest[0][n:]; l.rest[0] == "" {
		l.rest = l.rest[1:]
	}
	return n, nil
}

func FuzzLineReader(f *testing.F) {
	f.Add([]byte("a\r\nb\n\nc"), 3)
	f.Fuzz(func(t *testing.T, in []byte, piece int) {
		r := &lineReader{conn: &pieces{in, min(max(piece, 1), 1<<20)}}
		var got []byte
		for {
			line, err := r.next(1 << 20)
			if err != nil {
				break
			}
			got = append(append(got, line...), '\n')
		}
		want := in[:bytes.LastIndexByte(in, '\n')+1]
		if !bytes.Equal(got, bytes.ReplaceAll(want, []byte("\r\n"), []byte("\n"))) {
			t.Fatalf("%q gave %q", in, got)
		}
	})
}

// pieces is a reader that returns n bytes at a time.
type pieces struct {
	rest []byte
	n    int
}

func (p *pieces) Read(b []byte) (int, error) {
	if len(p.rest) == 0 {
		return 0, io.EOF
	}
	n := copy(b, p.rest[:min(p.n, len(p.rest))])
	p.rest = p.rest[n:]
	return n, nil
}
