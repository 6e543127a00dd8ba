package doctor

import (
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"example.org/mediaproxy/test/internal/program"
)

func TestDevice(t *testing.T) {
	p := newPatient(t)
	f := p.examine()
	f.says("configuration", "pass", "media ports 40000-40099, fast_path = auto")
	f.says("address", "pass", "198.51.100.1 on up0")
	f.says("hook up0", "pass", "up, MTU 1500")
	f.says("hook up0", "pass", "no other programs on it")
	f.says("queues up0", "skip", "veth has no RSS")
	f.says("offloads up0", "pass", "LRO off")

	for _, state := range []string{"on", "off"} {
		p.host.Output("", "ethtool", "-K", "up0", "gro", state)
		p.examine().says("offloads up0", "pass", "GRO "+state+", LRO off")
	}

	p.host.IP("link set up0 mtu 1000")
	p.obey(p.examine().says("hook up0", "warn", "MTU 1000"), "ip link set up0 mtu 1500")
	p.host.IP("link set up0 down")
	p.obey(p.examine().says("hook up0", "fail", "is down"), "ip link set up0 up")
	p.until("hook up0", "pass", "MTU 1500")

	p.host.IP("addr del 198.51.100.1/32 dev up0", "addr add 198.51.100.9/32 dev up0")
	p.examine().mends("address", "fail", "198.51.100.1 is not an address of this host",
		"set relay_ip = 198.51.100.9; if phones reach it as 198.51.100.1, advertised_ip = 198.51.100.1")
}

// A link whose other end is down, and a tunnel, which has no Ethernet.
func TestOtherDevices(t *testing.T) {
	p := newPatient(t)
	other := p.lab.Namespace("other")
	p.lab.Join(p.host, "far0", other, "far1")
	other.IP("link set far1 down")
	p.host.IP("addr del 198.51.100.1/32 dev up0", "addr add 198.51.100.1/32 dev far0")
	p.until("hook far0", "fail", "no link")
	other.IP("link set far1 up")
	p.until("hook far0", "pass", "up")

	p.host.IP("addr del 198.51.100.1/32 dev far0", "tuntap add dev tun0 mode tun", "link set tun0 up", "addr add 198.51.100.1/32 dev lo")
	f := p.examine()
	f.says("address", "pass", "198.51.100.1 on lo")
	f.says("hook up0", "pass", "up, MTU 1500") // it may arrive there
	f.says("hook far0", "pass", "up, MTU 1500")

	// Its link is there as long as a program has it open.
	file, err := openTunnel(p.host, "tun0")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	p.host.IP("addr del 198.51.100.1/32 dev lo", "addr add 198.51.100.1/32 dev tun0")
	p.until("hook tun0", "warn", "is not Ethernet: its packets are moved in user space")
}

// A VLAN's queues are those of the device below it; here it is a macvlan.
func TestDeviceBelow(t *testing.T) {
	p := newPatient(t)
	p.host.IP("addr del 198.51.100.1/32 dev up0", "link add link up0 name top0 type macvlan", "link set top0 up", "addr add 198.51.100.1/32 dev top0")
	f := p.examine()
	f.says("hook top0", "pass", "up, MTU 1500")
	f.says("queues up0", "skip", "veth has no RSS")
	if r, ok := f.results["queues top0"]; ok {
		t.Errorf("a macvlan has no queues, got %+v", r)
	}
}

func TestOthersPrograms(t *testing.T) {
	p := newPatient(t)
	p.host.Output("", "tc", "qdisc", "add", "dev", "up0", "clsact")
	p.host.Output("", "tc", "filter", "add", "dev", "up0", "egress", "u32", "match", "u32", "0", "0")
	p.examine().says("hook up0", "pass", "beside: tc egress u32")
	attach(t, p.host, "up0", "doctor_xdp", xdpProgram, xdpPlace)
	f := p.examine()
	f.says("hook up0", "pass", "XDP doctor_xdp")
	attach(t, p.host, "up0", "doctor_tcx", tcProgram, tcxPlace)
	p.examine().says("hook up0", "pass", "tcx ingress doctor_tcx")
}

func TestForeignSockets(t *testing.T) {
	p := newPatient(t)
	p.examine().says("ports", "pass", "no other program has one of 40000-40099")
	for _, a := range []string{"127.0.0.1:40002", "198.51.100.1:40100", "198.51.100.1:39999"} {
		listen(t, p, a) // not in the way
	}
	p.examine().says("ports", "pass", "no other program")
	self, err := os.ReadFile("/proc/self/comm")
	if err != nil {
		t.Fatal(err)
	}
	name := fmt.Sprintf("%s (pid %d)", strings.TrimSpace(string(self)), os.Getpid())
	listen(t, p, "198.51.100.1:40010")
	p.examine().says("ports", "warn", name+" has 40010: no call gets these ports")
	listen(t, p, "[::]:40013")
	p.examine().says("ports", "warn", name+" has 40010 40013: no call gets these ports")

	f := p.examine(plain...)
	f.says("ports", "warn", "a program of user 0 has 40010 40013")
	f.says("firewall", "skip", "operation not permitted")
	f.says("capabilities", "warn", "this process lacks CAP_BPF, CAP_NET_ADMIN, CAP_NET_RAW")
}

// A tunnel's socket is the kernel's.
func TestTunnelSocket(t *testing.T) {
	p := newPatient(t)
	p.host.IP("link add vx0 type vxlan id 1 dstport 40020 dev up0", "link set vx0 up")
	p.examine().says("ports", "warn", "the kernel, or a program outside of this container, has 40020: no call")
}

func listen(t *testing.T, p *patient, a string) {
	t.Helper()
	c, err := p.host.ListenUDP(netip.MustParseAddrPort(a))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
}

// What a relay has is not in its way, whoever looks; its rights are those that count.
func TestRunningRelay(t *testing.T) {
	for _, way := range []string{"auto", "clsact", "off"} {
		t.Run(way, func(t *testing.T) {
			p := newPatient(t, "fast_path = "+way)
			pair := program.Start(t, p.binary, p.host, program.Settings{"relay_ip": relayIP.String(), "port_range": "40000:40100", "fast_path": way})
			port := holdCall(t, pair.Socket)
			f := p.examine()
			f.says("ports", "pass", "no other program has one")
			f.says("reserved ports", "pass", "40000-40099 is in net.ipv4.ip_local_reserved_ports") // the relay's own work
			relay := fmt.Sprintf("the running relay (pid %d)", pair.RelayPID())
			f.says("descriptors", "pass", relay+" may have")
			if way == "off" {
				if c, err := p.host.ListenUDP(netip.AddrPortFrom(relayIP, port)); err == nil {
					c.Close()
					t.Errorf("the relay has no socket at port %d, so nothing was shown", port)
				}
			} else {
				f.says("capabilities", "pass", relay+" has CAP_BPF")
				f.says("hook up0", "pass", "no other programs on it")
				if !strings.Contains(pair.RelayLog(), "decided flows are moved inside the kernel") {
					t.Error("the relay has no program there, so nothing was shown")
				}
				p.examine(plain...).says("capabilities", "pass", relay)
			}
			taken := listenFree(t, p)
			p.examine().says("ports", "warn", fmt.Sprintf("has %d: no call", taken))
		})
	}
}

func TestReservedPorts(t *testing.T) {
	p := newPatient(t)
	const file = "/proc/sys/net/ipv4/ip_local_reserved_ports"
	p.host.Output("", "sh", "-ec", "echo 8080,40050-40200 > "+file)
	mend := p.examine().says("reserved ports", "warn", "may get one of 40000-40099")
	p.obey(mend, "sysctl -w net.ipv4.ip_local_reserved_ports=8080,40000-40200")
	p.examine().says("reserved ports", "pass", "40000-40099 is in")
	p.host.Output("", "sh", "-ec", "echo > "+file+"; echo 10000 39999 > /proc/sys/net/ipv4/ip_local_port_range")
	p.examine().says("reserved ports", "pass", "the system hands out 10000-39999")
}

func TestFirewall(t *testing.T) {
	p := newPatient(t)
	p.examine().says("firewall", "pass", "no rules for what comes in; decided streams bypass INPUT, FORWARD and conntrack")
	p.host.NFT(`table inet guard {
		chain in { type filter hook input priority 0; policy drop; tcp dport 22 accept; }
		chain out { type filter hook output priority 0; policy accept; tcp dport 22 accept; }
		chain other { tcp dport 22 accept; }
	}
	table ip closed {
		chain in { type filter hook input priority 0; policy drop; }
	}
	table ip idle {
		chain in { type filter hook input priority 0; policy accept; }
	}`)
	const open = "nft insert rule inet guard in udp dport 40000-40099 accept && nft insert rule ip closed in udp dport 40000-40099 accept"
	f := p.examine()
	f.says("firewall", "pass", "for the others: "+open)
	if got := f.results["firewall"].Found; !strings.HasSuffix(got, open) {
		t.Errorf("more than the two chains that count: %q", got)
	}
	p.host.Output("", "sh", "-ec", open)
}

// What is for people is the same as what is for programs.
func TestText(t *testing.T) {
	p := newPatient(t, "bogus = 1") // is only a warning
	var out []byte
	if err := p.host.Do(func() (err error) {
		out, err = exec.Command(p.binary, "doctor", "--config-dir", p.config).Output()
		return err
	}); err != nil {
		t.Logf("%v", err) // depends on the host's bpffs and disk
	}
	digits := regexp.MustCompile("[0-9]+") // the free space changes
	text := digits.ReplaceAllString(string(out), "0")
	for _, r := range p.examine().results {
		if !strings.Contains(text, digits.ReplaceAllString(r.Found, "0")+"\n") || !strings.Contains(text, digits.ReplaceAllString(r.Mend, "0")+"\n") {
			t.Errorf("%+v is not in\n%s", r, text)
		}
	}
	if err := os.WriteFile(filepath.Join(p.config, "config.ini"), []byte("[Relay]\nrelay_ip = 198.51.100.1\nidle_timeout = soon\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	p.examine().mends("configuration", "fail", "mistakes", "mediaproxy check --for relay --config-dir "+p.config)
}
