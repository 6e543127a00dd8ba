package doctor

import (
	"encoding/binary"
	"net"
	"os"
	"runtime"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"example.org/mediaproxy/test/internal/netlab"
)

const (
	tcProgram  = unix.BPF_PROG_TYPE_SCHED_CLS
	xdpProgram = unix.BPF_PROG_TYPE_XDP
	tcxPlace   = unix.BPF_TCX_INGRESS
	xdpPlace   = unix.BPF_XDP
)

// attach puts a program that lets every packet pass on a device, until the test ends.
func attach(t *testing.T, host *netlab.Host, device, name string, kind, place uint32) {
	t.Helper()
	verdict := int32(0) // TC_ACT_OK
	if kind == xdpProgram {
		verdict = 2 // XDP_PASS
	}
	// r0 = verdict; exit
	code := []byte{0xb7, 0, 0, 0, 0, 0, 0, 0, 0x95, 0, 0, 0, 0, 0, 0, 0}
	binary.NativeEndian.PutUint32(code[4:], uint32(verdict))
	licence := []byte("Apache-2.0\x00")
	var pin runtime.Pinner
	defer pin.Unpin()
	pin.Pin(&code[0])
	pin.Pin(&licence[0])
	// type, instructions, pointer to them, to the licence; the name is at 48.
	load := make([]byte, 128)
	binary.NativeEndian.PutUint32(load[0:], kind)
	binary.NativeEndian.PutUint32(load[4:], uint32(len(code)/8))
	binary.NativeEndian.PutUint64(load[8:], uint64(uintptr(unsafe.Pointer(&code[0]))))
	binary.NativeEndian.PutUint64(load[16:], uint64(uintptr(unsafe.Pointer(&licence[0]))))
	copy(load[48:63], name)
	program := bpf(t, unix.BPF_PROG_LOAD, load)
	defer unix.Close(program)
	err := host.Do(func() error {
		i, err := net.InterfaceByName(device)
		if err != nil {
			return err
		}
		link := make([]byte, 64) // program, device, place
		binary.NativeEndian.PutUint32(link[0:], uint32(program))
		binary.NativeEndian.PutUint32(link[4:], uint32(i.Index))
		binary.NativeEndian.PutUint32(link[8:], place)
		fd := bpf(t, unix.BPF_LINK_CREATE, link)
		t.Cleanup(func() { unix.Close(fd) }) // ends the link
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func bpf(t *testing.T, command int, attr []byte) int {
	t.Helper()
	fd, _, errno := unix.Syscall(unix.SYS_BPF, uintptr(command), uintptr(unsafe.Pointer(&attr[0])), uintptr(len(attr)))
	if errno != 0 {
		t.Fatalf("bpf(%d): %v", command, errno)
	}
	return int(fd)
}

// openTunnel holds a tunnel open, so that it has a link.
func openTunnel(host *netlab.Host, name string) (file *os.File, err error) {
	err = host.Do(func() error {
		file, err = os.OpenFile("/dev/net/tun", os.O_RDWR, 0)
		if err != nil {
			return err
		}
		request, err := unix.NewIfreq(name)
		if err != nil {
			return err
		}
		request.SetUint16(unix.IFF_TUN)
		return unix.IoctlIfreq(int(file.Fd()), unix.TUNSETIFF, request)
	})
	return file, err
}
