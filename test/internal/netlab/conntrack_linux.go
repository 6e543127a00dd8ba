package netlab

import (
	"encoding/binary"
	"fmt"

	"golang.org/x/sys/unix"
)

// ForgetBindings makes a NAT router lose all its bindings, as after a restart: every
// flow through it gets another port with its next packet. (Deleting without attributes
// is ctnetlink's word for all.)
func (h *Host) ForgetBindings() error {
	return h.Do(func() error {
		fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_NETFILTER)
		if err != nil {
			return fmt.Errorf("speak to conntrack: %w", err)
		}
		defer unix.Close(fd)
		const deleteEntry, size = 2, unix.SizeofNlMsghdr + 4
		m := make([]byte, size)
		binary.NativeEndian.PutUint32(m[0:], size)
		binary.NativeEndian.PutUint16(m[4:], unix.NFNL_SUBSYS_CTNETLINK<<8|deleteEntry)
		binary.NativeEndian.PutUint16(m[6:], unix.NLM_F_REQUEST|unix.NLM_F_ACK)
		m[unix.SizeofNlMsghdr] = unix.AF_INET
		if err := unix.Sendto(fd, m, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
			return fmt.Errorf("delete the bindings of %s: %w", h.name, err)
		}
		answer := make([]byte, 4096)
		n, _, err := unix.Recvfrom(fd, answer, 0)
		if err != nil || n < unix.SizeofNlMsghdr+4 {
			return fmt.Errorf("delete the bindings of %s: %d bytes of answer: %w", h.name, n, err)
		}
		if code := int32(binary.NativeEndian.Uint32(answer[unix.SizeofNlMsghdr:])); code != 0 {
			return fmt.Errorf("delete the bindings of %s: %w", h.name, unix.Errno(-code))
		}
		return nil
	})
}
