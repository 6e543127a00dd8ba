package journal

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"slices"
	"sync"
)

var (
	errFull    = errors.New("no space left on device")
	errCrashed = errors.New("crashed")
)

// fakeDisk is a storage in memory that knows what would be left after a crash.
type fakeDisk struct {
	mu     sync.Mutex
	files  map[string]*fakeFile // as programs see them
	synced map[string]*fakeFile // whose names are sure to outlive the machine
	space  int64                // bytes that may still be written; negative: any number
	budget int                  // writes that may still happen, each byte counts; negative: any number
	broken bool                 // syncs fail
}

type fakeFile struct {
	disk *fakeDisk
	data []byte
	safe []byte // as of the last sync
}

func newFakeDisk() *fakeDisk {
	return &fakeDisk{files: map[string]*fakeFile{}, synced: map[string]*fakeFile{}, space: -1, budget: -1}
}

func (d *fakeDisk) set(change func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	change()
}

// spend takes n of the crash budget; fewer are left when the crash comes first.
func (d *fakeDisk) spend(n int) (int, error) {
	if d.budget < 0 {
		return n, nil
	}
	if n > d.budget {
		n, d.budget = d.budget, 0
		return n, errCrashed
	}
	d.budget -= n
	return n, nil
}

func (d *fakeDisk) list() ([]string, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Collect(maps.Keys(d.files)), nil
}

func (d *fakeDisk) create(name string) (file, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if _, err := d.spend(1); err != nil {
		return nil, err
	}
	if d.files[name] != nil {
		return nil, fs.ErrExist
	}
	d.files[name] = &fakeFile{disk: d}
	return d.files[name], nil
}

func (d *fakeDisk) open(name string) (file, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if f := d.files[name]; f != nil {
		return f, nil
	}
	return nil, fs.ErrNotExist
}

func (d *fakeDisk) remove(name string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if _, err := d.spend(1); err != nil {
		return err
	}
	if f := d.files[name]; f != nil && d.space >= 0 {
		d.space += int64(len(f.data))
	}
	delete(d.files, name)
	return nil
}

func (d *fakeDisk) sync() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if _, err := d.spend(1); err != nil {
		return err
	}
	if d.broken {
		return errors.New("input/output error")
	}
	d.synced = maps.Clone(d.files)
	return nil
}

// afterKill is the disk as the next process finds it.
func (d *fakeDisk) afterKill() *fakeDisk {
	d.mu.Lock()
	defer d.mu.Unlock()
	next := newFakeDisk()
	for name, f := range d.files {
		next.files[name] = &fakeFile{disk: next, data: slices.Clone(f.data), safe: slices.Clone(f.safe)}
	}
	return next
}

// afterPower is the disk after the machine crashed. Of what was not synced, choose says
// how many bytes of a file were written after all; names are those of the last sync, or of
// now.
func (d *fakeDisk) afterPower(choose func(most int) int) *fakeDisk {
	d.mu.Lock()
	defer d.mu.Unlock()
	names := d.files
	if choose(1) == 1 {
		names = d.synced
	}
	next := newFakeDisk()
	for _, name := range slices.Sorted(maps.Keys(names)) {
		f := names[name]
		data := slices.Clone(f.data)
		if !slices.Equal(f.data, f.safe) {
			data = data[:len(f.safe)+choose(len(f.data)-len(f.safe))]
		}
		next.files[name] = &fakeFile{disk: next, data: data, safe: data}
	}
	next.synced = maps.Clone(next.files)
	return next
}

func (f *fakeFile) ReadAt(p []byte, off int64) (int, error) {
	f.disk.mu.Lock()
	defer f.disk.mu.Unlock()
	if off > int64(len(f.data)) {
		return 0, io.EOF
	}
	n := copy(p, f.data[off:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (f *fakeFile) WriteAt(p []byte, off int64) (int, error) {
	d := f.disk
	d.mu.Lock()
	defer d.mu.Unlock()
	n, err := d.spend(len(p))
	if d.space >= 0 && int64(n) > d.space {
		n, err = int(d.space), errFull
	}
	if d.space >= 0 {
		d.space -= int64(n)
	}
	if off > int64(len(f.data)) {
		return 0, fmt.Errorf("write at %d of a file of %d", off, len(f.data))
	}
	f.data = append(f.data[:off:off], append(slices.Clone(p[:n]), f.data[min(int64(len(f.data)), off+int64(n)):]...)...)
	return n, err
}

func (f *fakeFile) Truncate(size int64) error {
	f.disk.mu.Lock()
	defer f.disk.mu.Unlock()
	if _, err := f.disk.spend(1); err != nil {
		return err
	}
	f.data = f.data[:size]
	return nil
}

func (f *fakeFile) Close() error { return nil }

func (f *fakeFile) size() (int64, error) {
	f.disk.mu.Lock()
	defer f.disk.mu.Unlock()
	return int64(len(f.data)), nil
}

func (f *fakeFile) sync() error {
	f.disk.mu.Lock()
	defer f.disk.mu.Unlock()
	if _, err := f.disk.spend(1); err != nil {
		return err
	}
	if f.disk.broken {
		return errors.New("input/output error")
	}
	f.safe = slices.Clone(f.data)
	return nil
}
