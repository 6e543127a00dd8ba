package dispatcher

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// socketMode lets the owner and the group of the SIP proxy in, nobody else:
// whoever can write here can create, steer and end calls.
const socketMode = 0o660

// listenUnix opens a UNIX stream socket. A file left by a dispatcher that is
// gone is removed; one that somebody answers on is not.
func listenUnix(path string, gid int, group bool) (*net.UnixListener, error) {
	if err := removeStale(path); err != nil {
		return nil, err
	}
	// Bind in a folder of our own, so that the socket never exists with a mode
	// wider than it is meant to have.
	folder, err := os.MkdirTemp(filepath.Dir(path), ".socket-")
	if err != nil {
		return nil, fmt.Errorf("make a folder for socket %s: %w", path, err)
	}
	defer os.RemoveAll(folder)
	private := filepath.Join(folder, "s")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: private, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("listen on socket %s: %w", path, err)
	}
	l.SetUnlinkOnClose(false)
	if err := publish(private, path, gid, group); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

func publish(private, path string, gid int, group bool) error {
	if group {
		if err := os.Chown(private, -1, gid); err != nil {
			return fmt.Errorf("give socket %s to group %d (is this user a member?): %w", path, gid, err)
		}
	}
	if err := os.Chmod(private, socketMode); err != nil {
		return fmt.Errorf("restrict socket %s: %w", path, err)
	}
	if err := os.Rename(private, path); err != nil {
		return fmt.Errorf("put socket %s in its place: %w", path, err)
	}
	return nil
}

func removeStale(path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("look at socket %s: %w", path, err)
	}
	if info.Mode()&fs.ModeSocket == 0 {
		return fmt.Errorf("%s exists and is no socket: move it away", path)
	}
	conn, err := net.DialTimeout("unix", path, time.Second)
	if err == nil {
		conn.Close()
		return fmt.Errorf("socket %s is in use: another dispatcher is running", path)
	}
	if !errors.Is(err, syscall.ECONNREFUSED) {
		return fmt.Errorf("find out whether socket %s is in use: %w", path, err)
	}
	if err := os.Remove(path); err != nil {
		return fmt.Errorf("remove the stale socket %s: %w", path, err)
	}
	return nil
}

// removeSocket takes away the file of a socket we listened on, unless another
// has taken its place.
func removeSocket(path string, ours fs.FileInfo) {
	if now, err := os.Lstat(path); err == nil && os.SameFile(now, ours) {
		os.Remove(path)
	}
}
