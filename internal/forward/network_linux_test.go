package forward

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// A relay between two networks, made of namespaces: the test's own process is in
// that of the relay, the parties are in others.
//
//	caller up0 ─── left (relay) right ─── up0 callee
//	.2             .1            .1              .2

const ownNetwork = "FORWARD_TEST_NETWORK"

// enterOwnNetwork starts the test's program again in a network of its own, so that
// all its threads are there.
func enterOwnNetwork() {
	if os.Geteuid() != 0 {
		return // needsNetwork tells
	}
	if os.Getenv(ownNetwork) != "" {
		if out, err := exec.Command("ip", "link", "set", "lo", "up").CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "set up loopback: %v: %s", err, out)
			os.Exit(2)
		}
		return
	}
	runtime.LockOSThread()
	err := unix.Unshare(unix.CLONE_NEWNET)
	if err == nil {
		err = syscall.Exec("/proc/self/exe", os.Args, append(os.Environ(), ownNetwork+"=1"))
	}
	fmt.Fprintf(os.Stderr, "start in a network of its own: %v\n", err)
	os.Exit(2)
}

func needsNetwork(t testing.TB) {
	t.Helper()
	if os.Getenv(ownNetwork) == "" {
		t.Skip("needs root: network namespaces and kernel programs")
	}
}

// namespace is where a party is.
type namespace struct {
	t    testing.TB
	file *os.File
}

func newNamespace(t testing.TB) *namespace {
	t.Helper()
	n := &namespace{t: t}
	err := aside(func() (err error) {
		if err = unix.Unshare(unix.CLONE_NEWNET); err == nil {
			n.file, err = os.Open("/proc/thread-self/ns/net")
		}
		return err
	})
	if err != nil {
		t.Fatalf("make a namespace: %v", err)
	}
	t.Cleanup(func() { n.file.Close() })
	n.ip("link set lo up")
	return n
}

func (n *namespace) path() string { return fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), n.file.Fd()) }

// do calls f with the thread inside the namespace.
func (n *namespace) do(f func() error) {
	n.t.Helper()
	err := aside(func() error {
		if err := unix.Setns(int(n.file.Fd()), unix.CLONE_NEWNET); err != nil {
			return err
		}
		return f()
	})
	if err != nil {
		n.t.Fatal(err)
	}
}

// aside calls f, which may take the thread elsewhere, and brings the thread back.
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
		return fmt.Errorf("return to the network of the test: %w", back) // the thread stays locked
	}
	runtime.UnlockOSThread()
	return err
}

// ip runs lines of the ip program in the namespace.
func (n *namespace) ip(lines ...string) {
	n.t.Helper()
	n.do(func() error { return ipBatch(lines) })
}

// relayIP does the same where the relay is.
func relayIP(t testing.TB, lines ...string) {
	t.Helper()
	if err := ipBatch(lines); err != nil {
		t.Fatal(err)
	}
}

func ipBatch(lines []string) error {
	cmd := exec.Command("ip", "-batch", "-")
	cmd.Stdin = strings.NewReader(strings.Join(lines, "\n") + "\n")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("ip: %w: %s: %s", err, strings.Join(lines, "; "), out)
	}
	return nil
}

// phone opens a socket of a party.
func (n *namespace) phone(ip netip.Addr) *net.UDPConn {
	n.t.Helper()
	var c *net.UDPConn
	n.do(func() (err error) {
		c, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(ip, 0)))
		return err
	})
	n.t.Cleanup(func() { c.Close() })
	return c
}

func (n *namespace) setting(name, value string) {
	n.t.Helper()
	n.do(func() error { return os.WriteFile("/proc/sys/net/"+name, []byte(value), 0o644) })
}

// network is a relay's two sides.
type network struct {
	t              testing.TB
	caller, callee *namespace
}

// addresses of one family
type addresses struct{ caller, left, right, callee netip.Addr }

var (
	addresses4 = addresses{addr("10.1.0.2"), addr("10.1.0.1"), addr("10.2.0.1"), addr("10.2.0.2")}
	addresses6 = addresses{addr("fd01::2"), addr("fd01::1"), addr("fd02::1"), addr("fd02::2")}
	families   = map[string]addresses{"IPv4": addresses4, "IPv6": addresses6}
)

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }

func newNetwork(t testing.TB) *network {
	t.Helper()
	needsNetwork(t)
	n := &network{t: t, caller: newNamespace(t), callee: newNamespace(t)}
	n.cable("left", n.caller, "up0")
	n.cable("right", n.callee, "up0")
	n.address("left", "right")
	n.caller.ip("addr add 10.1.0.2/24 dev up0", "addr add fd01::2/64 dev up0 nodad")
	n.callee.ip("addr add 10.2.0.2/24 dev up0", "addr add fd02::2/64 dev up0 nodad")
	return n
}

// cable links a device of the relay with one of a party.
func (n *network) cable(device string, party *namespace, far string) {
	n.t.Helper()
	relayIP(n.t, fmt.Sprintf("link add %s type veth peer name %s netns %s", device, far, party.path()), "link set "+device+" up")
	for _, version := range []string{"ipv4", "ipv6"} { // seconds until a next hop that is in use is asked whether it is there
		os.WriteFile("/proc/sys/net/"+version+"/neigh/"+device+"/delay_first_probe_time", []byte("0"), 0o644)
	}
	party.ip("link set " + far + " up")
	n.t.Cleanup(func() { _ = ipBatch([]string{"link del " + device}) }) // a test may have deleted it
}

// address gives the relay its addresses on devices.
func (n *network) address(devices ...string) {
	n.t.Helper()
	for _, d := range devices {
		net := map[string]string{"left": "1", "right": "2"}[d]
		relayIP(n.t, "addr add 10."+net+".0.1/24 dev "+d, "addr add fd0"+net+"::1/64 dev "+d+" nodad")
	}
}

// locals are the relay's addresses.
func locals() []netip.Addr {
	return []netip.Addr{addresses4.left, addresses4.right, addresses6.left, addresses6.right}
}

// offload says whether a device leaves checksums to hardware, as veth by default
// does: then they are not complete in the bytes that the program sees.
func offload(device string, on bool) error {
	type value struct{ command, data uint32 }
	type request struct {
		name [unix.IFNAMSIZ]byte
		data unsafe.Pointer
		_    [16]byte
	}
	const setTxChecksum = 0x17
	v := value{command: setTxChecksum}
	if on {
		v.data = 1
	}
	var r request
	copy(r.name[:], device)
	r.data = unsafe.Pointer(&v)
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCETHTOOL, uintptr(unsafe.Pointer(&r))); errno != 0 {
		return fmt.Errorf("set checksum offload of %s: %w", device, errno)
	}
	return nil
}

// pinnedMemory maps a map that a relay pinned.
func pinnedMemory(t testing.TB, folder, name string) []byte {
	t.Helper()
	m, err := ebpf.LoadPinnedMap(filepath.Join(folder, abiFolder, name), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	b, err := mapValues(m)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Munmap(b[:cap(b)]) })
	return b
}
