package journal

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// quiet is a log whose goroutine has nothing to do: the test calls what it would.
func quiet(t interface {
	Helper()
	Fatalf(string, ...any)
}, d *fakeDisk, compactAfter int64) *Log {
	t.Helper()
	l, err := open(d, "test", Options{SyncEvery: time.Hour, CompactAfter: compactAfter, MaxWaiting: 4 << 10})
	if err != nil {
		t.Fatalf("open: %v", err)
	}
	close(l.stop)
	<-l.ended
	return l
}

// contents is what Each tells.
func contents(l *Log) map[string]string {
	m := map[string]string{}
	l.Each(func(key string, value []byte) { m[key] = string(value) })
	return m
}

// A process that dies at any byte of what it writes leaves behind what it had when its
// last Put or Delete returned, or, if it died in one, that one too.
func TestKilledAtAnyByte(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		disk, model := newFakeDisk(), map[string]string{}
		for process := range rapid.IntRange(1, 4).Draw(t, "processes") {
			l := quiet(t, disk, int64(rapid.IntRange(1, 400).Draw(t, "compact after")))
			if got := contents(l); !maps.Equal(got, model) {
				t.Fatalf("process %d finds %v, want %v", process, got, model)
			}
			disk.budget = rapid.IntRange(0, 4000).Draw(t, "bytes until the crash")
			for disk.budget > 0 {
				before := maps.Clone(model)
				step(t, l, model)
				if disk.budget == 0 { // it died in this step
					after := quiet(t, disk.afterKill(), 100)
					if got := contents(after); !maps.Equal(got, before) && !maps.Equal(got, model) {
						t.Fatalf("process %d died in a step and left %v, want %v or %v", process, got, before, model)
					} else {
						model = got
					}
				}
			}
			disk = disk.afterKill()
		}
	})
}

var keys = []string{"a", "b", "c", "d", ""}

// step does something to a log and to the model.
func step(t *rapid.T, l *Log, model map[string]string) {
	key := rapid.SampledFrom(keys).Draw(t, "key")
	switch rapid.IntRange(0, 9).Draw(t, "step") {
	case 0, 1:
		l.Delete(key)
		delete(model, key)
	case 2:
		_ = l.sync()
	case 3:
		if l.wantsCompaction() {
			_ = l.compact() // the crash may come in the middle
		}
	default:
		value := strings.Repeat(rapid.StringMatching(`[a-z]{0,3}`).Draw(t, "value"), rapid.IntRange(0, 40).Draw(t, "times"))
		l.Put(key, []byte(value))
		model[key] = value
	}
}

// A machine that crashes loses nothing that was synced, and of each key what is left is
// one of the values that it had since.
func TestMachineCrash(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		disk := newFakeDisk()
		l := quiet(t, disk, int64(rapid.IntRange(1, 400).Draw(t, "compact after")))
		model := map[string]string{}
		since := map[string][]string{} // values that each key may have; "-" means none
		settle := func() {
			clear(since)
			for _, key := range keys {
				since[key] = []string{valueOf(model, key)}
			}
		}
		settle()
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			if rapid.IntRange(0, 9).Draw(t, "sync") == 0 {
				if err := l.sync(); err != nil {
					t.Fatal(err)
				}
				settle()
				continue
			}
			step(t, l, model)
			for _, key := range keys {
				since[key] = append(since[key], valueOf(model, key))
			}
		}
		if l.active != nil && rapid.Bool().Draw(t, "compacting") { // and no further than this
			disk.budget = rapid.IntRange(0, 1000).Draw(t, "bytes until the crash")
			_ = l.compact()
		}
		after := quiet(t, disk.afterPower(func(most int) int { return rapid.IntRange(0, most).Draw(t, "written") }), 100)
		got := contents(after)
		for _, key := range keys {
			if v := valueOf(got, key); !slices.Contains(since[key], v) {
				t.Fatalf("key %q came back as %q, want one of %q", key, v, since[key])
			}
		}
	})
}

func valueOf(m map[string]string, key string) string {
	if v, ok := m[key]; ok {
		return "+" + v
	}
	return "-"
}

// While the disk is full nothing is lost as long as there is room in memory, and once it
// has space again everything stands on it.
func TestFullDisk(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		disk, model := newFakeDisk(), map[string]string{}
		l := quiet(t, disk, int64(rapid.IntRange(1, 400).Draw(t, "compact after")))
		for range rapid.IntRange(1, 5).Draw(t, "rounds") {
			disk.space = int64(rapid.IntRange(0, 600).Draw(t, "space"))
			for range rapid.IntRange(1, 20).Draw(t, "steps") {
				step(t, l, model)
				if rapid.Bool().Draw(t, "retry") {
					l.retry()
				}
			}
			disk.space = -1
			l.retry()
			if s := l.Stats(); s.Failing != nil || s.Waiting != 0 || s.Lost != 0 {
				t.Fatalf("with space again: %+v", s)
			}
			if l.wantsCompaction() {
				if err := l.compact(); err != nil {
					t.Fatal(err)
				}
				if n := l.Stats().Segments; n != 1 {
					t.Fatalf("%d segments after a compaction", n)
				}
			}
			if got := contents(quiet(t, disk.afterKill(), 100)); !maps.Equal(got, model) {
				t.Fatalf("on disk %v, want %v", got, model)
			}
		}
	})
}

// Whatever is damaged, what comes back was once written, and what was not hit is there.
func TestDamageIsContained(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		disk := newFakeDisk()
		l := quiet(t, disk, 1<<20)
		places := map[string][2]int{}
		for i := range rapid.IntRange(1, 30).Draw(t, "records") {
			key := fmt.Sprint("key", i)
			l.Put(key, []byte("value of "+key))
			at := l.index[key]
			places[key] = [2]int{int(at.offset), int(at.offset) + int(at.size)}
		}
		next := disk.afterKill()
		f := next.files[l.active.name]
		from := rapid.IntRange(0, len(f.data)-1).Draw(t, "from")
		to := rapid.IntRange(from+1, len(f.data)).Draw(t, "to")
		for i := from; i < to; i++ {
			f.data[i] ^= byte(rapid.IntRange(1, 255).Draw(t, "flip"))
		}
		got := contents(quiet(t, next, 100))
		for key, value := range got {
			if value != "value of "+key {
				t.Fatalf("%q came back as %q", key, value)
			}
		}
		for key, p := range places {
			if _, ok := got[key]; !ok && (p[1] <= from || p[0] >= to) {
				t.Fatalf("%s at %v is gone; damaged was %d to %d", key, p, from, to)
			}
		}
	})
}
