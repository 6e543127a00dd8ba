package doctor

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

func (this) Devices() ([]Device, error) {
	rib, err := syscall.NetlinkRIB(unix.RTM_GETLINK, unix.AF_UNSPEC)
	if err != nil {
		return nil, fmt.Errorf("list the network devices: %w", err)
	}
	messages, err := syscall.ParseNetlinkMessage(rib)
	if err != nil {
		return nil, fmt.Errorf("read the list of network devices: %w", err)
	}
	ethtool, err := openEthtool()
	if err != nil {
		return nil, fmt.Errorf("open a socket for ethtool: %w", err)
	}
	defer ethtool.close()
	var out []Device
	for _, m := range messages {
		if m.Header.Type != unix.RTM_NEWLINK || len(m.Data) < unix.SizeofIfInfomsg {
			continue
		}
		d := deviceOf(m)
		d.Addresses = addressesOf(d.Index)
		d.Programs = append(d.Programs, programsOf(d.Index)...)
		d.Offloads = ethtool.offloads(d.Name)
		d.Channels = ethtool.channels(d.Name)
		d.Hash4 = ethtool.hash(d.Name, udp4Flow)
		d.Hash6 = ethtool.hash(d.Name, udp6Flow)
		out = append(out, d)
	}
	return out, nil
}

// deviceOf reads what a link message says: struct ifinfomsg, then attributes.
func deviceOf(m syscall.NetlinkMessage) Device {
	flags := binary.NativeEndian.Uint32(m.Data[8:])
	d := Device{
		Hardware: binary.NativeEndian.Uint16(m.Data[2:]),
		Index:    int(int32(binary.NativeEndian.Uint32(m.Data[4:]))),
		Loopback: flags&unix.IFF_LOOPBACK != 0,
		Up:       flags&unix.IFF_UP != 0,
		Running:  flags&unix.IFF_RUNNING != 0,
	}
	for kind, value := range attributes(m.Data[unix.SizeofIfInfomsg:]) {
		switch kind {
		case unix.IFLA_IFNAME:
			d.Name = word(value)
		case unix.IFLA_MTU:
			d.MTU = number(value)
		case unix.IFLA_LINK:
			d.Lower = number(value)
		case unix.IFLA_MASTER:
			d.Master = number(value)
		case unix.IFLA_LINKINFO:
			for kind, value := range attributes(value) {
				if kind == unix.IFLA_INFO_KIND {
					d.Kind = word(value)
				}
			}
		case unix.IFLA_XDP:
			for kind, value := range attributes(value) {
				if kind == unix.IFLA_XDP_PROG_ID {
					d.Programs = append(d.Programs, "XDP "+programName(uint32(number(value))))
				}
			}
		}
	}
	return d
}

func addressesOf(index int) []netip.Addr {
	addrs, err := (&net.Interface{Index: index}).Addrs()
	if err != nil {
		return nil
	}
	var out []netip.Addr
	for _, a := range addrs {
		if n, ok := a.(*net.IPNet); ok {
			if ip, ok := netip.AddrFromSlice(n.IP); ok {
				out = append(out, ip.Unmap())
			}
		}
	}
	return out
}

// attributes reads netlink attributes, up to the first that is cut off.
func attributes(b []byte) func(yield func(kind uint16, value []byte) bool) {
	return func(yield func(uint16, []byte) bool) {
		for len(b) >= unix.SizeofNlAttr {
			size := int(binary.NativeEndian.Uint16(b))
			kind := binary.NativeEndian.Uint16(b[2:]) &^ (unix.NLA_F_NESTED | unix.NLA_F_NET_BYTEORDER)
			if size < unix.SizeofNlAttr || size > len(b) {
				return
			}
			if !yield(kind, b[unix.SizeofNlAttr:size]) {
				return
			}
			b = b[min(len(b), (size+unix.NLA_ALIGNTO-1)&^(unix.NLA_ALIGNTO-1)):]
		}
	}
}

// word is a string that ends in a zero byte.
func word(b []byte) string {
	s, _, _ := strings.Cut(string(b), "\x00")
	return s
}

// number is one of 32 bits in the processor's order, or none.
func number(b []byte) int {
	if len(b) < 4 {
		return 0
	}
	return int(binary.NativeEndian.Uint32(b))
}
