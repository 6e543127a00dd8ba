package forward

import (
	"fmt"
	"net/netip"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// fileHeader begins a memory file: what lies in it, then the records and sides.
type fileHeader struct {
	version uint32
	used    uint32
	locals  [maxLocals]local
}

const fileHeaderSize = 4096

// fileMemory maps records from a file, so that the counters of one process are
// there for the next. A file of another layout is begun anew.
func fileMemory(path string, locals []netip.Addr) (*memory, error) {
	if len(locals) > maxLocals {
		return nil, fmt.Errorf("%d relay addresses, counters have room for %d", len(locals), maxLocals)
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		return nil, fmt.Errorf("another relay uses %s (give each its own --runtime-dir): %w", path, err)
	}
	records, sides := memorySize(len(locals))
	if err := f.Truncate(int64(fileHeaderSize + records + sides)); err != nil {
		f.Close()
		return nil, fmt.Errorf("make %s as large as it has to be: %w", path, err)
	}
	b, err := unix.Mmap(int(f.Fd()), 0, fileHeaderSize+records+sides, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("map %s: %w", path, err)
	}
	want := fileHeader{version: tableVersion, used: uint32(len(locals))}
	for i, a := range locals {
		want.locals[i] = local{addr: rawAddr(a), family: uint32(familyOf(a))}
	}
	if h := (*fileHeader)(unsafe.Pointer(&b[0])); *h != want {
		clear(b)
		*h = want
	}
	m, err := newMemory(locals, b[fileHeaderSize:fileHeaderSize+records], b[fileHeaderSize+records:])
	if err != nil {
		unix.Munmap(b)
		f.Close()
		return nil, err
	}
	m.unmap = func() {
		unix.Munmap(b)
		f.Close() // and with it the lock
	}
	return m, nil
}
