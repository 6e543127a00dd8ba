package doctor

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Places of tc, from linux/pkt_sched.h.
const (
	tcIngress = 0xfffffff2
	tcEgress  = 0xfffffff3

	tcaKind    = 1
	tcaOptions = 2
	tcaBPFName = 7
)

// A relay's own program by tcx, and the beginning of the name of its filter.
const (
	ownProgram = "flow_tc"
	ownFilter  = "mediaproxy"
)

// programsOf names what tc runs for the packets of a device: programs by tcx, filters of
// clsact, but not those of relays. What this user may not see is left out.
func programsOf(index int) []string {
	var out []string
	for _, p := range []struct {
		name   string
		tcx    uint32
		parent uint32
	}{{"ingress", unix.BPF_TCX_INGRESS, tcIngress}, {"egress", unix.BPF_TCX_EGRESS, tcEgress}} {
		for _, id := range tcxPrograms(index, p.tcx) {
			if name := programName(id); name != ownProgram {
				out = append(out, "tcx "+p.name+" "+name)
			}
		}
		for _, filter := range filters(index, p.parent) {
			// A classifier may list its own tables, too.
			if name := "tc " + p.name + " " + filter; !strings.HasPrefix(filter, ownFilter) && !slices.Contains(out, name) {
				out = append(out, name)
			}
		}
	}
	return out
}

// tcxPrograms asks with BPF_PROG_QUERY, of whose attributes the first are: device, place,
// two sets of flags, pointer to numbers, how many there is room for.
func tcxPrograms(index int, place uint32) []uint32 {
	var ids [64]uint32
	var attr [64]byte
	binary.NativeEndian.PutUint32(attr[0:], uint32(index))
	binary.NativeEndian.PutUint32(attr[4:], place)
	var pin runtime.Pinner
	defer pin.Unpin()
	pin.Pin(&ids)
	binary.NativeEndian.PutUint64(attr[16:], uint64(uintptr(unsafe.Pointer(&ids))))
	binary.NativeEndian.PutUint32(attr[24:], uint32(len(ids)))
	if _, err := bpf(unix.BPF_PROG_QUERY, attr[:]); err != nil {
		return nil
	}
	return ids[:min(int(binary.NativeEndian.Uint32(attr[24:])), len(ids))]
}

// programName is a program's name, or only its number for those who may not know.
func programName(id uint32) string {
	var attr [64]byte
	binary.NativeEndian.PutUint32(attr[0:], id)
	fd, err := bpf(unix.BPF_PROG_GET_FD_BY_ID, attr[:])
	if err != nil {
		return fmt.Sprintf("program %d", id)
	}
	defer unix.Close(fd)
	var info [128]byte // struct bpf_prog_info; its name is at 64
	attr = [64]byte{}
	var pin runtime.Pinner
	defer pin.Unpin()
	pin.Pin(&info)
	binary.NativeEndian.PutUint32(attr[0:], uint32(fd))
	binary.NativeEndian.PutUint32(attr[4:], uint32(len(info)))
	binary.NativeEndian.PutUint64(attr[8:], uint64(uintptr(unsafe.Pointer(&info))))
	if _, err := bpf(unix.BPF_OBJ_GET_INFO_BY_FD, attr[:]); err != nil {
		return fmt.Sprintf("program %d", id)
	}
	name, _, _ := bytes.Cut(info[64:80], []byte{0})
	if len(name) == 0 {
		return fmt.Sprintf("program %d", id)
	}
	return string(name)
}

func bpf(command int, attr []byte) (int, error) {
	r, _, errno := unix.Syscall(unix.SYS_BPF, uintptr(command), uintptr(unsafe.Pointer(&attr[0])), uintptr(len(attr)))
	if errno != 0 {
		return -1, errno
	}
	return int(r), nil
}

// filters lists the filters of clsact at one place.
func filters(index int, parent uint32) []string {
	message := make([]byte, unix.SizeofNlMsghdr+20) // header, struct tcmsg
	binary.NativeEndian.PutUint16(message[4:], unix.RTM_GETTFILTER)
	binary.NativeEndian.PutUint16(message[6:], unix.NLM_F_REQUEST|unix.NLM_F_DUMP)
	body := message[unix.SizeofNlMsghdr:]
	binary.NativeEndian.PutUint32(body[4:], uint32(index))
	binary.NativeEndian.PutUint32(body[12:], parent)
	answers, err := dump(unix.NETLINK_ROUTE, message)
	if err != nil {
		return nil
	}
	var out []string
	for _, m := range answers {
		if len(m.Data) < 20 || binary.NativeEndian.Uint32(m.Data[8:]) == 0 {
			continue // the head of a list, without filter
		}
		var name string
		for kind, value := range attributes(m.Data[20:]) {
			switch kind {
			case tcaKind:
				name = word(value)
			case tcaOptions:
				for kind, value := range attributes(value) {
					if kind == tcaBPFName && name == "bpf" {
						name = word(value)
					}
				}
			}
		}
		out = append(out, name)
	}
	return out
}

// dump sends a question whose answer is a list.
func dump(family int, message []byte) ([]syscall.NetlinkMessage, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, family)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	binary.NativeEndian.PutUint32(message, uint32(len(message)))
	if err := unix.Sendto(fd, message, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return nil, err
	}
	var out []syscall.NetlinkMessage
	for {
		buffer := make([]byte, 1<<16) // what was parsed lies in it
		n, _, err := unix.Recvfrom(fd, buffer, 0)
		if err != nil {
			return nil, err
		}
		messages, err := syscall.ParseNetlinkMessage(buffer[:n])
		if err != nil {
			return nil, err
		}
		for _, m := range messages {
			switch m.Header.Type {
			case unix.NLMSG_DONE:
				return out, nil
			case unix.NLMSG_ERROR:
				if code := int32(binary.NativeEndian.Uint32(m.Data)); code != 0 {
					return nil, unix.Errno(-code)
				}
				return out, nil
			}
			out = append(out, m)
		}
	}
}
