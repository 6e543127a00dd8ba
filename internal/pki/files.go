package pki

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// refuseExisting protects files that somebody may still need.
func refuseExisting(dir string, names []string, force bool) error {
	if force {
		return nil
	}
	var existing []string
	for _, name := range names {
		if _, err := os.Lstat(filepath.Join(dir, name)); err == nil {
			existing = append(existing, name)
		}
	}
	if len(existing) > 0 {
		return fmt.Errorf("%s: %w: %s; use another folder, or --force to replace them (every machine then needs the new files)",
			dir, fs.ErrExist, strings.Join(existing, ", "))
	}
	return nil
}

// writeFile replaces a file in one step, so that a reader sees the old or the
// new one and a crash leaves one of the two.
func writeFile(path string, data []byte, mode os.FileMode) (err error) {
	dir := filepath.Dir(path)
	file, err := os.CreateTemp(dir, "."+filepath.Base(path)+".*") // mode 0600
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	defer func() {
		if err != nil {
			os.Remove(file.Name())
			err = fmt.Errorf("write %s: %w", path, err)
		}
	}()
	_, err = file.Write(data)
	err = errors.Join(err, file.Chmod(mode), keepOwner(file, path, mode), file.Sync(), file.Close())
	if err != nil {
		return err
	}
	if err = os.Rename(file.Name(), path); err != nil {
		return err
	}
	return syncFolder(dir)
}

// syncFolder makes the rename last. File systems that cannot do it for a
// folder say so; the file itself is safe by then.
func syncFolder(dir string) error {
	folder, err := os.Open(dir)
	if err != nil {
		return err
	}
	folder.Sync()
	return folder.Close()
}

// newFolder builds a folder beside the place where it is to be and moves it
// there when it is complete.
func newFolder(dir string, build func(dir string) error) (err error) {
	dir = filepath.Clean(dir)
	parent := filepath.Dir(dir)
	if err := os.MkdirAll(parent, 0o755); err != nil {
		return err
	}
	building, err := os.MkdirTemp(parent, "."+filepath.Base(dir)+".*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			os.RemoveAll(building)
		}
	}()
	if err := build(building); err != nil {
		return err
	}
	if err := os.Chmod(building, 0o755); err != nil {
		return err
	}
	if err := os.Rename(building, dir); err != nil {
		return err
	}
	return syncFolder(parent)
}
