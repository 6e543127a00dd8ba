package doctor

import (
	"encoding/binary"
	"io/fs"
	"maps"
	"net/netip"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// facts are what the checks decide on.
type facts struct {
	relay Relay

	release string // of the kernel
	kernel  version
	known   bool // the release was understood

	self    process
	running []process // relays in this network
	judged  process   // the first of them, or this process
	user    user      // whom a relay runs as

	mount            string // where the BPF file system should be
	bpf, pins, state Folder

	devices    []Device
	devicesErr error
	spread     map[int]bool // devices whose packets are spread by RPS
	processors int

	taken        []taken
	reserved     string
	automatic    string // range that automatic binds take ports from
	openFiles    uint64 // more than any process may have: fs.nr_open
	chains       []Chain
	chainsErr    error
	legacy       []string // tables of iptables in its old form
	ipForward    string
	unprivileged string // kernel.unprivileged_bpf_disabled

	systemd      bool
	clock        string
	clocks       []string
	synchronised bool
	clockErr     error
}

// process is one whose rights are judged.
type process struct {
	status
	exe           string
	unit          string // systemd service that it belongs to
	ownUsers      bool   // in a user namespace of its own
	files, memory uint64 // hard limits
}

// user is whom a relay runs as.
type user struct {
	name   string
	uid    int
	groups []int
}

// taken is a socket in the port range, with its owner if that can be seen.
type taken struct {
	udpSocket
	pid  int
	name string
	unit string
}

const (
	bpfFolder = "/sys/fs/bpf" // where systemd mounts it

	serviceUser = "mediaproxy" // of the unit files
)

func gather(h Host, r Relay) *facts {
	files := h.Files()
	f := &facts{relay: r}
	f.release = line(files, "proc/sys/kernel/osrelease")
	f.kernel, f.known = parseVersion(f.release)
	f.findProcesses(h, files)
	f.findUser(files)
	f.mount = bpfFolder
	if !strings.HasPrefix(r.BPFDir+"/", bpfFolder+"/") {
		f.mount = r.BPFDir
	}
	f.bpf, f.pins, f.state = h.Folder(f.mount), h.Folder(r.BPFDir), h.Folder(r.StateDir)
	f.devices, f.devicesErr = h.Devices()
	f.processors = parseProcessors(line(files, "sys/devices/system/cpu/online"))
	f.findSpread(files)
	f.findTaken(files)
	f.reserved = line(files, "proc/sys/net/ipv4/ip_local_reserved_ports")
	f.automatic = line(files, "proc/sys/net/ipv4/ip_local_port_range")
	f.openFiles = unlimited
	if n, err := strconv.ParseUint(line(files, "proc/sys/fs/nr_open"), 10, 64); err == nil {
		f.openFiles = n
	}
	f.chains, f.chainsErr = h.Chains()
	f.legacy = append(strings.Fields(text(files, "proc/net/ip_tables_names")), strings.Fields(text(files, "proc/net/ip6_tables_names"))...)
	f.ipForward = line(files, "proc/sys/net/ipv4/ip_forward")
	f.unprivileged = line(files, "proc/sys/kernel/unprivileged_bpf_disabled")
	_, err := fs.Stat(files, "run/systemd/system")
	f.systemd = err == nil
	const clocks = "sys/devices/system/clocksource/clocksource0/"
	f.clock = line(files, clocks+"current_clocksource")
	f.clocks = strings.Fields(text(files, clocks+"available_clocksource"))
	f.synchronised, f.clockErr = h.Synchronised()
	return f
}

// text is what a file says; nothing if it cannot be read.
func text(files fs.FS, path string) string {
	b, err := fs.ReadFile(files, path)
	if err != nil {
		return ""
	}
	return string(b)
}

func line(files fs.FS, path string) string { return strings.TrimSpace(text(files, path)) }

func readProcess(files fs.FS, id string) process {
	folder := "proc/" + id + "/"
	p := process{files: unlimited, memory: unlimited}
	p.status, _ = parseStatus(text(files, folder+"status")) // nothing known: no rights
	p.unit = parseUnit(text(files, folder+"cgroup"))
	p.exe, _ = fs.ReadLink(files, folder+"exe")
	limits := text(files, folder+"limits")
	if n, ok := parseLimit(limits, "Max open files"); ok {
		p.files = n
	}
	if n, ok := parseLimit(limits, "Max locked memory"); ok {
		p.memory = n
	}
	if ids := strings.Fields(text(files, folder+"uid_map")); len(ids) >= 3 {
		p.ownUsers = !slices.Equal(ids, []string{"0", "0", "4294967295"})
	}
	return p
}

// processIDs are the numbers below /proc.
func processIDs(files fs.FS) []string {
	entries, err := fs.ReadDir(files, "proc")
	if err != nil {
		return nil
	}
	var ids []string
	for _, e := range entries {
		if _, err := strconv.Atoi(e.Name()); err == nil {
			ids = append(ids, e.Name())
		}
	}
	return ids
}

// findProcesses looks at this process and at relays that run in the same network.
func (f *facts) findProcesses(h Host, files fs.FS) {
	f.self = readProcess(files, "self")
	f.judged = f.self
	for _, id := range processIDs(files) {
		if !isRelay(text(files, "proc/"+id+"/cmdline")) || !h.SameNetwork(id) {
			continue
		}
		if p := readProcess(files, id); p.pid != 0 {
			f.running = append(f.running, p)
		}
	}
	if len(f.running) > 0 {
		f.judged = f.running[0]
	}
}

// isRelay reads a command line, whose words end in zero bytes.
func isRelay(cmdline string) bool {
	words := strings.Split(cmdline, "\x00")
	switch filepath.Base(words[0]) {
	case "media-relay":
		return true
	case "mediaproxy":
		return len(words) > 1 && (words[1] == "relay" || words[1] == "up")
	}
	return false
}

// findUser decides whose rights to folders are judged: those of the relay that runs, of
// the user in the unit files when root asks, else of whoever asks.
func (f *facts) findUser(files fs.FS) {
	accounts := parsePasswd(text(files, "etc/passwd"))
	p := f.judged
	f.user = user{uid: p.uid, groups: append([]int{p.gid}, p.groups...)}
	for _, a := range accounts {
		if len(f.running) == 0 && p.uid == 0 && a.name == serviceUser {
			f.user = user{a.name, a.uid, []int{a.gid}}
			return
		}
	}
	f.user.name = nameOf(accounts, p.uid)
}

func nameOf(accounts []account, uid int) string {
	for _, a := range accounts {
		if a.uid == uid {
			return a.name
		}
	}
	return strconv.Itoa(uid)
}

// findSpread looks which devices have RPS. In a network namespace /sys may still show
// another one's devices, so the numbers are compared.
func (f *facts) findSpread(files fs.FS) {
	f.spread = map[int]bool{}
	for _, d := range f.devices {
		folder := "sys/class/net/" + d.Name
		if line(files, folder+"/ifindex") != strconv.Itoa(d.Index) {
			continue
		}
		mask := line(files, folder+"/queues/rx-0/rps_cpus")
		f.spread[d.Index] = strings.Trim(mask, "0,") != ""
	}
}

// findTaken looks for sockets at media ports that are not a relay's.
func (f *facts) findTaken(files fs.FS) {
	found := map[uint64]*taken{}
	for _, name := range []string{"udp", "udp6"} {
		for _, s := range parseUDP(text(files, "proc/net/"+name), binary.NativeEndian) {
			if f.relay.has(s.local.Port()) && f.inTheWay(s.local.Addr()) {
				found[s.inode] = &taken{udpSocket: s}
			}
		}
	}
	if len(found) == 0 {
		return
	}
	for _, id := range processIDs(files) {
		nameSockets(files, id, found)
	}
	for _, inode := range slices.Sorted(maps.Keys(found)) {
		if t := *found[inode]; !f.isOurs(t) {
			f.taken = append(f.taken, t)
		}
	}
	slices.SortStableFunc(f.taken, func(a, b taken) int { return int(a.local.Port()) - int(b.local.Port()) })
}

// inTheWay tells whether a socket at an address keeps the relay from its port. One for
// all IPv6 addresses may be for those of IPv4, too.
func (f *facts) inTheWay(ip netip.Addr) bool {
	return ip.IsUnspecified() || slices.Contains(f.relay.Addresses, ip)
}

// nameSockets notes which of the sockets a process has, as far as we may see it.
func nameSockets(files fs.FS, id string, found map[uint64]*taken) {
	entries, err := fs.ReadDir(files, "proc/"+id+"/fd")
	if err != nil {
		return
	}
	for _, e := range entries {
		target, err := fs.ReadLink(files, "proc/"+id+"/fd/"+e.Name())
		if err != nil {
			continue
		}
		number, ok := strings.CutPrefix(target, "socket:[")
		if !ok {
			continue
		}
		inode, err := strconv.ParseUint(strings.TrimSuffix(number, "]"), 10, 64)
		t := found[inode]
		if err != nil || t == nil || t.pid != 0 {
			continue
		}
		t.pid, _ = strconv.Atoi(id)
		t.name = line(files, "proc/"+id+"/comm")
		t.unit = parseUnit(text(files, "proc/"+id+"/cgroup"))
	}
}

// isOurs tells whether a socket is a relay's. When its owner cannot be seen, the user decides.
func (f *facts) isOurs(t taken) bool {
	for _, p := range f.running {
		if t.pid == p.pid || t.pid == 0 && t.uid == p.uid && p.uid != f.self.uid {
			return true
		}
	}
	return false
}

// carriers are the devices that have an address of the relay. One on a device that
// nothing arrives on is for all those that something does.
func (f *facts) carriers() []Device {
	var out []Device
	all := false
	for _, d := range f.devices {
		for _, ip := range f.relay.Addresses {
			if slices.Contains(d.Addresses, ip) {
				all = all || !d.arrives() && !ip.IsLoopback()
				out = append(out, d)
				break
			}
		}
	}
	if all {
		out = slices.DeleteFunc(slices.Clone(f.devices), func(d Device) bool { return !d.arrives() || d.Hardware != ethernet || !d.Up })
	}
	return out
}

// arrives tells whether packets for this host come in by a device.
func (d Device) arrives() bool { return !d.Loopback && d.Kind != "dummy" }

// receivers are the devices that packets for the carriers come in by: those below a
// VLAN, a bond or a bridge, where the queues are.
func (f *facts) receivers() []Device {
	var out []Device
	seen := map[int]bool{}
	var visit func(d Device)
	visit = func(d Device) {
		if seen[d.Index] {
			return
		}
		seen[d.Index] = true
		below := f.below(d)
		for _, b := range below {
			visit(b)
		}
		if len(below) == 0 {
			out = append(out, d)
		}
	}
	for _, d := range f.carriers() {
		visit(d)
	}
	return out
}

func (f *facts) below(d Device) []Device {
	var out []Device
	for _, b := range f.devices {
		if b.Index == d.Index {
			continue
		}
		switch d.Kind {
		case "vlan", "macvlan", "ipvlan":
			if b.Index == d.Lower {
				out = append(out, b)
			}
		case "bond", "team", "bridge":
			// Ports of a bridge that lead to guests bring no media from outside.
			if b.Master == d.Index && (b.Kind == "" || b.Kind == "bond" || b.Kind == "vlan" || b.Kind == "team") {
				out = append(out, b)
			}
		}
	}
	return out
}
