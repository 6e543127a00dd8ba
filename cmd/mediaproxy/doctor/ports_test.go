package doctor

import (
	"net/netip"
	"testing"
)

func TestPorts(t *testing.T) {
	nc := func(h *recorded) {
		h.process("77", 77, "nc", 0, allCaps, allCaps, "/user.slice/user-0.slice/session-3.scope")
		h.socket("77", "203.0.113.5:41000", 0, 501)
		h.socket("77", "0.0.0.0:41002", 0, 502)
	}
	const move = "give that program another port, or set port_range to ports that are free"
	runScenes(t, []scene{
		{"somebody's socket", func(h *recorded, r *Relay) { nc(h) }, []want{
			{"ports", Warn, "nc (pid 77) has 41000 41002: no call gets these ports", move}}},
		{"at other addresses or ports", func(h *recorded, r *Relay) {
			nc(h)
			h.write("proc/net/udp", udpLine("127.0.0.1:41000", 0, 501)+udpLine("203.0.113.5:39999", 0, 502)+udpLine("0.0.0.0:60000", 0, 502))
		}, nil},
		{"a service's, IPv6", func(h *recorded, r *Relay) {
			h.process("90", 90, "chronyd", 100, noCaps, noCaps, "/system.slice/chrony.service")
			h.socket("90", "[::]:50001", 100, 601)
			h.write("proc/sys/net/ipv4/ip_local_reserved_ports", "8080\n")
		}, []want{
			{"ports", Warn, "chronyd (pid 90) has 50001", "sysctl -w net.ipv4.ip_local_reserved_ports=8080,40000-59999 && systemctl restart chrony.service"},
			{"reserved ports", Warn, "may get one of 40000-59999", "sysctl -w net.ipv4.ip_local_reserved_ports=8080,40000-59999"}}},
		{"the relay's own", func(h *recorded, r *Relay) {
			runningRelay(h, allCaps)
			h.socket("812", "203.0.113.5:41000", 997, 701)
		}, nil},
		{"the relay's own, seen by an ordinary user", func(h *recorded, r *Relay) {
			h.process("self", 4711, "mediaproxy", 1000, noCaps, allCaps, "/user.slice/session-3.scope")
			h.folders["/var/lib/mediaproxy"] = folder("/var/lib/mediaproxy", 997, 0o700)
			runningRelay(h, allCaps)
			h.socket("", "203.0.113.5:41000", 997, 701)
		}, nil},
		{"a tunnel's, with a relay of the same user", func(h *recorded, r *Relay) {
			h.process("812", 812, "media-relay", 0, allCaps, allCaps, "/system.slice/media-relay.service")
			h.socket("", "0.0.0.0:41000", 0, 701)
		}, []want{{"ports", Warn, "the kernel, or a program outside of this container, has 41000", move}}},
		{"a stranger's, seen by an ordinary user", func(h *recorded, r *Relay) {
			h.process("self", 4711, "mediaproxy", 1000, allCaps, allCaps, "/user.slice/session-3.scope")
			h.folders["/var/lib/mediaproxy"] = folder("/var/lib/mediaproxy", 1000, 0o700)
			h.folders[pinFolder] = pinned(folder(pinFolder, 1000, 0o700))
			h.socket("", "203.0.113.5:41000", 33, 701)
		}, []want{{"ports", Warn, "a program of user 33 has 41000", "run mediaproxy doctor as root: it then names the program"}}},
		{"many", func(h *recorded, r *Relay) {
			for i, id := range []string{"21", "22", "23", "24", "25"} {
				h.process(id, 21+i, "x"+id, 0, allCaps, allCaps, "/")
				for n := range 5 {
					h.socket(id, netip.AddrPortFrom(r.Addresses[0], uint16(41000+10*i+n)).String(), 0, uint64(1000+10*i+n))
				}
			}
		}, []want{{"ports", Warn, "x21 (pid 21) has 41000 41001 41002 and 2 more, x22 (pid 22) has 41010 41011 41012 and 2 more, x23 (pid 23) has 41020 41021 41022 and 2 more and 2 more: no", move}}},
		{"not reserved", func(h *recorded, r *Relay) { h.write("proc/sys/net/ipv4/ip_local_reserved_ports", "\n") }, []want{
			{"reserved ports", Warn, "any program", "sysctl -w net.ipv4.ip_local_reserved_ports=40000-59999"}}},
		{"automatic ports are elsewhere", func(h *recorded, r *Relay) {
			h.write("proc/sys/net/ipv4/ip_local_reserved_ports", "\n")
			h.write("proc/sys/net/ipv4/ip_local_port_range", "10000\t39999\n")
		}, []want{{"reserved ports", Pass, "not needed: the system hands out 10000-39999", ""}}},
	})
}

func TestDescriptors(t *testing.T) {
	limit := func(id, n string) func(h *recorded, r *Relay) {
		return func(h *recorded, r *Relay) {
			h.write("proc/"+id+"/limits", "Max open files            1024                 "+n+"                files     \n")
		}
	}
	noRaise := "000001fffeffffff" // all but CAP_SYS_RESOURCE
	runScenes(t, []scene{
		{"root may raise it", limit("self", "20000"), []want{{"descriptors", Pass, "may raise its limit of 20000 to the 41000", ""}}},
		{"in a container", func(h *recorded, r *Relay) {
			h.process("self", 1, "mediaproxy", 0, noRaise, noRaise, "/")
			limit("self", "20000")(h, r)
		}, []want{{"descriptors", Warn, "may have 20000, all ports in user space need 41000", "in a container: --ulimit nofile=41000:41000"}}},
		{"without the right to raise it", func(h *recorded, r *Relay) {
			h.process("self", 1, "mediaproxy", 0, noRaise, allCaps, "/user.slice/session-3.scope")
			limit("self", "4096")(h, r)
		}, []want{{"descriptors", Warn, "may have 4096", "prlimit --pid $$ --nofile=41000:41000"}}},
		{"a unit", func(h *recorded, r *Relay) {
			runningRelay(h, "0000008000003000")
			limit("812", "20000")(h, r)
		}, []want{{"descriptors", Warn, "the running relay (pid 812) may have 20000",
			`mkdir -p /etc/systemd/system/media-relay.service.d && printf '%s\n' '[Service]' 'LimitNOFILE=41000' > /etc/systemd/system/media-relay.service.d/doctor-limitnofile.conf && systemctl daemon-reload`}}},
		{"a low ceiling", func(h *recorded, r *Relay) { h.write("proc/sys/fs/nr_open", "30000\n") }, []want{
			{"descriptors", Warn, "no process may have more than 30000", "sysctl -w fs.nr_open=41000"}}},
		{"unlimited", limit("self", "unlimited"), nil},
	})
}
