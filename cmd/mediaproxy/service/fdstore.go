package service

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"syscall"

	"github.com/coreos/go-systemd/v22/activation"
)

// Inherited takes over the descriptors that the process before this one left with
// systemd, by name. They are the caller's to close. It is to be called once, before
// programs are started.
func Inherited() map[string]int {
	fds := map[string]int{}
	for _, f := range activation.Files(true) {
		if fd, err := syscall.Dup(int(f.Fd())); err == nil { // the file closes its own when it is collected
			syscall.CloseOnExec(fd)
			fds[f.Name()] = fd
		}
		f.Close()
	}
	return fds
}

// Keep leaves a descriptor with systemd, which hands it to the next process of this
// service under the same name. It replaces an earlier one of that name. Without
// systemd it does nothing.
func Keep(name string, fd int) error {
	if err := tell("FDSTOREREMOVE=1\nFDNAME="+name, -1); err != nil {
		return err
	}
	return tell("FDSTORE=1\nFDPOLL=0\nFDNAME="+name, fd)
}

// Release has systemd forget a descriptor.
func Release(name string) error { return tell("FDSTOREREMOVE=1\nFDNAME="+name, -1) }

// tell sends one message to the notification socket, with a descriptor unless that is
// negative.
func tell(state string, fd int) error {
	path := os.Getenv("NOTIFY_SOCKET")
	if path == "" {
		return nil
	}
	if abstract, ok := strings.CutPrefix(path, "@"); ok {
		path = "\x00" + abstract
	}
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		return fmt.Errorf("notify systemd: %w", err)
	}
	defer conn.Close()
	var rights []byte
	if fd >= 0 {
		rights = syscall.UnixRights(fd)
	}
	// Package net sends no descriptors through a connected socket.
	raw, err := conn.SyscallConn()
	if err != nil {
		return fmt.Errorf("notify systemd: %w", err)
	}
	var sent error
	if err := raw.Control(func(s uintptr) { sent = syscall.Sendmsg(int(s), []byte(state), rights, nil, 0) }); err != nil || sent != nil {
		return fmt.Errorf("notify systemd: %w", errors.Join(err, sent))
	}
	return nil
}
