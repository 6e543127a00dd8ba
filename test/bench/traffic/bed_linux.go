package traffic

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"

	"example.org/mediaproxy/test/internal/netlab"
)

// Addresses of a bed. Phones may have any of 198.18.0.0/15.
var (
	RelayAddr = netip.MustParseAddr("198.51.100.1")
	gateway   = netip.MustParseAddr("198.51.100.2")
)

// Bed is a relay's host, whose only device leads to phones. Beds know nothing of
// each other, so several may exist at once.
type Bed struct {
	phones, relay *os.File // namespaces
	device        string
	programs
}

var beds atomic.Int32

// phonesDevice is the phones' end of the cable.
const phonesDevice = "phones0"

// NewBed makes the namespaces and the cable, and takes away from now on what is
// sent to phones.
func NewBed() (_ *Bed, err error) {
	b := &Bed{device: fmt.Sprintf("rl%d.%d", os.Getpid(), beds.Add(1))}
	defer func() {
		if err != nil {
			b.Close()
		}
	}()
	if b.phones, err = netlab.NewNamespace(); err != nil {
		return nil, fmt.Errorf("make the phones' namespace (needs root): %w", err)
	}
	if b.relay, err = netlab.NewNamespace(); err != nil {
		return nil, fmt.Errorf("make the relay's namespace: %w", err)
	}
	if err := b.cable(); err != nil {
		return nil, err
	}
	near, far, err := b.devices()
	if err != nil {
		return nil, err
	}
	if err := b.In(func() error { return b.load(near, far) }); err != nil {
		return nil, err
	}
	return b, nil
}

// cable links the namespaces. The relay's end has GRO, without which frames that a
// program redirects would be dropped, and no IPv6, so that nothing else is sent.
func (b *Bed) cable() error {
	path := func(ns *os.File) string { return fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), ns.Fd()) }
	err := run("", "ip", "link", "add", b.device, "netns", path(b.relay), "type", "veth", "peer", "name", phonesDevice, "netns", path(b.phones))
	if err != nil {
		return err
	}
	err = netlab.Within(b.phones, func() error { return run("link set lo up\nlink set "+phonesDevice+" up\n", "ip", "-batch", "-") })
	if err != nil {
		return err
	}
	return b.In(func() error {
		for name, value := range map[string]string{"ipv6/conf/all/disable_ipv6": "1", "ipv4/conf/all/rp_filter": "0", "ipv4/conf/all/send_redirects": "0",
			"ipv4/conf/default/rp_filter": "0", "ipv4/conf/default/send_redirects": "0", "ipv4/conf/" + b.device + "/send_redirects": "0"} {
			if err := Sysctl(name, value); err != nil {
				return err
			}
		}
		err := run(fmt.Sprintf("link set lo up\nlink set %[1]s up\naddr add %[2]s/30 dev %[1]s\n"+
			"neigh replace %[3]s lladdr 02:00:00:00:00:02 dev %[1]s nud permanent\nroute add default via %[3]s\n", b.device, RelayAddr, gateway), "ip", "-batch", "-")
		if err != nil {
			return err
		}
		// Not before the device is up: it would not tell the other end.
		if err := run("", "ethtool", "-K", b.device, "gro", "on"); err != nil {
			return fmt.Errorf("%w (test/setup/install.sh bench installs it)", err)
		}
		return nil
	})
}

// devices are the phones' and the relay's end of the cable.
func (b *Bed) devices() (near, far *net.Interface, err error) {
	err = errors.Join(
		netlab.Within(b.phones, func() (err error) { near, err = net.InterfaceByName(phonesDevice); return err }),
		b.In(func() (err error) { far, err = net.InterfaceByName(b.device); return err }))
	return near, far, err
}

// In calls f inside the relay's namespace.
func (b *Bed) In(f func() error) error { return netlab.Within(b.relay, f) }

// Close ends the bed. Programs in it have to be ended before.
func (b *Bed) Close() {
	b.programs.close()
	if b.relay != nil {
		b.relay.Close()
	}
	if b.phones != nil {
		b.phones.Close()
	}
}

// Sysctl writes a setting of the network of the calling thread.
func Sysctl(name, value string) error {
	if err := os.WriteFile("/proc/sys/net/"+name, []byte(value), 0o644); err != nil {
		return fmt.Errorf("set %s: %w", name, err)
	}
	return nil
}

func run(stdin, name string, args ...string) error {
	cmd := exec.Command(name, args...)
	cmd.Stdin = strings.NewReader(stdin)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s %s: %w: %s%s", name, strings.Join(args, " "), err, stdin, bytes.TrimSpace(out))
	}
	return nil
}
