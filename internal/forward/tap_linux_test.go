package forward

import (
	"encoding/binary"
	"net"
	"net/netip"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// tap is a device whose frames come from the test, in the shapes that network cards
// give them.
type tap struct {
	t    testing.TB
	file *os.File
	mac  net.HardwareAddr
}

func newTap(t testing.TB, name string) *tap {
	t.Helper()
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		t.Fatalf("open the device for taps: %v", err)
	}
	request, err := unix.NewIfreq(name)
	if err != nil {
		t.Fatal(err)
	}
	request.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI | unix.IFF_VNET_HDR)
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, request); err != nil {
		t.Fatalf("make a tap: %v", err)
	}
	file := os.NewFile(uintptr(fd), name)
	t.Cleanup(func() { file.Close() }) // which ends the device
	relayIP(t, "link set "+name+" mtu 9000 up")
	device, err := net.InterfaceByName(name)
	if err != nil {
		t.Fatal(err)
	}
	return &tap{t, file, device.HardwareAddr}
}

// segments is how large those are that a card put together; linear is how much of the
// frame lies in one piece.
func (d *tap) send(frame []byte, linear, segments int) {
	d.t.Helper()
	copy(frame, d.mac)
	var head [10]byte // struct virtio_net_hdr
	binary.NativeEndian.PutUint16(head[2:], uint16(linear))
	if segments > 0 {
		header := ethernetHeader + ip4Header
		if frame[12] == 0x86 {
			header = ethernetHeader + ip6Header
		}
		head[0], head[1] = 1, 5 // the checksum is still to be done; UDP segments
		binary.NativeEndian.PutUint16(head[2:], uint16(header+udpHeader))
		binary.NativeEndian.PutUint16(head[4:], uint16(segments))
		binary.NativeEndian.PutUint16(head[6:], uint16(header))
		binary.NativeEndian.PutUint16(head[8:], 6)
	}
	if _, err := d.file.Write(append(head[:], frame...)); err != nil {
		d.t.Fatal(err)
	}
}

// Cards leave large frames in pieces, and put several together to one. The program
// gathers the headers of the first; the others are for user space.
func TestFramesInPieces(t *testing.T) {
	n := newNetwork(t)
	relayIP(t, "link set right mtu 9000")
	n.callee.ip("link set up0 mtu 9000")
	card := newTap(t, "card")
	relayIP(t, "addr add 10.4.0.1/24 dev card", "addr add fd04::1/64 dev card nodad",
		"neigh add 10.4.0.2 lladdr 02:00:00:00:00:99 dev card", "neigh add fd04::2 lladdr 02:00:00:00:00:99 dev card")
	table := openLevel(t, best, Config{Locals: append(locals(), addr("10.4.0.1"), addr("fd04::1"))})
	for family, at := range families {
		t.Run(family, func(t *testing.T) {
			local := addr(map[string]string{"IPv4": "10.4.0.1", "IPv6": "fd04::1"}[family])
			source := netip.AddrPortFrom(local.Next(), 5000)
			callee := n.callee.phone(at.callee)
			watch := n.callee.capture("up0")
			a, err := table.Open(netip.AddrPortFrom(local, firstPort), 1, handlerFunc(refuse))
			if err != nil {
				t.Fatal(err)
			}
			b, err := table.Open(netip.AddrPortFrom(at.right, firstPort+2), 1, handlerFunc(refuse))
			if err != nil {
				t.Fatal(err)
			}
			a.Install(Flow{Source: source, Out: b, Dest: addrOf(callee)})
			payload := append(rtpPacket(0, 7), make([]byte, 6000)...)
			for i := range payload[12:] {
				payload[12+i] = byte(i * 7)
			}
			for i, linear := range []int{14, 15, 20, 33, 34, 40, 42, 53, 54, 60, 62, 70, 200, 5000} {
				before := table.Stats().Kernel.Packets
				payload[3] = byte(i)
				card.send(build(source, a.Local(), payload, options{hops: 64}), linear, 0)
				if got, from := receive(t, callee); got != string(payload) || from != b.Local() {
					t.Errorf("%d bytes in one piece: %d bytes from %v", linear, len(got), from)
				}
				if err := wrongChecksum(watch.next(addrOf(callee).Port())); err != nil {
					t.Errorf("%d bytes in one piece: %v", linear, err)
				}
				if got := table.Stats().Kernel.Packets; got != before+1 || a.Counters().Quality.Sequence != uint16(i) {
					t.Errorf("frame %d, %d bytes in one piece: not moved in the kernel: %+v", i, linear, a.Counters())
				}
			}
			before := table.Stats()
			frame := build(source, a.Local(), payload[:3*500], options{hops: 64})
			udp := udpOf(frame)
			pseudo := append([]byte(nil), frame[len(frame)-len(udp)-2*len(local.AsSlice()):][:2*len(local.AsSlice())]...)
			binary.BigEndian.PutUint16(udp[6:], ones(pseudo, []byte{0, unix.IPPROTO_UDP, byte(len(udp) >> 8), byte(len(udp))}))
			card.send(frame, 0, 500)
			for i := range 3 {
				if got, from := receive(t, callee); got != string(payload[i*500:][:500]) || from != b.Local() {
					t.Errorf("segment %d: %d bytes from %v", i, len(got), from)
				}
			}
			eventually(t, "segments are counted in user space", func() bool {
				s := table.Stats()
				return s.Packets == before.Packets+3 && s.Kernel.Packets == before.Kernel.Packets
			})
		})
	}
}
