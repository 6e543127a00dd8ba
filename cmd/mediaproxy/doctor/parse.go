package doctor

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"math"
	"net/netip"
	"strconv"
	"strings"
)

// version is that of a kernel.
type version struct{ major, minor int }

func (v version) atLeast(major, minor int) bool {
	return v.major > major || v.major == major && v.minor >= minor
}

func (v version) String() string { return fmt.Sprintf("%d.%d", v.major, v.minor) }

// parseVersion reads the beginning of a release such as "6.1.0-13-amd64".
func parseVersion(release string) (version, bool) {
	major, rest, ok := strings.Cut(release, ".")
	if !ok {
		return version{}, false
	}
	end := strings.IndexFunc(rest, func(r rune) bool { return r < '0' || r > '9' })
	if end < 0 {
		end = len(rest)
	}
	a, err1 := strconv.ParseUint(major, 10, 16)
	b, err2 := strconv.ParseUint(rest[:end], 10, 16)
	return version{int(a), int(b)}, err1 == nil && err2 == nil
}

// status is what matters of /proc/PID/status.
type status struct {
	pid, uid, gid       int
	groups              []int
	name                string
	effective, bounding capSet
	noNewPrivileges     bool
}

func parseStatus(text string) (status, error) {
	var s status
	seen := 0
	for line := range strings.Lines(text) {
		key, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), ":")
		words := strings.Fields(value)
		if key == "Groups" {
			for _, w := range words {
				if n, err := strconv.Atoi(w); err == nil {
					s.groups = append(s.groups, n)
				}
			}
		}
		if len(words) == 0 {
			continue
		}
		var err error
		switch key {
		case "Name":
			s.name = strings.TrimSpace(value)
		case "Pid":
			s.pid, err = strconv.Atoi(words[0])
		case "Uid":
			s.uid, err = strconv.Atoi(words[min(1, len(words)-1)]) // real, effective, saved, of files
		case "Gid":
			s.gid, err = strconv.Atoi(words[min(1, len(words)-1)])
		case "CapEff":
			s.effective, err = parseCapSet(words[0])
		case "CapBnd":
			s.bounding, err = parseCapSet(words[0])
		case "NoNewPrivs":
			s.noNewPrivileges = words[0] == "1"
			continue
		default:
			continue
		}
		if err != nil {
			return status{}, fmt.Errorf("status: %s: %w", key, err)
		}
		seen++
	}
	if seen < 6 {
		return status{}, fmt.Errorf("status: %d of 6 lines found", seen)
	}
	return s, nil
}

// capSet is a set of capabilities.
type capSet uint64

func (s capSet) has(c int) bool { return s>>c&1 == 1 }

// parseCapSet reads the hexadecimal form of /proc/PID/status.
func parseCapSet(s string) (capSet, error) {
	n, err := strconv.ParseUint(s, 16, 64)
	return capSet(n), err
}

// unlimited is a limit that is none.
const unlimited = math.MaxUint64

// parseLimit returns the hard limit of a line of /proc/PID/limits.
func parseLimit(text, name string) (hard uint64, ok bool) {
	for line := range strings.Lines(text) {
		rest, found := strings.CutPrefix(line, name+"  ")
		if !found {
			continue
		}
		words := strings.Fields(rest)
		if len(words) < 2 {
			return 0, false
		}
		if words[1] == "unlimited" {
			return unlimited, true
		}
		n, err := strconv.ParseUint(words[1], 10, 64)
		return n, err == nil
	}
	return 0, false
}

// parseUnit finds the systemd service in /proc/PID/cgroup; empty: there is none. Only
// the last folder counts: a shell in a session lies below the service of its user.
func parseUnit(text string) string {
	for line := range strings.Lines(text) {
		_, rest, _ := strings.Cut(strings.TrimSuffix(line, "\n"), ":")
		controllers, path, _ := strings.Cut(rest, ":")
		if controllers != "" && controllers != "name=systemd" {
			continue
		}
		if name := path[strings.LastIndexByte(path, '/')+1:]; strings.HasSuffix(name, ".service") {
			return name
		}
	}
	return ""
}

// udpSocket is a line of /proc/net/udp or udp6.
type udpSocket struct {
	local netip.AddrPort
	uid   int
	inode uint64
}

// parseUDP reads /proc/net/udp or udp6. Addresses are words as the kernel has them in
// memory, so that their bytes depend on the processor's order.
func parseUDP(text string, order binary.ByteOrder) []udpSocket {
	var out []udpSocket
	for line := range strings.Lines(text) {
		words := strings.Fields(line)
		if len(words) < 10 {
			continue
		}
		local, ok := parseHexAddress(words[1], order)
		uid, err1 := strconv.Atoi(words[7])
		inode, err2 := strconv.ParseUint(words[9], 10, 64)
		if ok && err1 == nil && err2 == nil {
			out = append(out, udpSocket{local, uid, inode})
		}
	}
	return out
}

func parseHexAddress(s string, order binary.ByteOrder) (netip.AddrPort, bool) {
	words, hexPort, _ := strings.Cut(s, ":")
	b, err1 := hex.DecodeString(words)
	port, err2 := strconv.ParseUint(hexPort, 16, 16)
	if err1 != nil || err2 != nil || len(b)%4 != 0 {
		return netip.AddrPort{}, false
	}
	for i := 0; i < len(b); i += 4 {
		order.PutUint32(b[i:], binary.BigEndian.Uint32(b[i:]))
	}
	ip, ok := netip.AddrFromSlice(b)
	return netip.AddrPortFrom(ip.Unmap(), uint16(port)), ok
}

// account is a line of /etc/passwd.
type account struct {
	name     string
	uid, gid int
}

func parsePasswd(text string) []account {
	var out []account
	for line := range strings.Lines(text) {
		words := strings.Split(line, ":")
		if len(words) < 4 {
			continue
		}
		uid, err1 := strconv.Atoi(words[2])
		gid, err2 := strconv.Atoi(words[3])
		if err1 == nil && err2 == nil {
			out = append(out, account{words[0], uid, gid})
		}
	}
	return out
}

// maxProcessors is more than Linux can have.
const maxProcessors = 1 << 13

// parseProcessors counts what a list such as "0-3,8" names; 0: it is none.
func parseProcessors(list string) int {
	n := 0
	for part := range strings.SplitSeq(strings.TrimSpace(list), ",") {
		from, to, isRange := strings.Cut(part, "-")
		a, err := strconv.ParseUint(from, 10, 16)
		b := a
		if isRange && err == nil {
			b, err = strconv.ParseUint(to, 10, 16)
		}
		if err != nil || b < a || b >= maxProcessors {
			return 0
		}
		n += int(b-a) + 1
	}
	return min(n, maxProcessors)
}

// processorMask is the form of rps_cpus for the first n processors: words of 32 bits,
// the highest first.
func processorMask(n int) string {
	var words []string
	for ; n > 0; n -= 32 {
		words = append([]string{fmt.Sprintf("%x", uint64(1)<<min(n, 32)-1)}, words...)
	}
	return strings.Join(words, ",")
}
