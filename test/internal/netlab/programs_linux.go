package netlab

import (
	"fmt"
	"net"
	"os"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Numbers of the bpf system call (linux/bpf.h) that x/sys lacks.
const (
	bpfSkLookup   = 36
	bpfTCXIngress = 46
)

// Programs are the BPF programs that run on a host.
type Programs struct {
	TCX      int // at the ingress of a device
	Filters  int // the same in the older way, by clsact
	SkLookup int // in the search for a socket
}

// Programs counts what is attached to a device of the host, and to the host.
func (h *Host) Programs(device string) (p Programs) {
	h.t.Helper()
	p.Filters = strings.Count(h.Output("", "tc", "filter", "show", "dev", device, "ingress"), " handle ")
	err := h.Do(func() error {
		dev, err := net.InterfaceByName(device)
		if err != nil {
			return err
		}
		if p.TCX, err = attached(dev.Index, bpfTCXIngress); err != nil {
			return fmt.Errorf("programs of %s: %w", device, err)
		}
		ns, err := os.Open("/proc/thread-self/ns/net")
		if err != nil {
			return err
		}
		defer ns.Close()
		if p.SkLookup, err = attached(int(ns.Fd()), bpfSkLookup); err != nil {
			return fmt.Errorf("programs of the namespace: %w", err)
		}
		return nil
	})
	if err != nil {
		h.t.Fatalf("look at %s: %v", h.name, err)
	}
	return p
}

// attached asks the kernel how many programs of a kind a device or namespace has.
func attached(target int, kind uint32) (int, error) {
	query := struct { // of union bpf_attr
		target, kind, flags, attachFlags uint32
		ids                              uint64
		count, _                         uint32
		more                             [3]uint64
	}{target: uint32(target), kind: kind}
	_, _, errno := unix.Syscall(unix.SYS_BPF, unix.BPF_PROG_QUERY, uintptr(unsafe.Pointer(&query)), unsafe.Sizeof(query))
	if errno != 0 && errno != unix.ENOENT {
		return 0, errno
	}
	return int(query.count), nil
}
