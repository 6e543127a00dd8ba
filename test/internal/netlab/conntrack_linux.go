package netlab

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"
)

// Numbers of ctnetlink (linux/netfilter/nfnetlink_conntrack.h).
const (
	ctDelete    = 2
	ctTupleOrig = 1
	ctTupleIP   = 1
	ctIPv4Src   = 1
	ctIPv4Dst   = 2
	ctProto     = 2
	ctProtoNum  = 1
	ctProtoSrc  = 2
	ctProtoDst  = 3
)

// ForgetBinding makes a NAT router lose the binding of one UDP flow, as by a restart or
// a time-out: the flow's next packet gets another port.
func (h *Host) ForgetBinding(inside, outside netip.AddrPort) error {
	tuple := attribute(unix.NLA_F_NESTED|ctTupleOrig,
		attribute(unix.NLA_F_NESTED|ctTupleIP, attribute(ctIPv4Src, inside.Addr().AsSlice()), attribute(ctIPv4Dst, outside.Addr().AsSlice())),
		attribute(unix.NLA_F_NESTED|ctProto, attribute(ctProtoNum, []byte{unix.IPPROTO_UDP}),
			attribute(ctProtoSrc, binary.BigEndian.AppendUint16(nil, inside.Port())), attribute(ctProtoDst, binary.BigEndian.AppendUint16(nil, outside.Port()))))
	message := binary.NativeEndian.AppendUint32(nil, uint32(unix.SizeofNlMsghdr+4+len(tuple)))
	message = binary.NativeEndian.AppendUint16(message, unix.NFNL_SUBSYS_CTNETLINK<<8|ctDelete)
	message = binary.NativeEndian.AppendUint16(message, unix.NLM_F_REQUEST|unix.NLM_F_ACK)
	message = append(message, make([]byte, 8)...)    // sequence and sender: not needed
	message = append(message, unix.AF_INET, 0, 0, 0) // struct nfgenmsg
	err := h.Do(func() error { return netfilter(append(message, tuple...)) })
	if err != nil {
		return fmt.Errorf("make %s forget the binding of %s to %s: %w", h.name, inside, outside, err)
	}
	return nil
}

// attribute is a netlink attribute, padded to four bytes.
func attribute(kind uint16, parts ...[]byte) []byte {
	b := binary.NativeEndian.AppendUint16(nil, 0)
	b = binary.NativeEndian.AppendUint16(b, kind)
	for _, p := range parts {
		b = append(b, p...)
	}
	binary.NativeEndian.PutUint16(b, uint16(len(b)))
	for len(b)%4 != 0 {
		b = append(b, 0)
	}
	return b
}

// netfilter sends one message and returns the error in its answer.
func netfilter(message []byte) error {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_NETFILTER)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := unix.Sendto(fd, message, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return err
	}
	answer := make([]byte, 4096)
	n, _, err := unix.Recvfrom(fd, answer, 0)
	if err != nil {
		return err
	}
	if n < unix.SizeofNlMsghdr+4 {
		return fmt.Errorf("an answer of %d bytes", n)
	}
	if code := int32(binary.NativeEndian.Uint32(answer[unix.SizeofNlMsghdr:])); code != 0 {
		return unix.Errno(-code)
	}
	return nil
}
