package journal

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *lockedBuffer) count(words string) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return strings.Count(b.buf.String(), words)
}

func logTo(b *lockedBuffer) *slog.Logger { return slog.New(slog.NewTextHandler(b, nil)) }

func mustOpen(t *testing.T, dir string, o Options) *Log {
	t.Helper()
	l, err := Open(dir, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func segmentFiles(t *testing.T, dir string) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*"+segmentSuffix))
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func TestNextProcessFindsEverything(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state/relay")
	want := map[string]string{}
	for process := range 3 {
		l := mustOpen(t, dir, Options{})
		if got := contents(l); !maps.Equal(got, want) {
			t.Fatalf("process %d finds %v, want %v", process, got, want)
		}
		for i := range 4 {
			key, value := fmt.Sprintf("p%d-%d", process, i), strings.Repeat("x", 10*i)
			l.Put(key, []byte(value))
			want[key] = value
		}
		gone := fmt.Sprintf("p%d-1", process)
		l.Delete(gone)
		l.Delete("never there")
		delete(want, gone)
		if err := errors.Join(l.Close(), l.Close()); err != nil {
			t.Fatal(err)
		}
		l.Put("late", nil) // after Close: nothing happens
	}
	info, err := os.Stat(dir)
	if err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("folder %v, %v; want mode 0700", info.Mode(), err)
	}
	for _, f := range segmentFiles(t, dir) {
		if info, err := os.Stat(f); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v; want mode 0600", f, info.Mode(), err)
		}
	}
}

func TestOneProcessAtATime(t *testing.T) {
	dir := t.TempDir()
	l := mustOpen(t, dir, Options{})
	_, err := Open(dir, Options{})
	if !errors.Is(err, ErrInUse) {
		t.Fatalf("a second one: %v, want %v", err, ErrInUse)
	}
	for _, want := range []string{dir, fmt.Sprintf("process %d", os.Getpid()), "state_dir"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q says nothing of %s", err, want)
		}
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	mustOpen(t, dir, Options{})
}

func TestFolderThatCannotBe(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(filepath.Join(file, "relay"), Options{}); err == nil || !strings.Contains(err.Error(), file) {
		t.Errorf("got %v, want an error that names %s", err, file)
	}
}

// A later version may know better what stands there: it is neither read nor overwritten.
func TestNewerVersionIsLeftAlone(t *testing.T) {
	dir := t.TempDir()
	l := mustOpen(t, dir, Options{})
	l.Put("k", []byte("v"))
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	name := segmentFiles(t, dir)[0]
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	header := bytes.Clone(b[:headerSize])
	header[len(magic)] = version + 1
	b = append(sealed(header), b[headerSize:]...)
	if err := os.WriteFile(name, b, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(dir, Options{}); !errors.Is(err, ErrNewer) || !strings.Contains(err.Error(), "remove the folder") {
		t.Errorf("got %v, want %v and a hint", err, ErrNewer)
	}
	if after, err := os.ReadFile(name); err != nil || !bytes.Equal(after, b) {
		t.Errorf("the file was changed (%v)", err)
	}
	if err := os.Remove(name); err != nil {
		t.Fatal(err)
	}
	mustOpen(t, dir, Options{}) // the refused one gave its lock back
}

// What is wrong with the files is said, with the place.
func TestDamageIsReported(t *testing.T) {
	for _, c := range []struct {
		name string
		hurt func(b []byte) []byte
		want string
		left int
	}{
		{"torn end", func(b []byte) []byte { return b[:len(b)-3] }, `level=WARN msg="the end of the journal is cut off`, 9},
		{"in the middle", func(b []byte) []byte { b[len(b)/2] ^= 0x40; return b }, `level=ERROR msg="the journal is damaged`, 9},
		{"zeros at the end", func(b []byte) []byte { return append(b, make([]byte, 5000)...) }, `bytes=5000`, 10},
		{"header", func(b []byte) []byte { b[0] = 'x'; return b }, `error="not the header of a journal"`, 10},
		{"nothing left", func([]byte) []byte { return nil }, "cut off", 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			l := mustOpen(t, dir, Options{})
			for i := range 10 {
				l.Put(fmt.Sprint(i), []byte("the value"))
			}
			if err := l.Close(); err != nil {
				t.Fatal(err)
			}
			name := segmentFiles(t, dir)[0]
			b, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(name, c.hurt(b), 0o600); err != nil {
				t.Fatal(err)
			}
			log := &lockedBuffer{}
			l = mustOpen(t, dir, Options{Log: logTo(log)})
			if got := len(contents(l)); got != c.left {
				t.Errorf("%d records left, want %d", got, c.left)
			}
			if log.count(c.want) != 1 || log.count(filepath.Base(name)) != 1 {
				t.Errorf("the log says\n%s", log.buf.String())
			}
			// The damage is gone with the next compaction.
			l.Put("new", []byte("value"))
			for end := time.Now().Add(10 * time.Second); l.Stats().Segments > 1; time.Sleep(time.Millisecond) {
				if time.Now().After(end) {
					t.Fatal("no compaction")
				}
			}
			if err := l.Close(); err != nil {
				t.Fatal(err)
			}
			clean := &lockedBuffer{}
			l = mustOpen(t, dir, Options{Log: logTo(clean)})
			if got := len(contents(l)); got != c.left+1 || clean.buf.Len() != 0 {
				t.Errorf("%d records, and the log says %q", got, clean.buf.String())
			}
		})
	}
}

// The goroutine syncs what was written, once for many records, and clears what is dead.
func TestUpkeep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk := newFakeDisk()
		l, err := open(disk, "test", Options{CompactAfter: 10000})
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		l.Put("k", []byte("value"))
		unsynced := func() (n int) {
			disk.set(func() {
				for _, f := range disk.files {
					n += len(f.data) - len(f.safe)
				}
			})
			return n
		}
		if unsynced() == 0 {
			t.Error("Put waits for the disk")
		}
		time.Sleep(101 * time.Millisecond)
		synctest.Wait()
		if n := unsynced(); n != 0 || len(disk.synced) != 1 {
			t.Errorf("%d bytes and %d names are synced after 100 ms", n, len(disk.synced))
		}
		for i := range 400 {
			l.Put("k", bytes.Repeat([]byte{byte(i)}, 100))
		}
		synctest.Wait()
		if s := l.Stats(); s.Dead > 10000+200 || s.Records != 1 || s.Segments != 1 || len(disk.files) != 1 {
			t.Errorf("%+v in %d files", s, len(disk.files))
		}
	})
}

// Trouble is told once, and its end.
func TestTroubleIsToldOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk, log := newFakeDisk(), &lockedBuffer{}
		l, err := open(disk, "test", Options{Log: logTo(log), MaxWaiting: 1000})
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		disk.set(func() { disk.space = 100 })
		for i := range 100 {
			l.Put(fmt.Sprint(i), make([]byte, 96))
		}
		time.Sleep(10 * time.Second)
		if s := l.Stats(); s.Failing == nil || s.Waiting != 10 || s.Lost != 90 {
			t.Errorf("%+v, want 10 that wait and 90 lost", s)
		}
		if n := log.count("level=ERROR"); n != 1 || log.count("no space left on device") != 1 {
			t.Errorf("%d errors in the log, want 1:\n%s", n, log.buf.String())
		}
		disk.set(func() { disk.space = -1 })
		time.Sleep(2 * time.Second)
		if log.count("written again") != 1 || log.count("records_that_waited=10") != 1 || log.count("lost=90") != 1 {
			t.Errorf("the log says\n%s", log.buf.String())
		}
		if got := len(contents(quiet(t, disk.afterKill(), 100))); got != 10 {
			t.Errorf("%d records on disk, want 10", got)
		}
	})
}

// A disk that cannot sync: what was written is written once more, to another file, when it
// can; until then nothing piles up.
func TestSyncFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk, log := newFakeDisk(), &lockedBuffer{}
		l, err := open(disk, "test", Options{Log: logTo(log)})
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		disk.set(func() { disk.broken = true })
		for i := range 600 {
			l.Put(fmt.Sprint(i%10), make([]byte, 96))
			time.Sleep(time.Second)
		}
		if n := len(disk.files); n > maxSegments+1 {
			t.Errorf("%d files", n)
		}
		if n := log.count("level=ERROR"); n > 2 || log.count("may not outlive a crash") != 1 {
			t.Errorf("%d errors in the log:\n%s", n, log.buf.String())
		}
		if got := len(contents(quiet(t, disk.afterKill(), 100))); got != 10 {
			t.Errorf("a killed process leaves %d records, want 10", got)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		disk, log := newFakeDisk(), &lockedBuffer{}
		l, err := open(disk, "test", Options{Log: logTo(log)})
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		disk.set(func() { disk.broken = true })
		l.Put("k", []byte("v"))
		time.Sleep(time.Second)
		first := newest(l)
		disk.set(func() { disk.broken = false })
		l.Put("k", []byte("w"))
		time.Sleep(time.Minute)
		s := l.Stats()
		if s.Segments != 1 || newest(l) == first || log.count("written anew and is whole") != 1 {
			t.Errorf("%+v, the log says\n%s", s, log.buf.String())
		}
		after := quiet(t, disk.afterPower(func(int) int { return 0 }), 100)
		if got := contents(after); got["k"] != "w" {
			t.Errorf("after a crash of the machine: %v", got)
		}
	})
}

// Puts go on while a compaction runs, and what they write counts.
func TestPutsDuringCompaction(t *testing.T) {
	dir := t.TempDir()
	l := mustOpen(t, dir, Options{CompactAfter: 1 << 16})
	want := map[string]string{}
	var mu sync.Mutex
	var writers sync.WaitGroup
	for w := range 4 {
		writers.Go(func() {
			for i := 0; i < 3000 || newestNumber(l) < 4 && i < 300000; i++ {
				key, value := fmt.Sprintf("%d-%d", w, i%50), fmt.Sprintf("%d %s", i, strings.Repeat("v", i%200))
				if i%7 == 0 {
					l.Delete(key)
				} else {
					l.Put(key, []byte(value))
				}
				mu.Lock()
				if delete(want, key); i%7 != 0 {
					want[key] = value
				}
				mu.Unlock()
			}
		})
	}
	writers.Wait()
	if n := newestNumber(l); n < 4 {
		t.Errorf("only %d segments were made, want compactions", n)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if got := contents(mustOpen(t, dir, Options{})); !maps.Equal(got, want) {
		t.Errorf("%d records, want %d", len(got), len(want))
	}
}

func TestTooLarge(t *testing.T) {
	log := &lockedBuffer{}
	l := mustOpen(t, t.TempDir(), Options{Log: logTo(log)})
	l.Put("k", make([]byte, maxPayload))
	if s := l.Stats(); s.Records != 0 || s.Lost != 1 || log.count("too large") != 1 {
		t.Errorf("%+v", s)
	}
}

func newest(l *Log) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.active.name
}

func newestNumber(l *Log) uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.number
}

// What a Put of a call's record costs.
func BenchmarkPut(b *testing.B) {
	l, err := Open(b.TempDir(), Options{})
	if err != nil {
		b.Fatal(err)
	}
	defer l.Close()
	value := make([]byte, 1000)
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		l.Put(keyOf(i%5000), value)
	}
}

func keyOf(i int) string { return string([]byte{'c', byte(i), byte(i >> 8)}) }
