//go:build unix

package pki

import (
	"os"
	"syscall"
)

// keepOwner gives a file the owner, and the group with its rights, of the one
// it replaces: a daemon that could read its key must be able to read the next
// one. Without the right to give files away it leaves things as they are.
func keepOwner(file *os.File, path string, mode os.FileMode) error {
	old, err := os.Stat(path)
	if err != nil {
		return nil // nothing to replace
	}
	stat, ok := old.Sys().(*syscall.Stat_t)
	if !ok || file.Chown(int(stat.Uid), int(stat.Gid)) != nil {
		return nil
	}
	return file.Chmod(mode | old.Mode().Perm()&0o070)
}
