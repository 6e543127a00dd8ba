package netlab

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Host is a namespace.
type Host struct {
	t    testing.TB
	name string
	ns   *os.File
}

// Name is the one it was made with.
func (h *Host) Name() string { return h.name }

// path is how other programs name the namespace.
func (h *Host) path() string { return fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), h.ns.Fd()) }

// Do calls f with the thread inside the namespace. Sockets that f opens and programs
// that it starts stay there; goroutines that it starts do not.
func (h *Host) Do(f func() error) error {
	if err := Within(h.ns, f); err != nil {
		return fmt.Errorf("%s: %w", h.name, err)
	}
	return nil
}

// Within calls f with the thread inside a namespace, see Host.Do.
func Within(ns *os.File, f func() error) error {
	return aside(func() error {
		if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("enter a network namespace: %w", err)
		}
		return f()
	})
}

// aside calls f, which may take the thread to another namespace, and brings the thread
// back. Threads must go on living: programs end with the one that started them.
func aside(f func() error) error {
	runtime.LockOSThread()
	home, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		runtime.UnlockOSThread()
		return err
	}
	defer home.Close()
	err = f()
	if back := unix.Setns(int(home.Fd()), unix.CLONE_NEWNET); back != nil {
		// The thread stays locked, so that nothing else runs in the wrong place.
		return fmt.Errorf("return to the namespace of the test: %w", back)
	}
	runtime.UnlockOSThread()
	return err
}

// ListenUDP opens a socket on the host.
func (h *Host) ListenUDP(a netip.AddrPort) (conn *net.UDPConn, err error) {
	err = h.Do(func() (err error) {
		conn, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(a))
		return err
	})
	return conn, err
}

// Start starts a program on the host and ends it with the test: first with TERM,
// after 5 s with KILL. If the test itself is killed, so is the program.
func (h *Host) Start(cmd *exec.Cmd) {
	h.t.Helper()
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Setpgid = true
	cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
	if err := h.Do(cmd.Start); err != nil {
		h.t.Fatalf("start %s on %s: %v", cmd.Path, h.name, err)
	}
	h.t.Cleanup(func() {
		ended := make(chan error, 1)
		go func() { ended <- cmd.Wait() }()
		syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM)
		select {
		case <-ended:
		case <-time.After(5 * time.Second):
			h.t.Errorf("%s on %s does not end; killed", cmd.Path, h.name)
			syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
			<-ended
		}
	})
}

// Output runs a program on the host and returns what it printed.
func (h *Host) Output(stdin string, name string, args ...string) string {
	h.t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Stdin = strings.NewReader(stdin)
	var out []byte
	err := h.Do(func() (err error) { out, err = cmd.CombinedOutput(); return err })
	if err != nil {
		h.t.Fatalf("%s %s on %s: %v: %s%s", name, strings.Join(args, " "), h.name, err, stdin, out)
	}
	return string(out)
}

// IP runs lines of the ip program.
func (h *Host) IP(lines ...string) {
	h.t.Helper()
	h.Output(strings.Join(lines, "\n")+"\n", "ip", "-batch", "-")
}

// NFT loads nftables rules.
func (h *Host) NFT(rules string) {
	h.t.Helper()
	h.Output(rules, "nft", "-f", "-")
}

// forward makes the host a router.
func (h *Host) forward() {
	h.t.Helper()
	err := h.Do(func() error { return os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0o644) })
	if err != nil {
		h.t.Fatalf("let %s forward packets: %v", h.name, err)
	}
}
