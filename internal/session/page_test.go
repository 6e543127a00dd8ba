package session

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"slices"
	"testing"

	"example.org/mediaproxy/internal/media"
	"example.org/mediaproxy/internal/report"
	"example.org/mediaproxy/internal/wire/control"
)

// make makes an answered session.
func (b *bench) make(t testing.TB, callID string) {
	t.Helper()
	u := control.Update{Kind: control.KindRequest, CallID: callID, FromTag: "F", CSeq: 1, FromURI: "alice@example.com", ToURI: "bob@example.com", HasMedia: true,
		DialogID: "1:2", Signaling: control.Signaling{Username: "alice"},
		Media: []control.Media{{Type: "audio", Addr: netip.MustParseAddr("10.0.0.1"), Port: 4000, Direction: "sendrecv"}}}
	if _, _, err := b.Update(u, "d", true); err != nil {
		t.Fatal(err)
	}
	u.Kind, u.ToTag = control.KindReply, "T"
	if _, _, err := b.Update(u, "d", false); err != nil {
		t.Fatal(err)
	}
}

func (b *bench) drop(t testing.TB, callID string) {
	t.Helper()
	if _, err := b.Remove(control.Remove{CallID: callID, FromTag: "F"}); err != nil {
		t.Fatal(err)
	}
}

func manyPorts(c *media.Config) { c.FirstPort, c.EndPort, c.Pick = 10000, 60000, nil }

// Sessions come and go between the pages. Each that lives from the beginning of the
// reading to its end is in it once, with the document that it has by itself, in the
// order of creation; none is in it twice.
func TestPagesHaveEverySessionOnce(t *testing.T) {
	draw := rand.New(rand.NewPCG(3, 4))
	b := newBench(t, manyPorts)
	var living []string // in the order of creation
	made := 0
	change := func(most int) {
		for range draw.IntN(most + 1) {
			b.make(t, fmt.Sprint("c", made))
			living = append(living, fmt.Sprint("c", made))
			made++
		}
		for range draw.IntN(most + 1) {
			if len(living) > 0 {
				i := draw.IntN(len(living))
				b.drop(t, living[i])
				living = slices.Delete(living, i, i+1)
			}
		}
	}
	for reading := range 60 {
		change(100)
		throughout := slices.Clone(living)
		limit := 1 + draw.IntN(40)
		var got []string
		after, pages := uint64(0), 0
		for {
			n := 0
			next := b.Page(after, limit, func(doc *report.Session) {
				n++
				got = append(got, doc.CallID)
				if alone := b.Session(doc.CallID, ""); len(alone) != 1 || !reflect.DeepEqual(*doc, alone[0]) {
					t.Fatalf("page has %+v, the session alone is %+v", *doc, alone)
				}
				doc.Strip() // whoever reads may write
			})
			if n > limit || next != 0 && next <= after {
				t.Fatalf("%d sessions with limit %d, next %d after %d", n, limit, next, after)
			}
			if pages++; next == 0 {
				break
			}
			after = next
			change(min(10, limit)) // fewer come than are read, or it would not end
			throughout = slices.DeleteFunc(throughout, func(id string) bool { return !slices.Contains(living, id) })
		}
		if !slices.IsSortedFunc(got, func(a, b string) int { return number(a) - number(b) }) || len(slices.Compact(slices.Clone(got))) != len(got) {
			t.Fatalf("reading %d: not in order of creation, or one twice: %v", reading, got)
		}
		for _, id := range throughout {
			if !slices.Contains(got, id) {
				t.Fatalf("reading %d of %d pages: %s is missing", reading, pages, id)
			}
		}
		if n := b.Len(); n != len(living) {
			t.Fatalf("%d sessions, want %d", n, len(living))
		}
		if holes := len(b.queue.places) - len(living); holes != b.queue.holes || holes > fewHoles && holes > len(living)+1 {
			t.Fatalf("%d holes among %d sessions, counted %d", holes, len(living), b.queue.holes)
		}
	}
}

func number(id string) (n int) {
	fmt.Sscanf(id, "c%d", &n)
	return n
}

// A session that ends while its page is read is left out: what it was is reported.
func TestSessionThatEndsWithinItsPage(t *testing.T) {
	b := newBench(t, nil)
	for i := range 3 {
		b.make(t, fmt.Sprint("c", i))
	}
	var got []string
	next := b.Page(0, 10, func(doc *report.Session) {
		got = append(got, doc.CallID)
		if doc.CallID == "c0" {
			b.drop(t, "c1")
		}
	})
	if !slices.Equal(got, []string{"c0", "c2"}) || next != 0 {
		t.Errorf("got %v, next %d", got, next)
	}
}

func TestPagesLeaveNoGarbage(t *testing.T) {
	b := newBench(t, manyPorts)
	for i := range 500 {
		b.make(t, fmt.Sprint("c", i))
	}
	var line []byte
	read := func() {
		for after := uint64(0); ; {
			line = line[:0]
			next := b.Page(after, 100, func(doc *report.Session) {
				var err error
				if line, err = report.AppendSession(line, doc); err != nil {
					t.Fatal(err)
				}
			})
			if next == 0 {
				return
			}
			after = next
		}
	}
	if n := testing.AllocsPerRun(20, read); n > 25 { // a few for each page, none for a session
		t.Errorf("%.0f allocations for 500 sessions in 5 pages", n)
	}
}

func BenchmarkPage(b *testing.B) {
	table := newBench(b, manyPorts)
	for i := range 4500 {
		table.make(b, fmt.Sprintf("3c26700c1adb-%d@192.0.2.10", i))
	}
	var line []byte
	b.ReportAllocs()
	after := uint64(0)
	for b.Loop() {
		line = line[:0]
		after = table.Page(after, 128, func(doc *report.Session) { line, _ = report.AppendSession(line, doc) })
	}
}
