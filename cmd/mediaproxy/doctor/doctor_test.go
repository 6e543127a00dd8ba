package doctor

import (
	"bytes"
	"encoding/json"
	"errors"
	"io/fs"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// want is what a check must say: its verdict, part of what it found, all of what mends it.
type want struct {
	check   string
	verdict Verdict
	found   string
	mend    string
}

// scene is the good host with something changed, and every check that then differs.
type scene struct {
	name   string
	change func(h *recorded, r *Relay)
	want   []want
}

func runScenes(t *testing.T, scenes []scene) {
	for _, c := range scenes {
		t.Run(c.name, func(t *testing.T) {
			h, r := goodHost(), goodRelay()
			c.change(h, &r)
			results := Examine(h, r)
			checkMends(t, results)
			for _, w := range c.want {
				found := false
				for i, got := range results {
					if got.name() != w.check {
						continue
					}
					found = true
					if got.Verdict != w.verdict || !strings.Contains(got.Found, w.found) || got.Mend != w.mend {
						t.Errorf("%s: got %s %q mend %q, want %s %q mend %q", w.check, got.Verdict, got.Found, got.Mend, w.verdict, w.found, w.mend)
					}
					results[i].Verdict = Pass // has been judged
				}
				if !found {
					t.Errorf("there is no check %s", w.check)
				}
			}
			for _, got := range results {
				if got.Verdict != Pass {
					t.Errorf("%s: %s %q, though nothing is said of it", got.name(), got.Verdict, got.Found)
				}
			}
		})
	}
}

// Everything that is wrong has something that mends it, and nothing else has.
func checkMends(t *testing.T, results []Result) {
	t.Helper()
	for _, r := range results {
		if wrong := r.Verdict == Warn || r.Verdict == Fail; wrong != (r.Mend != "") {
			t.Errorf("%s: %s, mend %q", r.name(), r.Verdict, r.Mend)
		}
	}
}

func TestGoodHost(t *testing.T) {
	runScenes(t, []scene{{"good", func(*recorded, *Relay) {}, []want{
		{"configuration", Pass, "media ports 40000-59999, fast_path = auto", ""},
		{"kernel", Pass, "6.12.43+deb13-amd64: fast path by tcx", ""},
		{"capabilities", Pass, "user mediaproxy needs them, too", ""},
		{"bpffs", Pass, "/sys/fs/bpf/mediaproxy is there, and mediaproxy may write to it", ""},
		{"address", Pass, "203.0.113.5 on eth0, 2001:db8::5 on eth0", ""},
		{"hook eth0", Pass, "up, MTU 1500, tcx, no other programs", ""},
		{"offloads eth0", Pass, "GRO on, LRO off", ""},
		{"queues eth0", Pass, "8 receive queues, used by addresses and ports", ""},
		{"ports", Pass, "no other program has one of 40000-59999", ""},
		{"reserved ports", Pass, "is in net.ipv4.ip_local_reserved_ports", ""},
		{"descriptors", Pass, "may have 1048576, all ports in user space need 41000", ""},
		{"firewall", Pass, "no rules for what comes in; decided streams bypass INPUT, FORWARD and conntrack", ""},
		{"forwarding", Pass, "net.ipv4.ip_forward = 0; it is not needed", ""},
		{"clock source", Pass, "tsc", ""},
		{"wall clock", Pass, "synchronised", ""},
		{"state_dir", Pass, "/var/lib/mediaproxy, 5120 MiB free", ""},
	}}})
}

const dropInBPF = `mkdir -p /etc/systemd/system/media-relay.service.d && printf '%s\n' '[Service]' 'AmbientCapabilities=CAP_BPF CAP_NET_ADMIN CAP_NET_RAW' 'CapabilityBoundingSet=CAP_BPF CAP_NET_ADMIN CAP_NET_RAW' > /etc/systemd/system/media-relay.service.d/doctor-ambientcapabilities.conf && systemctl daemon-reload`

// runningRelay adds one as the unit file starts it.
func runningRelay(h *recorded, effective string) {
	h.process("812", 812, "media-relay", 997, effective, effective, "/system.slice/media-relay.service")
}

func TestKernel(t *testing.T) {
	noPath := "this kernel has no fast path"
	old := func(release string) func(h *recorded, r *Relay) {
		return func(h *recorded, r *Relay) { h.write("proc/sys/kernel/osrelease", release+"\n") }
	}
	newer := "install and boot a kernel of 5.15 or later"
	const memlock = "prlimit --pid $$ --memlock=unlimited:unlimited"
	runScenes(t, []scene{
		{"clsact", old("6.1.0-13-amd64"), []want{{"kernel", Pass, "fast path by clsact (tcx from 6.6 on)", ""}, {"hook eth0", Pass, "clsact", ""}}},
		{"first with tcx", old("6.6.0"), []want{{"kernel", Pass, "tcx", ""}}},
		{"floor", old("5.15.0-100-generic"), []want{{"kernel", Pass, "clsact", ""}}},
		{"too old", old("5.14.0-503.el9"), []want{
			{"kernel", Warn, "5.14.0-503.el9: packets are moved in user space, with a socket for each port; the fast path needs 5.15", newer},
			{"capabilities", Skip, noPath, ""}, {"bpffs", Skip, noPath, ""}, {"hook eth0", Skip, noPath, ""}}},
		{"before memory accounting", old("5.10.0-30-amd64"), []want{
			{"kernel", Warn, "user space", newer}, {"memory lock", Warn, "this process may lock 8192 KiB", memlock},
			{"capabilities", Skip, noPath, ""}, {"bpffs", Skip, noPath, ""}, {"hook eth0", Skip, noPath, ""}}},
		{"clsact wanted", func(h *recorded, r *Relay) { r.FastPath = "clsact" }, []want{{"kernel", Pass, "fast path by clsact", ""}, {"hook eth0", Pass, "up, MTU 1500, clsact", ""}}},
		{"sk_lookup wanted", func(h *recorded, r *Relay) { r.FastPath = "sk_lookup" }, []want{
			{"kernel", Pass, "fast_path = sk_lookup: packets are moved in user space", ""},
			{"hook eth0", Skip, "fast_path = sk_lookup", ""}, {"firewall", Pass, "all media passes INPUT", ""}}},
		{"too old for fast_path = tc", func(h *recorded, r *Relay) { old("5.4.0")(h, r); r.FastPath = "tc" }, []want{
			{"kernel", Fail, "user space", newer}, {"memory lock", Warn, "8192 KiB", memlock},
			{"capabilities", Skip, noPath, ""}, {"bpffs", Skip, noPath, ""}, {"hook eth0", Skip, noPath, ""}}},
		{"fast_path = off", func(h *recorded, r *Relay) { old("5.4.0")(h, r); r.FastPath = "off" }, []want{
			{"kernel", Pass, "5.4.0; fast_path = off", ""}, {"memory lock", Skip, "off", ""},
			{"capabilities", Skip, "fast_path = off", ""}, {"bpffs", Skip, "fast_path = off", ""}, {"hook eth0", Skip, "fast_path = off", ""},
			{"firewall", Pass, "all media passes INPUT", ""}}},
		{"not Linux's way of counting", old("six"), []want{
			{"kernel", Warn, `"six" is not understood`, "see what uname -r says"}, {"memory lock", Skip, "not understood", ""}}},
	})
}

func TestCapabilities(t *testing.T) {
	self := func(effective, bounding string) func(h *recorded, r *Relay) {
		return func(h *recorded, r *Relay) {
			h.process("self", 4711, "mediaproxy", 0, effective, bounding, "/user.slice/session-3.scope")
		}
	}
	const setcap = "setcap cap_bpf,cap_net_admin,cap_net_raw+ep /usr/bin/mediaproxy"
	runScenes(t, []scene{
		{"no BPF, in a container", self(noBPF, noBPF), []want{
			{"capabilities", Warn, "this process lacks CAP_BPF: packets are moved in user space", "in a container: --cap-add BPF"}}},
		{"no BPF, fast_path = tc", func(h *recorded, r *Relay) { self(noBPF, noBPF)(h, r); r.FastPath = "tc" }, []want{
			{"capabilities", Fail, "lacks CAP_BPF", "in a container: --cap-add BPF"}}},
		{"no raw sockets", self(noNetRaw, allCaps), []want{
			{"capabilities", Warn, "lacks CAP_NET_RAW: the slow path has a socket for each port", setcap}}},
		{"nothing", self(noCaps, allCaps), []want{
			{"capabilities", Warn, "lacks CAP_BPF, CAP_NET_ADMIN, CAP_NET_RAW: packets are moved in user space", setcap}}},
		{"no raw sockets, fast_path = sk_lookup", func(h *recorded, r *Relay) { self(noNetRaw, allCaps)(h, r); r.FastPath = "sk_lookup" }, []want{
			{"capabilities", Fail, "lacks CAP_NET_RAW: packets are moved in user space, with a socket for each port", setcap},
			{"hook eth0", Skip, "fast_path = sk_lookup", ""}}},
		{"user namespace", func(h *recorded, r *Relay) {
			h.write("proc/self/uid_map", "         0       1000          1\n")
		}, []want{{"capabilities", Warn, "user namespace", "run it as a user of the host: for a container --userns=host"}}},
		{"the running relay counts", func(h *recorded, r *Relay) { runningRelay(h, noCaps) }, []want{
			{"capabilities", Warn, "the running relay (pid 812) lacks CAP_BPF", dropInBPF}}},
		{"the running relay has them", func(h *recorded, r *Relay) { runningRelay(h, allCaps) }, []want{
			{"capabilities", Pass, "the running relay (pid 812) has CAP_BPF, CAP_NET_ADMIN, CAP_NET_RAW", ""}}},
		{"a relay in another network does not", func(h *recorded, r *Relay) {
			runningRelay(h, noCaps)
			h.elsewhere = "812"
		}, []want{{"capabilities", Pass, "this process has", ""}}},
		{"up is a relay, too", func(h *recorded, r *Relay) {
			runningRelay(h, noCaps)
			h.write("proc/812/cmdline", "/usr/bin/mediaproxy\x00up\x00--systemd\x00")
		}, []want{{"capabilities", Warn, "the running relay (pid 812)", dropInBPF}}},
		{"a dispatcher is none", func(h *recorded, r *Relay) {
			runningRelay(h, noCaps)
			h.write("proc/812/cmdline", "/usr/bin/mediaproxy\x00dispatcher\x00")
		}, []want{{"capabilities", Pass, "this process has", ""}}},
		{"no /proc", func(h *recorded, r *Relay) { delete(h.files, "proc/self/status") }, []want{
			{"capabilities", Skip, "/proc does not tell", ""}, {"descriptors", Skip, "/proc does not tell", ""}}},
	})
}

func TestBPFFS(t *testing.T) {
	fresh := func(h *recorded, mode fs.FileMode) {
		h.folders[bpfFolder] = pinned(folder(bpfFolder, 0, mode))
		h.folders[pinFolder] = pinned(missing(folder(pinFolder, 0, 0o755, Step{bpfFolder, 0, 0, mode}), 4))
	}
	// set gives both the same, as a file system does.
	set := func(h *recorded, change func(d *Folder)) {
		for path, d := range h.folders {
			if strings.HasPrefix(path, bpfFolder) {
				change(&d)
				h.folders[path] = d
			}
		}
	}
	const install = "install -d -o mediaproxy /sys/fs/bpf/mediaproxy"
	runScenes(t, []scene{
		{"not mounted", func(h *recorded, r *Relay) { set(h, func(d *Folder) { d.Type = 0x62656572 }) }, []want{
			{"bpffs", Fail, "nothing is mounted at /sys/fs/bpf: without it calls lose their media at a restart", "mount -t bpf bpf /sys/fs/bpf"}}},
		{"not there", func(h *recorded, r *Relay) { h.folders[bpfFolder] = missing(folder(bpfFolder, 0, 0o755), 3) }, []want{
			{"bpffs", Fail, "there is no /sys/fs/bpf", "in a container: --volume /sys/fs/bpf:/sys/fs/bpf"}}},
		{"read-only", func(h *recorded, r *Relay) {
			set(h, func(d *Folder) { d.ReadOnly = true })
		}, []want{{"bpffs", Fail, "read-only", "mount -o remount,rw /sys/fs/bpf"}}},
		{"as systemd mounts it", func(h *recorded, r *Relay) { fresh(h, 0o700) }, []want{
			{"bpffs", Fail, "user mediaproxy may not enter /sys/fs/bpf", "chmod o+x /sys/fs/bpf && " + install}}},
		{"no folder", func(h *recorded, r *Relay) { fresh(h, 0o755) }, []want{
			{"bpffs", Fail, "user mediaproxy has no /sys/fs/bpf/mediaproxy", install}}},
		{"everybody may make one", func(h *recorded, r *Relay) { fresh(h, 0o777) }, []want{
			{"bpffs", Pass, "mounted; mediaproxy makes", ""}}},
		{"somebody else's", func(h *recorded, r *Relay) { h.folders[pinFolder] = pinned(folder(pinFolder, 33, 0o755)) }, []want{
			{"bpffs", Fail, "belongs to somebody else than mediaproxy", install}}},
		{"no bpf_dir", func(h *recorded, r *Relay) { r.BPFDir = "" }, []want{{"bpffs", Skip, "bpf_dir is empty", ""}}},
		{"a file system of its own", func(h *recorded, r *Relay) {
			r.BPFDir = "/run/media/bpf"
			h.folders[r.BPFDir] = pinned(folder(r.BPFDir, 997, 0o700))
		}, []want{{"bpffs", Pass, "/run/media/bpf is there", ""}}},
		{"one that is not mounted", func(h *recorded, r *Relay) {
			r.BPFDir = "/run/media/bpf"
			h.folders[r.BPFDir] = missing(folder(r.BPFDir, 997, 0o700), 3)
		}, []want{{"bpffs", Fail, "nothing is mounted at /run/media/bpf", "mkdir -p /run/media/bpf && mount -t bpf bpf /run/media/bpf"}}},
		{"no service user", func(h *recorded, r *Relay) { h.write("etc/passwd", "root:x:0:0::/root:/bin/sh\n"); fresh(h, 0o700) }, []want{
			{"bpffs", Pass, "mounted; root makes", ""}}},
	})
}

func TestDevices(t *testing.T) {
	eth0 := func(change func(d *Device)) func(h *recorded, r *Relay) {
		return func(h *recorded, r *Relay) { change(&h.devices[1]) }
	}
	runScenes(t, []scene{
		{"down", eth0(func(d *Device) { d.Up = false }), []want{{"hook eth0", Fail, "is down", "ip link set eth0 up"}}},
		{"no link", eth0(func(d *Device) { d.Running = false }), []want{{"hook eth0", Fail, "no link", "ethtool eth0"}}},
		{"small", eth0(func(d *Device) { d.MTU = 1000 }), []want{{"hook eth0", Warn, "MTU 1000 is less than 1280", "ip link set eth0 mtu 1500"}}},
		{"tunnel", eth0(func(d *Device) { d.Hardware, d.Kind = 65534, "tun" }), []want{
			{"hook eth0", Warn, "not Ethernet: its packets are moved in user space", "put relay_ip on an Ethernet device"},
			{"queues eth0", Skip, "tun has no RSS", ""}}},
		{"tunnel, fast_path = tc", func(h *recorded, r *Relay) { h.devices[1].Hardware, r.FastPath = 65534, "tc" }, []want{
			{"hook eth0", Fail, "not Ethernet", "put relay_ip on an Ethernet device"}}},
		{"others' programs", eth0(func(d *Device) { d.Programs = []string{"XDP ddos_filter", "tc ingress u32"} }), []want{
			{"hook eth0", Pass, "tcx beside: XDP ddos_filter, tc ingress u32", ""}}},
		{"loopback", func(h *recorded, r *Relay) { r.Addresses = h.devices[0].Addresses[:1] }, []want{
			{"address", Pass, "127.0.0.1 on lo", ""}, {"hook lo", Skip, "on this host are moved in user space", ""},
			{"offloads lo", Skip, "loopback", ""}, {"queues lo", Skip, "loopback", ""}}},
		{"address for all devices", func(h *recorded, r *Relay) {
			h.devices = append(h.devices, Device{Name: "dummy0", Index: 7, Kind: "dummy", Hardware: ethernet, Up: true, Running: true, MTU: 1500, Addresses: h.devices[1].Addresses},
				Device{Name: "eth1", Index: 8, Hardware: ethernet, MTU: 1500})
			h.devices[1].Addresses = nil
		}, []want{{"address", Pass, "203.0.113.5 on dummy0", ""}, {"hook eth0", Pass, "tcx", ""}}},
		{"public address of a NAT", func(h *recorded, r *Relay) { r.Addresses[0] = netip.MustParseAddr("198.51.100.7") }, []want{
			{"address", Fail, "198.51.100.7 is not an address of this host", "set relay_ip = 203.0.113.5; if phones reach it as 198.51.100.7, advertised_ip = 198.51.100.7"}}},
		{"no address", func(h *recorded, r *Relay) { r.Addresses = nil }, []want{
			{"address", Fail, "no route to the internet", "set relay_ip in section [Relay]"}}},
		{"LRO", eth0(func(d *Device) { d.Offloads.LRO = true }), []want{{"offloads eth0", Warn, "LRO is on", "ethtool -K eth0 lro off"}}},
		{"LRO for good", eth0(func(d *Device) { d.Offloads.LRO, d.Offloads.LROFixed = true, true }), []want{
			{"offloads eth0", Warn, "cannot be changed", "set fast_path = off, or use another network device"}}},
		{"GRO off", eth0(func(d *Device) { d.Offloads.GRO = false }), []want{{"offloads eth0", Pass, "GRO off, LRO off", ""}}},
		{"a silent driver", eth0(func(d *Device) { d.Offloads, d.Channels = nil, nil }), []want{
			{"offloads eth0", Skip, "does not tell", ""}, {"queues eth0", Skip, "does not tell", ""}}},
		{"ports are not hashed", eth0(func(d *Device) { d.Hash4, d.Hash6 = HashAddresses, HashAddresses }), []want{
			{"queues eth0", Warn, "8 receive queues, but all media of a trunk meets in one", "ethtool -N eth0 rx-flow-hash udp4 sdfn && ethtool -N eth0 rx-flow-hash udp6 sdfn"}}},
		{"IPv6 does not matter", func(h *recorded, r *Relay) { h.devices[1].Hash6, r.Addresses = HashAddresses, r.Addresses[:1] }, []want{
			{"queues eth0", Pass, "8 receive queues", ""}}},
		{"only IPv6", func(h *recorded, r *Relay) { h.devices[1].Hash6, r.Addresses = HashAddresses, r.Addresses[1:] }, []want{
			{"queues eth0", Warn, "UDP ports are not hashed", "ethtool -N eth0 rx-flow-hash udp6 sdfn"}}},
		{"hash not told", eth0(func(d *Device) { d.Hash4 = HashUnknown }), []want{{"queues eth0", Skip, "does not tell how", ""}}},
		{"one queue of many", eth0(func(d *Device) { d.Channels.Use, d.Channels.Max = 1, 16 }), []want{
			{"queues eth0", Warn, "1 of 16 receive queues", "ethtool -L eth0 combined 8"},
			{"processors", Pass, "echo ff > /sys/class/net/eth0/queues/rx-0/rps_cpus", ""}}},
		{"only one queue", eth0(func(d *Device) { d.Channels.Use, d.Channels.Max = 1, 1 }), []want{
			{"queues eth0", Pass, "one receive queue", ""}, {"processors", Pass, "8; under load let all receive: echo ff > ", ""}}},
		{"processors not told", func(h *recorded, r *Relay) { delete(h.files, "sys/devices/system/cpu/online") }, []want{
			{"processors", Skip, "not known", ""}}},
		{"no devices", func(h *recorded, r *Relay) { h.devices, h.err = nil, errors.New("refused") }, []want{
			{"address", Skip, "cannot be read: refused", ""}, {"firewall", Skip, "the rules cannot be read (refused)", ""}, {"wall clock", Skip, "refused", ""}}},
	})
}

// Queues and offloads are those of the device below a VLAN on a bond.
func TestReceivers(t *testing.T) {
	h, r := goodHost(), goodRelay()
	own := h.devices[1].Addresses
	h.devices[1].Addresses, h.devices[1].Master = nil, 4
	second := h.devices[1]
	second.Name, second.Index = "eth1", 3
	h.devices = append(h.devices, second,
		Device{Name: "bond0", Index: 4, Kind: "bond", Hardware: ethernet, Up: true, Running: true, MTU: 1500},
		Device{Name: "bond0.7", Index: 5, Lower: 4, Kind: "vlan", Hardware: ethernet, Up: true, Running: true, MTU: 1500, Addresses: own},
		Device{Name: "veth9", Index: 6, Lower: 4, Kind: "veth", Hardware: ethernet, Up: true, Running: true, MTU: 1500})
	var got []string
	for _, r := range Examine(h, r) {
		if r.Device != "" {
			got = append(got, r.name())
		}
	}
	if diff := cmp.Diff([]string{"hook bond0.7", "offloads eth0", "queues eth0", "offloads eth1", "queues eth1"}, got); diff != "" {
		t.Error(diff)
	}
}

// With RPS on, nothing is to be said; nor when /sys shows another network's device.
func TestSpread(t *testing.T) {
	for path, text := range map[string]string{"sys/class/net/eth0/queues/rx-0/rps_cpus": "ff\n", "sys/class/net/eth0/ifindex": "9\n"} {
		h := goodHost()
		h.devices[1].Channels = &Channels{1, 1, "combined"}
		h.write(path, text)
		if o := processors(gather(h, goodRelay())); o.found != "8" {
			t.Errorf("%s = %q: %q", path, text, o.found)
		}
	}
}

func TestSystem(t *testing.T) {
	const slow = "echo tsc > /sys/devices/system/clocksource/clocksource0/current_clocksource"
	const clocks = "sys/devices/system/clocksource/clocksource0/"
	state := func(d Folder) func(h *recorded, r *Relay) {
		return func(h *recorded, r *Relay) { h.folders["/var/lib/mediaproxy"] = d }
	}
	good := folder("/var/lib/mediaproxy", 997, 0o700)
	full, readOnly := good, good
	full.Free, readOnly.ReadOnly = 7<<20, true
	runScenes(t, []scene{
		{"mistakes in the configuration", func(h *recorded, r *Relay) { r.Problems = errors.New("x") }, []want{
			{"configuration", Fail, "mistakes", "mediaproxy check --for relay"}}},
		{"nftables", func(h *recorded, r *Relay) {
			h.chains = []Chain{{"inet", "filter", "input", 0, true}, {"ip", "empty", "in", 0, false}, {"ip", "filter", "INPUT", 3, false}}
		}, []want{{"firewall", Pass, "decided streams bypass INPUT, FORWARD and conntrack; for the others: nft insert rule inet filter input udp dport 40000-59999 accept && nft insert rule ip filter INPUT udp dport 40000-59999 accept", ""}}},
		{"iptables", func(h *recorded, r *Relay) { h.write("proc/net/ip_tables_names", "nat\nfilter\n") }, []want{
			{"firewall", Pass, "for the others: iptables-legacy -I INPUT -p udp --dport 40000:59999 -j ACCEPT", ""}}},
		{"a router", func(h *recorded, r *Relay) { h.write("proc/sys/net/ipv4/ip_forward", "1\n") }, []want{
			{"forwarding", Pass, "net.ipv4.ip_forward = 1; it is not needed", ""}}},
		{"hpet, tsc is there", func(h *recorded, r *Relay) { h.write(clocks+"current_clocksource", "hpet\n") }, []want{
			{"clock source", Warn, "hpet is slow to read, tsc is there", slow}}},
		{"acpi_pm alone", func(h *recorded, r *Relay) {
			h.write(clocks+"current_clocksource", "acpi_pm\n")
			h.write(clocks+"available_clocksource", "acpi_pm \n")
		}, []want{{"clock source", Warn, "there is no other", "add tsc=reliable to the kernel's command line if this processor's clock is steady"}}},
		{"no clock source", func(h *recorded, r *Relay) { delete(h.files, clocks+"current_clocksource") }, []want{{"clock source", Skip, "does not tell", ""}}},
		{"nobody sets the clock", func(h *recorded, r *Relay) { h.synchronised = false }, []want{{"wall clock", Warn, "accounting", "timedatectl set-ntp true"}}},
		{"nor would systemd", func(h *recorded, r *Relay) { h.synchronised = false; delete(h.files, "run/systemd/system/x") }, []want{
			{"wall clock", Warn, "accounting", "install and start an NTP client: chrony, for example"}}},
		{"somebody else's state", state(folder("/var/lib/mediaproxy", 0, 0o755)), []want{
			{"state_dir", Fail, "user mediaproxy may not write to /var/lib/mediaproxy", "chown mediaproxy /var/lib/mediaproxy"}}},
		{"state of a group", state(folder("/var/lib/mediaproxy", 0, 0o770, Step{"/var/lib/mediaproxy", 0, 997, 0o770})), nil},
		{"no state yet", state(missing(good, 3)), []want{
			{"state_dir", Warn, "there is no /var/lib/mediaproxy, and user mediaproxy may not make it", "install -d -m 700 -o mediaproxy /var/lib/mediaproxy"}}},
		{"state can be made", state(missing(folder("/var/lib/mediaproxy", 0, 0, Step{"/var/lib", 997, 997, 0o755}), 3)), []want{
			{"state_dir", Pass, "/var/lib/mediaproxy will be made", ""}}},
		{"full disk", state(full), []want{{"state_dir", Warn, "only 7 MiB free", "du -xhd1 /var/lib/mediaproxy | sort -h"}}},
		{"read-only disk", state(readOnly), []want{{"state_dir", Fail, "read-only", "mount -o remount,rw /var/lib/mediaproxy"}}},
	})
}

func TestPrint(t *testing.T) {
	results := []Result{
		{"kernel", "", Pass, "6.12: fast path by tcx", ""},
		{"hook", "eth0", Fail, "is down", "ip link set eth0 up"},
		{"ports", "", Warn, "\x1b[31mevil (pid 7) has 41000", "move it"},
	}
	var text, document bytes.Buffer
	if err := errors.Join(Print(&text, results), PrintJSON(&document, results)); err != nil {
		t.Fatal(err)
	}
	want := `pass  kernel     6.12: fast path by tcx
fail  hook eth0  is down
                 ip link set eth0 up
warn  ports      ?[31mevil (pid 7) has 41000
                 move it
`
	if diff := cmp.Diff(want, text.String()); diff != "" {
		t.Error(diff)
	}
	var got []map[string]string
	if err := json.Unmarshal(document.Bytes(), &got); err != nil {
		t.Fatalf("%v: %s", err, &document)
	}
	wantJSON := []map[string]string{
		{"check": "kernel", "verdict": "pass", "found": "6.12: fast path by tcx"},
		{"check": "hook", "device": "eth0", "verdict": "fail", "found": "is down", "mend": "ip link set eth0 up"},
		{"check": "ports", "verdict": "warn", "found": "\x1b[31mevil (pid 7) has 41000", "mend": "move it"},
	}
	if diff := cmp.Diff(wantJSON, got); diff != "" {
		t.Error(diff)
	}
	if lines := strings.Count(document.String(), "\n"); lines != len(results)+2 {
		t.Errorf("%d lines, want a document on each: %s", lines, &document)
	}
	if got := Summary(results); got != "1 failed, 1 warned, 1 passed, 0 skipped" {
		t.Error(got)
	}
}
