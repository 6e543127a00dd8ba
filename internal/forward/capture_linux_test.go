package forward

import (
	"encoding/binary"
	"fmt"
	"net"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// frame is what a capture sees.
type frame struct {
	bytes   []byte
	partial bool // the checksum is that of the pseudo header only: hardware would complete it
}

// capture watches a device.
type capture struct {
	t  testing.TB
	fd int
}

func (n *namespace) capture(device string) *capture {
	n.t.Helper()
	c := &capture{t: n.t}
	n.do(func() (err error) {
		all := int(binary.NativeEndian.Uint16([]byte{0, unix.ETH_P_ALL}))
		if c.fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0); err != nil {
			return err
		}
		dev, err := net.InterfaceByName(device)
		if err != nil {
			return err
		}
		return firstError(
			unix.SetsockoptInt(c.fd, unix.SOL_PACKET, unix.PACKET_AUXDATA, 1),
			unix.SetsockoptTimeval(c.fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 20000}),
			unix.Bind(c.fd, &unix.SockaddrLinklayer{Protocol: uint16(all), Ifindex: dev.Index}))
	})
	n.t.Cleanup(func() { unix.Close(c.fd) })
	return c
}

// next is the next UDP frame for a port, within 5 s.
func (c *capture) next(port uint16) frame {
	c.t.Helper()
	b, oob := make([]byte, 1<<16), make([]byte, 256)
	for deadline := time.Now().Add(5 * time.Second); time.Now().Before(deadline); {
		n, oobn, _, _, err := unix.Recvmsg(c.fd, b, oob, 0)
		if err != nil {
			continue
		}
		udp := udpOf(b[:n])
		if udp == nil || binary.BigEndian.Uint16(udp[2:]) != port {
			continue
		}
		f := frame{bytes: b[:n]}
		messages, _ := unix.ParseSocketControlMessage(oob[:oobn])
		for _, m := range messages {
			if m.Header.Level == unix.SOL_PACKET && m.Header.Type == unix.PACKET_AUXDATA {
				f.partial = binary.NativeEndian.Uint32(m.Data)&unix.TP_STATUS_CSUMNOTREADY != 0
			}
		}
		return f
	}
	c.t.Fatalf("no frame for port %d", port)
	return frame{}
}

const ethernetHeader = 14

// udpOf is the UDP part of a frame without options and extensions, nil if it has none.
func udpOf(b []byte) []byte {
	at := ethernetHeader
	if len(b) < ethernetHeader+ip4Header+udpHeader {
		return nil
	}
	switch {
	case binary.BigEndian.Uint16(b[12:]) == unix.ETH_P_IP && b[14] == 0x45 && b[23] == unix.IPPROTO_UDP:
		at += ip4Header
	case binary.BigEndian.Uint16(b[12:]) == unix.ETH_P_IPV6 && b[20] == unix.IPPROTO_UDP:
		at += ip6Header
	default:
		return nil
	}
	if len(b) < at+udpHeader {
		return nil
	}
	return b[at:]
}

// ones adds 16-bit words in one's complement: the Internet checksum the slow way.
func ones(parts ...[]byte) uint16 {
	var sum int
	for _, p := range parts {
		for ; len(p) >= 2; p = p[2:] {
			sum += int(binary.BigEndian.Uint16(p))
		}
		if len(p) == 1 {
			sum += int(p[0]) << 8
		}
	}
	for sum > 0xffff {
		sum = sum%0x10000 + sum/0x10000
	}
	return uint16(sum)
}

// wrongChecksum says what is wrong with a frame's checksums.
func wrongChecksum(f frame) error {
	udp := udpOf(f.bytes)
	if udp == nil {
		return fmt.Errorf("not UDP: %x", f.bytes)
	}
	length := int(binary.BigEndian.Uint16(udp[4:]))
	if length < udpHeader || length > len(udp) {
		return fmt.Errorf("UDP length %d of %d", length, len(udp))
	}
	udp = udp[:length]
	ip := f.bytes[ethernetHeader:]
	var pseudo []byte
	if ip[0]>>4 == 4 {
		if sum := ones(ip[:ip4Header]); sum != 0xffff {
			return fmt.Errorf("the IP header adds up to %#04x", sum)
		}
		pseudo = append(pseudo, ip[12:20]...)
	} else {
		pseudo = append(pseudo, ip[8:40]...)
	}
	pseudo = append(pseudo, 0, unix.IPPROTO_UDP, byte(length>>8), byte(length))
	sum := binary.BigEndian.Uint16(udp[6:])
	if f.partial {
		if want := ones(pseudo); sum != want {
			return fmt.Errorf("partial UDP checksum %#04x, want %#04x", sum, want)
		}
		return nil
	}
	if sum == 0 && ip[0]>>4 == 4 {
		return nil // there is none
	}
	if sum == 0 || ones(pseudo, udp) != 0xffff {
		return fmt.Errorf("UDP with pseudo header adds up to %#04x, its field is %#04x", ones(pseudo, udp), sum)
	}
	return nil
}

// seen says whether a UDP frame for a port was there within 20 ms.
func (c *capture) seen(port uint16) bool {
	b := make([]byte, 1<<16)
	for {
		n, _, err := unix.Recvfrom(c.fd, b, 0)
		if err != nil {
			return false
		}
		if udp := udpOf(b[:n]); udp != nil && binary.BigEndian.Uint16(udp[2:]) == port {
			return true
		}
	}
}
