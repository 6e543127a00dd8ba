package doctor

import (
	"encoding/binary"
	"fmt"
	"io/fs"
	"net/netip"
	"strings"
	"testing/fstest"
)

// recorded is a host as it was once found, or as one could be.
type recorded struct {
	files        fstest.MapFS
	folders      map[string]Folder
	devices      []Device
	chains       []Chain
	elsewhere    string // a process in another network
	synchronised bool
	err          error // of everything that may be refused
}

func (h *recorded) Files() fs.FS { return h.files }
func (h *recorded) Folder(path string) Folder {
	return h.folders[path]
}
func (h *recorded) SameNetwork(pid string) bool { return pid != h.elsewhere }
func (h *recorded) Devices() ([]Device, error)  { return h.devices, h.err }
func (h *recorded) Chains() ([]Chain, error)    { return h.chains, h.err }
func (h *recorded) Synchronised() (bool, error) { return h.synchronised, h.err }

func (h *recorded) write(path, text string) { h.files[path] = &fstest.MapFile{Data: []byte(text)} }
func (h *recorded) link(path, target string) {
	h.files[path] = &fstest.MapFile{Data: []byte(target), Mode: fs.ModeSymlink}
}

const pinFolder = bpfFolder + "/mediaproxy"

const (
	allCaps  = "000001ffffffffff"
	noBPF    = "0000017fffffffff" // CAP_SYS_ADMIN does not count
	noNetRaw = "000001ffffffdfff"
	noCaps   = "0000000000000000"
)

// process writes one below /proc; limits are those of a login shell on Debian.
func (h *recorded) process(id string, pid int, name string, uid int, effective, bounding, cgroup string) {
	at := "proc/" + id + "/"
	h.write(at+"status", fmt.Sprintf("Name:\t%s\nUmask:\t0022\nPid:\t%d\nUid:\t%[3]d\t%[3]d\t%[3]d\t%[3]d\nGid:\t%[3]d\t%[3]d\t%[3]d\t%[3]d\nGroups:\t4 24 \nCapInh:\t0000000000000000\nCapEff:\t%s\nCapBnd:\t%s\nNoNewPrivs:\t0\n",
		name, pid, uid, effective, bounding))
	h.write(at+"comm", name+"\n")
	h.write(at+"cmdline", "/usr/bin/"+name+"\x00doctor\x00")
	h.write(at+"cgroup", "0::"+cgroup+"\n")
	h.write(at+"uid_map", "         0          0 4294967295\n")
	h.write(at+"limits", "Limit                     Soft Limit           Hard Limit           Units     \nMax open files            1024                 1048576              files     \nMax locked memory         8388608              8388608              bytes     \n")
	h.link(at+"exe", "/usr/bin/"+name)
}

// udpLine is what /proc/net/udp or udp6 would have.
func udpLine(local string, uid int, inode uint64) string {
	a := netip.MustParseAddrPort(local)
	b := a.Addr().AsSlice()
	var words strings.Builder
	for i := 0; i < len(b); i += 4 {
		fmt.Fprintf(&words, "%08X", binary.NativeEndian.Uint32(b[i:]))
	}
	return fmt.Sprintf("  100: %s:%04X 00000000:0000 07 00000000:00000000 00:00000000 00000000  %4d        0 %d 2 0000000000000000 0\n", &words, a.Port(), uid, inode)
}

// socket gives a process a UDP socket.
func (h *recorded) socket(id, local string, uid int, inode uint64) {
	h.write("proc/net/udp", text(h.files, "proc/net/udp")+udpLine(local, uid, inode))
	if id != "" {
		h.link(fmt.Sprintf("proc/%s/fd/%d", id, inode), fmt.Sprintf("socket:[%d]", inode))
	}
}

// folder is one that root owns, on the way from / on.
func folder(path string, uid int, mode fs.FileMode, over ...Step) Folder {
	d := Folder{Path: path, Steps: []Step{{"/", 0, 0, 0o755}}, Free: 5 << 30}
	at := ""
	for name := range strings.SplitSeq(path[1:], "/") {
		at += "/" + name
		s := Step{Path: at, Mode: 0o755}
		if at == path {
			s.UID, s.GID, s.Mode = uid, uid, mode
		}
		for _, o := range over {
			if o.Path == at {
				s = o
			}
		}
		d.Steps = append(d.Steps, s)
	}
	return d
}

// pinned puts a folder into a BPF file system.
func pinned(d Folder) Folder {
	d.Type = bpfMagic
	return d
}

// missing cuts a folder's way after the first steps.
func missing(d Folder, steps int) Folder {
	d.Steps = d.Steps[:steps]
	return d
}

// goodHost is a server on which nothing is to be said, examined by root.
func goodHost() *recorded {
	h := &recorded{files: fstest.MapFS{}, folders: map[string]Folder{}, synchronised: true}
	for path, text := range map[string]string{
		"proc/sys/kernel/osrelease":                                         "6.12.43+deb13-amd64\n",
		"proc/sys/kernel/unprivileged_bpf_disabled":                         "2\n",
		"proc/sys/net/ipv4/ip_local_reserved_ports":                         "40000-59999\n",
		"proc/sys/net/ipv4/ip_local_port_range":                             "32768\t60999\n",
		"proc/sys/net/ipv4/ip_forward":                                      "0\n",
		"proc/sys/fs/nr_open":                                               "1048576\n",
		"sys/devices/system/cpu/online":                                     "0-7\n",
		"sys/devices/system/clocksource/clocksource0/current_clocksource":   "tsc\n",
		"sys/devices/system/clocksource/clocksource0/available_clocksource": "tsc hpet acpi_pm \n",
		"etc/passwd":                              "root:x:0:0:root:/root:/bin/bash\nmediaproxy:x:997:997::/var/lib/mediaproxy:/usr/sbin/nologin\n_chrony:x:100:100::/:/bin/false\n",
		"run/systemd/system/x":                    "",
		"sys/class/net/eth0/ifindex":              "2\n",
		"sys/class/net/eth0/queues/rx-0/rps_cpus": "00\n",
	} {
		h.write(path, text)
	}
	h.process("self", 4711, "mediaproxy", 0, allCaps, allCaps, "/user.slice/user-0.slice/session-3.scope")
	h.link("proc/self/exe", "/usr/bin/mediaproxy")
	h.folders[bpfFolder] = pinned(folder(bpfFolder, 0, 0o711))
	h.folders[pinFolder] = pinned(folder(pinFolder, 997, 0o755))
	h.folders["/var/lib/mediaproxy"] = folder("/var/lib/mediaproxy", 997, 0o700)
	h.devices = []Device{
		{Name: "lo", Index: 1, Hardware: 772, Loopback: true, Up: true, Running: true, MTU: 65536,
			Addresses: []netip.Addr{netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("::1")}, Offloads: &Offloads{GRO: true, LROFixed: true}},
		{Name: "eth0", Index: 2, Hardware: ethernet, Up: true, Running: true, MTU: 1500,
			Addresses: []netip.Addr{netip.MustParseAddr("203.0.113.5"), netip.MustParseAddr("2001:db8::5"), netip.MustParseAddr("fe80::1")},
			Offloads:  &Offloads{GRO: true}, Channels: &Channels{8, 8, "combined"}, Hash4: HashPorts, Hash6: HashPorts},
	}
	return h
}

// goodRelay is the relay for it.
func goodRelay() Relay {
	return Relay{
		CheckWith:   "mediaproxy check --for relay",
		Addresses:   []netip.Addr{netip.MustParseAddr("203.0.113.5"), netip.MustParseAddr("2001:db8::5")},
		FirstPort:   40000,
		LastPort:    59999,
		FastPath:    "auto",
		BPFDir:      pinFolder,
		StateDir:    "/var/lib/mediaproxy",
		Descriptors: 41000,
	}
}
