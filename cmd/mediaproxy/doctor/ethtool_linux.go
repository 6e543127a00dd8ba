package doctor

import (
	"encoding/binary"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Numbers of linux/ethtool.h that x/sys does not have.
const (
	udp4Flow = 0x02
	udp6Flow = 0x06

	featureNames = 4  // a set of strings
	nameSize     = 32 // of each

	hashSourcePort = 1 << 6
	hashTargetPort = 1 << 7
	hashSource     = 1 << 4
	hashTarget     = 1 << 5
)

// ethtool asks drivers. Each question is a buffer that begins with its number; what
// a driver does not answer is not known.
type ethtool struct{ fd int }

func openEthtool() (ethtool, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	return ethtool{fd}, err
}

func (e ethtool) close() { unix.Close(e.fd) }

// request is struct ifreq with a pointer.
type request struct {
	name [unix.IFNAMSIZ]byte
	data unsafe.Pointer
	_    [16]byte
}

func (e ethtool) ask(device string, buffer []byte) bool {
	var r request
	copy(r.name[:unix.IFNAMSIZ-1], device)
	r.data = unsafe.Pointer(&buffer[0])
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(e.fd), unix.SIOCETHTOOL, uintptr(unsafe.Pointer(&r)))
	return errno == 0
}

func (e ethtool) offloads(device string) *Offloads {
	names := e.features(device)
	if names == nil {
		return nil
	}
	// struct ethtool_gfeatures: command, number of blocks of 32 features; in each block
	// available, requested, active, never changed.
	blocks := (len(names) + 31) / 32
	buffer := command(unix.ETHTOOL_GFEATURES, 8+16*blocks)
	binary.NativeEndian.PutUint32(buffer[4:], uint32(blocks))
	if !e.ask(device, buffer) {
		return nil
	}
	var o Offloads
	for i, name := range names {
		block := buffer[8+16*(i/32):]
		bit := func(at int) bool { return binary.NativeEndian.Uint32(block[at:])>>(i%32)&1 == 1 }
		available, active, never := bit(0), bit(8), bit(12)
		switch name {
		case "rx-gro":
			o.GRO = active
		case "rx-lro":
			o.LRO, o.LROFixed = active, !available || never
		}
	}
	return &o
}

// features are the names of what can be on or off, by their number.
func (e ethtool) features(device string) []string {
	// struct ethtool_sset_info: command, reserved, mask, then the size of each set.
	buffer := command(unix.ETHTOOL_GSSET_INFO, 20)
	binary.NativeEndian.PutUint64(buffer[8:], 1<<featureNames)
	if !e.ask(device, buffer) {
		return nil
	}
	n := binary.NativeEndian.Uint32(buffer[16:])
	if n == 0 || n > 1024 {
		return nil
	}
	// struct ethtool_gstrings: command, set, number, strings.
	buffer = command(unix.ETHTOOL_GSTRINGS, 12+int(n)*nameSize)
	binary.NativeEndian.PutUint32(buffer[4:], featureNames)
	binary.NativeEndian.PutUint32(buffer[8:], n)
	if !e.ask(device, buffer) {
		return nil
	}
	var names []string
	for i := range int(n) {
		name, _, _ := strings.Cut(string(buffer[12+i*nameSize:][:nameSize]), "\x00")
		names = append(names, name)
	}
	return names
}

func (e ethtool) channels(device string) *Channels {
	// struct ethtool_channels: command; most of rx, tx, other, combined; how many now.
	buffer := command(unix.ETHTOOL_GCHANNELS, 36)
	if !e.ask(device, buffer) {
		return nil
	}
	at := func(i int) int { return int(binary.NativeEndian.Uint32(buffer[4*i:])) }
	c := &Channels{Use: at(5) + at(8), Max: at(1), Name: "rx"}
	if at(4) > 0 {
		c.Max, c.Name = at(4), "combined"
	}
	return c
}

func (e ethtool) hash(device string, flow uint32) Hash {
	buffer := command(unix.ETHTOOL_GRXFH, 192) // struct ethtool_rxnfc: command, flow, data, ...
	binary.NativeEndian.PutUint32(buffer[4:], flow)
	if !e.ask(device, buffer) {
		return HashUnknown
	}
	fields := binary.NativeEndian.Uint64(buffer[8:])
	switch {
	case fields&hashSourcePort != 0 && fields&hashTargetPort != 0:
		return HashPorts
	case fields&(hashSource|hashTarget) != 0:
		return HashAddresses
	}
	return HashUnknown
}

func command(number uint32, size int) []byte {
	b := make([]byte, size)
	binary.NativeEndian.PutUint32(b, number)
	return b
}
