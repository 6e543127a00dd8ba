package fallback

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

// As the first argument these make the test's binary run another program: without the
// bpf system call, or with those calls only whose numbers follow.
const (
	forbidBPF = "forbid-bpf"
	onlyCalls = "only-calls"
)

func TestMain(m *testing.M) {
	if len(os.Args) > 3 {
		switch os.Args[1] {
		case forbidBPF:
			fail(filtered(withoutBPF(), os.Args[2:]))
		case onlyCalls:
			fail(filtered(only(strings.Split(os.Args[2], ",")), os.Args[3:]))
		}
	}
	flag.Parse()
	flag.Set("test.parallel", "5") // calls take their time, not the processor's
	goleak.VerifyTestMain(m)
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

// rule says what becomes of one system call.
func rule(call, verdict uint32) []unix.SockFilter {
	return []unix.SockFilter{
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: call, Jf: 1},
		{Code: unix.BPF_RET | unix.BPF_K, K: verdict},
	}
}

var (
	callNumber = unix.SockFilter{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS} // of struct seccomp_data
	allow      = unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW}
	kill       = unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_KILL_PROCESS}
)

// withoutBPF lets bpf(2) fail as in a container whose seccomp profile does not allow it.
func withoutBPF() []unix.SockFilter {
	return append(append([]unix.SockFilter{callNumber}, rule(unix.SYS_BPF, unix.SECCOMP_RET_ERRNO|uint32(unix.EPERM))...), allow)
}

// only allows some calls; another one ends the process, as under systemd.
func only(numbers []string) []unix.SockFilter {
	filter := []unix.SockFilter{callNumber}
	for _, text := range numbers {
		n, err := strconv.ParseUint(text, 10, 32)
		if err != nil {
			fail(err)
		}
		filter = append(filter, rule(uint32(n), unix.SECCOMP_RET_ALLOW)...)
	}
	return append(filter, kill)
}

// filtered turns this process into another program under a filter.
func filtered(filter []unix.SockFilter, args []string) error {
	runtime.LockOSThread()
	program := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("do without new privileges: %w", err)
	}
	if err := unix.Prctl(unix.PR_SET_SECCOMP, unix.SECCOMP_MODE_FILTER, uintptr(unsafe.Pointer(&program)), 0, 0); err != nil {
		return fmt.Errorf("set the filter: %w", err)
	}
	path, err := exec.LookPath(args[0])
	if err != nil {
		return err
	}
	return syscall.Exec(path, args, os.Environ())
}
