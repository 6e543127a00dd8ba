package state

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// block fills an outbox with records r0 to r(n-1), of which the first ones are handled, and
// returns the file that they are in.
func block(t *testing.T, dir string, n, handled int) string {
	t.Helper()
	t.Run("first process", func(t *testing.T) {
		o := open(t, Config{Dir: dir})
		for i := range handled {
			add(t, o, fmt.Sprint("handled", i), "a")
		}
		receive(t, o, "a", nil)
		eventually(t, "they are handled", func() bool { return waiting(t, o, "a") == 0 })
		for i := range n {
			add(t, o, fmt.Sprint("r", i), "b")
		}
	})
	list, err := filepath.Glob(filepath.Join(dir, "jetstream", "*", "streams", "*", "msgs", "*.blk"))
	if err != nil || len(list) != 1 {
		t.Fatalf("blocks %v, %v", list, err)
	}
	return list[0]
}

// Whatever bit is wrong, what it costs is its own record, and that is said.
func TestDamagedBlock(t *testing.T) {
	const records = 40
	draw := rand.New(rand.NewPCG(1, 2))
	dir := t.TempDir()
	file := block(t, dir, records, 5)
	sound, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for range 12 {
		at, bit := draw.IntN(len(sound)-200)+50, byte(1)<<draw.IntN(8)
		t.Run(fmt.Sprintf("byte %d bit %d", at, bit), func(t *testing.T) {
			folder := t.TempDir()
			if err := os.CopyFS(folder, os.DirFS(dir)); err != nil {
				t.Fatal(err)
			}
			bad := bytes.Clone(sound)
			bad[at] ^= bit
			if err := os.WriteFile(strings.Replace(file, dir, folder, 1), bad, 0o600); err != nil {
				t.Fatal(err)
			}
			o, said := openSaying(t, Config{Dir: folder})
			if n := waiting(t, o, "b"); n < records-1 || n > records {
				t.Errorf("%d records wait, there were %d", n, records)
			}
			copies, _ := filepath.Glob(filepath.Join(folder, "damaged-*.blk"))
			if !strings.Contains(said(), "damaged: finished calls in it are lost") || len(copies) != 1 {
				t.Errorf("copies %v; said %s", copies, said())
			}
			add(t, o, "new", "b")
			r := receive(t, o, "b", nil)
			eventually(t, "nothing waits", func() bool { return waiting(t, o, "b") == 0 })
			if ids := r.ids(); ids[len(ids)-1] != "new" {
				t.Errorf("received %v", ids)
			}
		})
	}
}

// A block that ends within a record is what a crash leaves behind: no complete record is
// missing, and nobody is alarmed.
func TestTornBlock(t *testing.T) {
	dir := t.TempDir()
	file := block(t, dir, 10, 0)
	sound, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, sound[:len(sound)-7], 0o600); err != nil {
		t.Fatal(err)
	}
	o, said := openSaying(t, Config{Dir: dir})
	if n := waiting(t, o, "b"); n != 9 {
		t.Errorf("%d records wait, want 9", n)
	}
	if !strings.Contains(said(), "is cut off") || strings.Contains(said(), "damaged") {
		t.Errorf("said %s", said())
	}
}

// Whatever is in a file: records that are found are intact, in their order, and found again
// in what is left.
func FuzzBlock(f *testing.F) {
	r := newBlockReader(localStream, localPrefix, 1)
	list, err := filepath.Glob("testdata/*.blk")
	if err != nil || len(list) == 0 {
		f.Fatalf("blocks %v, %v", list, err)
	}
	for _, path := range list {
		b, err := os.ReadFile(path)
		if err != nil {
			f.Fatal(err)
		}
		for i := range 8 {
			f.Add(b, i*len(b)/8, byte(1<<i))
		}
	}
	f.Fuzz(func(t *testing.T, b []byte, at int, flip byte) {
		if len(b) > 1<<16 {
			return
		}
		before, n, _, _ := r.mend(b)
		again, m, places, torn := r.mend(before)
		if n != m || places != 0 || torn != 0 || !bytes.Equal(before, again) {
			t.Fatalf("%d records, then %d with %d places, torn %d", n, m, places, torn)
		}
		if len(before) > 0 && flip != 0 {
			bad := bytes.Clone(before)
			bad[uint(at)%uint(len(bad))] ^= flip
			if _, left, _, _ := r.mend(bad); left < n-1 {
				t.Fatalf("%d of %d records are left after one byte was changed", left, n)
			}
		}
	})
}

// What the server notes beside the blocks can be damaged too: the records are there
// nevertheless.
func TestDamagedNotes(t *testing.T) {
	dir := t.TempDir()
	block(t, dir, 10, 3)
	var notes []string
	err := filepath.WalkDir(filepath.Join(dir, "jetstream"), func(path string, d os.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() && !strings.HasSuffix(path, ".blk") {
			notes = append(notes, strings.TrimPrefix(path, dir))
		}
		return err
	})
	if err != nil || len(notes) < 4 {
		t.Fatalf("%v, %v", notes, err)
	}
	for _, note := range notes {
		for _, damage := range []string{"flipped", "empty", "gone"} {
			t.Run(strings.ReplaceAll(note, "/", "_")+" "+damage, func(t *testing.T) {
				folder := t.TempDir()
				if err := os.CopyFS(folder, os.DirFS(dir)); err != nil {
					t.Fatal(err)
				}
				b, err := os.ReadFile(folder + note)
				if err != nil {
					t.Fatal(err)
				}
				switch damage {
				case "flipped":
					b[len(b)/2] ^= 16
					err = os.WriteFile(folder+note, b, 0o600)
				case "empty":
					err = os.WriteFile(folder+note, nil, 0o600)
				case "gone":
					err = os.Remove(folder + note)
				}
				if err != nil {
					t.Fatal(err)
				}
				o, said := openSaying(t, Config{Dir: folder})
				if n := waiting(t, o, "b"); n != 10 {
					t.Errorf("%d records wait, want 10", n)
				}
				r := receive(t, o, "b", nil)
				eventually(t, "nothing waits", func() bool { return waiting(t, o, "b") == 0 })
				if got := len(r.ids()); got != 10 {
					t.Errorf("%d records, want 10; said %s", got, said())
				}
			})
		}
	}
}
