package state

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func command(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s (this test needs root and e2fsprogs): %v: %s", name, strings.Join(args, " "), err, out)
	}
	return strings.TrimSpace(string(out))
}

// smallDisk is a file system of its own, of so many bytes. grow gives it room.
func smallDisk(t *testing.T, size int) (dir string, grow func()) {
	t.Helper()
	dir = t.TempDir()
	command(t, "mount", "-t", "tmpfs", "-o", fmt.Sprint("size=", size), "tmpfs", dir)
	t.Cleanup(func() { command(t, "umount", "--lazy", dir) })
	return dir, func() { command(t, "mount", "-o", "remount,size=64m", dir) }
}

// fillDisk adds records until one is refused.
func fillDisk(t *testing.T, o *Outbox) (kept []string, refused error) {
	t.Helper()
	data := make([]byte, 4<<10)
	for n := range 1000 {
		id := fmt.Sprint("r", n)
		if err := o.Add(t.Context(), id, data, "a"); err != nil {
			return kept, err
		}
		kept = append(kept, id)
	}
	t.Fatal("the disk is not full after 1000 records")
	return nil, nil
}

// All that was kept is there, and new records are kept once there is room.
func TestDiskFull(t *testing.T) {
	for _, c := range []struct {
		name    string
		reserve int64
		want    error
	}{
		{"noticed before", 512 << 10, ErrNoRoom},
		{"noticed when the server could not write", 1, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir, grow := smallDisk(t, 2<<20)
			o := open(t, Config{Dir: filepath.Join(dir, "outbox"), Reserve: c.reserve})
			kept, err := fillDisk(t, o)
			if len(kept) < 50 || c.want != nil && !errors.Is(err, c.want) {
				t.Fatalf("%d kept, then %v", len(kept), err)
			}
			if err := o.Add(t.Context(), "more", make([]byte, 4<<10), "a"); err == nil {
				t.Error("kept on a full disk")
			}
			grow()
			eventually(t, "records are kept again", func() bool { return o.Add(t.Context(), "last", nil, "a") == nil })
			wantRecords(t, o, append(kept, "last"))
		})
	}
}

// wantRecords receives what waits for a, which has to be all of these.
func wantRecords(t *testing.T, o *Outbox, want []string) {
	t.Helper()
	r := receive(t, o, "a", nil)
	eventually(t, "nothing waits", func() bool { q, err := o.Queue(t.Context(), "a"); return err == nil && q.Waiting == 0 })
	got := slices.Compact(slices.Sorted(slices.Values(r.ids())))
	want = slices.Sorted(slices.Values(want))
	if !slices.Equal(got, want) {
		t.Errorf("%d records, want %d", len(got), len(want))
	}
}

// A disk becomes read-only when its file system meets an error. That is said, calls go on
// being refused, and what was kept is there after the repair.
func TestDiskReadOnly(t *testing.T) {
	image, dir := filepath.Join(t.TempDir(), "image"), t.TempDir()
	if err := os.WriteFile(image, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(image, 64<<20); err != nil {
		t.Fatal(err)
	}
	command(t, "mkfs.ext4", "-q", image)
	mount := func() string {
		command(t, "mount", "-o", "loop,errors=remount-ro", image, dir)
		return filepath.Base(command(t, "findmnt", "-n", "-o", "SOURCE", dir))
	}
	device := mount()
	t.Cleanup(func() { command(t, "umount", "--lazy", dir) })
	outbox := filepath.Join(dir, "outbox")
	t.Run("first process", func(t *testing.T) {
		o, said := openSaying(t, Config{Dir: outbox})
		add(t, o, "before", "a")
		if err := os.WriteFile("/sys/fs/ext4/"+device+"/trigger_fs_error", []byte("1"), 0); err != nil {
			t.Fatal(err)
		}
		if err := o.Add(t.Context(), "while", nil, "a"); err == nil {
			t.Error("kept on a disk that is read-only")
		}
		if !strings.Contains(said(), "read-only") {
			t.Errorf("said %s", said())
		}
		if err := o.Add(t.Context(), "while", nil, "a"); err == nil {
			t.Error("kept on a disk that is read-only")
		}
	})
	if _, err := Open(Config{Dir: outbox}, quiet); err == nil || !strings.Contains(err.Error(), outbox) {
		t.Errorf("opened on a disk that is read-only: %v", err)
	}
	command(t, "umount", dir)
	exec.Command("e2fsck", "-fy", image).Run() // its status says that there was something to mend
	mount()
	o := open(t, Config{Dir: outbox})
	add(t, o, "after", "a")
	wantRecords(t, o, []string{"before", "after"})
}
