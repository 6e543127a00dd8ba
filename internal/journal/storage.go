package journal

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"syscall"
)

// storage is a folder of files. Tests have one that crashes and fills up.
type storage interface {
	list() (names []string, err error)
	create(name string) (file, error) // must not exist
	open(name string) (file, error)
	remove(name string) error
	// sync makes sure that what was created or removed stays so.
	sync() error
}

type file interface {
	io.ReaderAt
	io.WriterAt
	Truncate(size int64) error
	Close() error
	size() (int64, error)
	sync() error
}

// folder is the real storage.
type folder string

func (d folder) list() ([]string, error) {
	entries, err := os.ReadDir(string(d))
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names, nil
}

func (d folder) create(name string) (file, error) {
	return openFile(filepath.Join(string(d), name), os.O_RDWR|os.O_CREATE|os.O_EXCL)
}

func (d folder) open(name string) (file, error) {
	return openFile(filepath.Join(string(d), name), os.O_RDONLY)
}

func (d folder) remove(name string) error { return os.Remove(filepath.Join(string(d), name)) }

func (d folder) sync() error {
	f, err := os.Open(string(d))
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Sync()
}

type diskFile struct{ *os.File }

func openFile(path string, flags int) (file, error) {
	f, err := os.OpenFile(path, flags, 0o600) // who calls whom is nobody else's business
	if err != nil {
		return nil, err
	}
	return diskFile{f}, nil
}

func (f diskFile) size() (int64, error) {
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	return info.Size(), nil
}

func (f diskFile) sync() error { return syncData(f.File) }

// lockName is the file whose lock says that a process has the folder. It holds the
// number of that process.
const lockName = "lock"

// lockFolder makes this process the only one that uses the folder, until unlock. The
// lock ends with the process, however that ends.
func lockFolder(path string) (unlock func() error, err error) {
	f, err := os.OpenFile(filepath.Join(path, lockName), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		defer f.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, inUse(path, f)
		}
		return nil, fmt.Errorf("lock %s: %w", f.Name(), err)
	}
	// The number is a help for people; the lock holds without it.
	if f.Truncate(0) == nil {
		fmt.Fprintf(f, "%d\n", os.Getpid())
	}
	return f.Close, nil
}

func inUse(path string, lock io.Reader) error {
	who := "another process"
	var pid int
	if n, _ := fmt.Fscanf(lock, "%d\n", &pid); n == 1 {
		who = fmt.Sprintf("process %d", pid)
	}
	return fmt.Errorf("%s has the journal in %s: %w (two of one kind on a host need a state_dir each)", who, path, ErrInUse)
}
