package fallback

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"testing"
	"unsafe"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

// forbidBPF as the first argument makes the test's binary run another program without
// the bpf system call.
const forbidBPF = "forbid-bpf"

func TestMain(m *testing.M) {
	if len(os.Args) > 2 && os.Args[1] == forbidBPF {
		fmt.Fprintln(os.Stderr, withoutBPF(os.Args[2:]))
		os.Exit(1)
	}
	flag.Parse()
	flag.Set("test.parallel", "5") // calls take their time, not the processor's
	goleak.VerifyTestMain(m)
}

// withoutBPF turns this process into a program for which bpf(2) fails as in a container
// whose seccomp profile does not allow it.
func withoutBPF(args []string) error {
	runtime.LockOSThread()
	filter := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS}, // the number of the call
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: unix.SYS_BPF, Jf: 1},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM)},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW},
	}
	program := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	if err := unix.Prctl(unix.PR_SET_SECCOMP, unix.SECCOMP_MODE_FILTER, uintptr(unsafe.Pointer(&program)), 0, 0); err != nil {
		return fmt.Errorf("set the filter: %w", err)
	}
	path, err := exec.LookPath(args[0])
	if err != nil {
		return err
	}
	return syscall.Exec(path, args, os.Environ())
}
