package forward

import (
	"encoding/binary"
	"net/netip"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The system calls of the packet path. They never block (MSG_DONTWAIT), so they
// go past the scheduler's bookkeeping with RawSyscall; the standard library
// would allocate a socket address for each packet.

// sockaddr is a socket address in the kernel's form: sockaddr_in or
// sockaddr_in6 (family in host order, port in network order).
type sockaddr struct {
	raw [unix.SizeofSockaddrInet6]byte
	len uint32
}

func newSockaddr(a netip.AddrPort, v6 bool) sockaddr {
	var s sockaddr
	binary.BigEndian.PutUint16(s.raw[2:], a.Port())
	if v6 {
		binary.NativeEndian.PutUint16(s.raw[0:], unix.AF_INET6)
		ip := a.Addr().As16()
		copy(s.raw[8:24], ip[:])
		s.len = unix.SizeofSockaddrInet6
		return s
	}
	binary.NativeEndian.PutUint16(s.raw[0:], unix.AF_INET)
	if a.Addr().Unmap().Is4() {
		ip := a.Addr().Unmap().As4()
		copy(s.raw[4:8], ip[:])
	}
	s.len = unix.SizeofSockaddrInet4
	return s
}

// same compares family, address and port.
func (s *sockaddr) same(o *sockaddr) bool {
	if binary.NativeEndian.Uint64(s.raw[:]) != binary.NativeEndian.Uint64(o.raw[:]) {
		// family, port, and the IPv4 address or the IPv6 flow label
		if s.len != unix.SizeofSockaddrInet6 || [4]byte(s.raw[:4]) != [4]byte(o.raw[:4]) {
			return false
		}
	}
	return s.len == unix.SizeofSockaddrInet4 || [16]byte(s.raw[8:24]) == [16]byte(o.raw[8:24])
}

func (s *sockaddr) addrPort() netip.AddrPort {
	port := binary.BigEndian.Uint16(s.raw[2:])
	if binary.NativeEndian.Uint16(s.raw[0:]) == unix.AF_INET6 {
		return netip.AddrPortFrom(netip.AddrFrom16([16]byte(s.raw[8:24])).Unmap(), port)
	}
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte(s.raw[4:8])), port)
}

func bindUDP(local netip.AddrPort) (fd int, err error) {
	family, v6 := unix.AF_INET, local.Addr().Is6()
	if v6 {
		family = unix.AF_INET6
	}
	fd, err = unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		if err == unix.EMFILE || err == unix.ENFILE {
			err = ErrTooManyPorts
		}
		return -1, err
	}
	if v6 {
		err = firstError(
			unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 1),
			unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_RECVHOPLIMIT, 1),
			unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_RECVTCLASS, 1),
			unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER, unix.IPV6_PMTUDISC_DONT))
	} else {
		err = firstError(
			unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_RECVTTL, 1),
			unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_RECVTOS, 1),
			unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_DONT))
	}
	if err == nil {
		name := newSockaddr(local, v6)
		if _, _, errno := unix.RawSyscall(unix.SYS_BIND, uintptr(fd), uintptr(unsafe.Pointer(&name.raw)), uintptr(name.len)); errno == unix.EADDRINUSE {
			err = ErrPortInUse
		} else if errno != 0 {
			err = errno
		}
	}
	if err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

func firstError(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

func connectUDP(fd int, to *sockaddr) error {
	if _, _, errno := unix.RawSyscall(unix.SYS_CONNECT, uintptr(fd), uintptr(unsafe.Pointer(&to.raw)), uintptr(to.len)); errno != 0 {
		return errno
	}
	return nil
}

// disconnectUDP connects to no address family, which dissolves the connection
// and keeps address and port, because they were bound explicitly.
func disconnectUDP(fd int) {
	var none [16]byte // AF_UNSPEC is 0
	unix.RawSyscall(unix.SYS_CONNECT, uintptr(fd), uintptr(unsafe.Pointer(&none)), uintptr(len(none)))
}

// rawSend transmits to an address, or to the connected one if to is nil.
func rawSend(fd int, payload []byte, to *sockaddr) unix.Errno {
	var name unsafe.Pointer
	var nameLen uint32
	if to != nil {
		name, nameLen = unsafe.Pointer(&to.raw), to.len
	}
	_, _, errno := unix.RawSyscall6(unix.SYS_SENDTO, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(payload))), uintptr(len(payload)),
		unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL, uintptr(name), uintptr(nameLen))
	return errno
}

// receiver holds the buffers of one thread's recvmsg.
type receiver struct {
	name    sockaddr
	msg     unix.Msghdr
	iov     unix.Iovec
	control [128]byte
	payload [1 << 16]byte // the largest datagram
}

func (r *receiver) init() {
	r.iov.Base = &r.payload[0]
	r.iov.SetLen(len(r.payload))
	r.msg.Iov = &r.iov
	r.msg.SetIovlen(1)
	r.msg.Name = &r.name.raw[0]
	r.msg.Control = &r.control[0]
}

// receive takes one datagram. hops is its TTL or hop limit and tos its traffic
// class, -1 if the kernel did not say.
func (r *receiver) receive(fd int) (payload []byte, hops, tos int, errno unix.Errno) {
	r.msg.Namelen = uint32(len(r.name.raw))
	r.msg.SetControllen(len(r.control))
	n, _, errno := unix.RawSyscall(unix.SYS_RECVMSG, uintptr(fd), uintptr(unsafe.Pointer(&r.msg)), unix.MSG_DONTWAIT)
	if errno != 0 {
		return nil, 0, 0, errno
	}
	r.name.len = r.msg.Namelen
	c := readControl(r.control[:r.msg.Controllen])
	return r.payload[:n:n], c.hops, c.tos, 0
}

// lowByte is where the low byte of a native 32-bit integer lies.
var lowByte = func() int {
	one := uint32(1)
	if *(*byte)(unsafe.Pointer(&one)) == 1 {
		return 0
	}
	return 3
}()

// setHops makes a socket send with this TTL or hop limit and traffic class.
func setHops(fd int, v6 bool, hops int) {
	if v6 {
		setsockopt(fd, unix.IPPROTO_IPV6, unix.IPV6_UNICAST_HOPS, hops)
		return
	}
	setsockopt(fd, unix.IPPROTO_IP, unix.IP_TTL, hops)
}

func setTOS(fd int, v6 bool, tos int) {
	if v6 {
		setsockopt(fd, unix.IPPROTO_IPV6, unix.IPV6_TCLASS, tos)
		return
	}
	setsockopt(fd, unix.IPPROTO_IP, unix.IP_TOS, tos)
}

func setsockopt(fd, level, name, value int) {
	v := int32(value)
	unix.RawSyscall6(unix.SYS_SETSOCKOPT, uintptr(fd), uintptr(level), uintptr(name), uintptr(unsafe.Pointer(&v)), 4, 0)
}
