package service

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"
)

// PIDFile holds the number of this process, and a lock for as long as it runs, so that
// a file left by a crash is told from one of a living program.
type PIDFile struct {
	path string
	file *os.File
}

// WritePID makes the file, or says that the program runs already.
func WritePID(path string) (*PIDFile, error) {
	for {
		f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|syscall.O_NOFOLLOW, 0o644)
		if err != nil {
			return nil, fmt.Errorf("write PID file: %w", err)
		}
		if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
			defer f.Close()
			if !errors.Is(err, syscall.EWOULDBLOCK) {
				return nil, fmt.Errorf("lock PID file %s: %w", path, err)
			}
			owner, _ := io.ReadAll(io.LimitReader(f, 20))
			return nil, fmt.Errorf("it is running already as process %s, says %s; stop that one first, or give this one a --runtime-dir of its own",
				strings.TrimSpace(string(owner)), path)
		}
		if !same(f, path) { // removed between open and lock
			f.Close()
			continue
		}
		err = f.Truncate(0)
		if err == nil {
			_, err = fmt.Fprintf(f, "%d\n", os.Getpid())
		}
		if err != nil {
			f.Close()
			return nil, fmt.Errorf("write PID file: %w", err)
		}
		return &PIDFile{path, f}, nil
	}
}

func same(f *os.File, path string) bool {
	opened, err1 := f.Stat()
	there, err2 := os.Lstat(path)
	return err1 == nil && err2 == nil && os.SameFile(opened, there)
}

// Remove takes the file away.
func (p *PIDFile) Remove() error {
	return errors.Join(os.Remove(p.path), p.file.Close()) // in this order, or another's file could go
}
