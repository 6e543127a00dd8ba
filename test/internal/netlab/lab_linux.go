package netlab

import (
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// Needs skips a test where namespaces cannot be made. The gate does not allow these
// skips.
func Needs(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: network namespaces and NAT")
	}
	for _, name := range []string{"ip", "nft"} {
		if _, err := exec.LookPath(name); err != nil {
			t.Skipf("needs %s: test/setup/install.sh installs it", name)
		}
	}
}

// Lab is one internet. Its methods are for the test's own goroutine.
type Lab struct {
	t   testing.TB
	hub *Host
}

// hubAddr is the gateway of every host. It is not part of any host's network.
const hubAddr = "169.254.1.1"

// New makes the hub. Everything ends with the test.
func New(t testing.TB) *Lab {
	t.Helper()
	l := &Lab{t: t}
	l.hub = l.Namespace("hub")
	l.hub.forward()
	return l
}

// Host makes a host with these addresses, reachable from all other hosts.
func (l *Lab) Host(name string, addrs ...netip.Addr) *Host {
	l.t.Helper()
	h := l.Namespace(name)
	l.attach(h, addrs)
	return h
}

// attach links a host to the hub, under the name up0.
func (l *Lab) attach(h *Host, addrs []netip.Addr) {
	l.t.Helper()
	dev := "to-" + h.name
	l.Join(l.hub, dev, h, "up0")
	l.hub.IP("addr add " + hubAddr + "/32 dev " + dev)
	for _, a := range addrs {
		h.IP(fmt.Sprintf("addr add %s/32 dev up0", a))
		l.hub.IP(fmt.Sprintf("route add %s/32 dev %s", a, dev))
	}
	h.IP("route add "+hubAddr+"/32 dev up0", "route add default via "+hubAddr+" dev up0 onlink")
}

// NAT makes a router with a public address whose inside is lan. What leaves it has
// that address and a port that says nothing about the one inside; what comes in
// passes only as the answer to something that left. The first address of lan is
// the router's.
func (l *Lab) NAT(name string, public netip.Addr, lan netip.Prefix, inside ...netip.Addr) (router, host *Host) {
	l.t.Helper()
	router = l.Host(name, public)
	router.forward()
	router.NFT(`table ip nat {
		chain out { type nat hook postrouting priority srcnat; oifname "up0" masquerade fully-random; }
	}
	table ip guard {
		chain in { type filter hook forward priority filter; policy accept; iifname "up0" ct state new drop; }
	}`)
	host = l.Namespace(name + "-in")
	l.Behind(router, lan, host, inside...)
	return router, host
}

// Behind links a host directly to a router, over a network of their own.
func (l *Lab) Behind(router *Host, lan netip.Prefix, host *Host, inside ...netip.Addr) {
	l.t.Helper()
	gateway := lan.Masked().Addr().Next()
	l.Join(router, "lan0", host, "up0")
	router.IP(fmt.Sprintf("addr add %s/%d dev lan0", gateway, lan.Bits()))
	for _, a := range inside {
		host.IP(fmt.Sprintf("addr add %s/%d dev up0", a, lan.Bits()))
	}
	host.IP("route add default via " + gateway.String())
}

// Join links two hosts with a cable.
func (l *Lab) Join(a *Host, devA string, b *Host, devB string) {
	l.t.Helper()
	run(l.t, "ip", "link", "add", devA, "netns", a.path(), "type", "veth", "peer", "name", devB, "netns", b.path())
	a.IP("link set " + devA + " up")
	b.IP("link set " + devB + " up")
}

// Namespace makes a host without links, except to itself.
func (l *Lab) Namespace(name string) *Host {
	l.t.Helper()
	file, err := NewNamespace()
	if err != nil {
		l.t.Fatalf("make a namespace for %s: %v", name, err)
	}
	h := &Host{t: l.t, name: name, ns: file}
	l.t.Cleanup(func() { file.Close() })
	h.IP("link set lo up")
	return h
}

// NewNamespace makes a network namespace that lives as long as its descriptor is open,
// for programs that are no tests.
func NewNamespace() (file *os.File, err error) {
	err = aside(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return err
		}
		file, err = os.Open("/proc/thread-self/ns/net")
		return err
	})
	return file, err
}

func run(t testing.TB, name string, args ...string) {
	t.Helper()
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s %s: %v: %s", name, strings.Join(args, " "), err, out)
	}
}
