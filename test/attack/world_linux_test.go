package attack

import (
	"fmt"
	"net/netip"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"example.org/mediaproxy/internal/report"
	"example.org/mediaproxy/test/internal/module"
	"example.org/mediaproxy/test/internal/netlab"
	"example.org/mediaproxy/test/internal/phone"
	"example.org/mediaproxy/test/internal/program"
)

// The addresses look public because the relay treats private ones differently; they
// exist in the lab only.
var (
	relayIP  = addr("45.8.0.9")
	private  = netip.MustParsePrefix("192.168.1.0/24") // behind every NAT
	directly = netip.MustParsePrefix("10.9.0.0/24")    // behind the relay's other interface
)

const (
	firstPort = 40000
	endPort   = 41000
	modules   = 8 // processes of the SIP proxy
)

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }

// place is where a phone can be.
type place struct {
	name string
	host *netlab.Host
	ips  []netip.Addr // of phones
	// sip is where their SIP messages come from; invalid: from the phone's own address
	sip netip.Addr
	// router is the NAT in front of them, nil if none.
	router *netlab.Host
}

func (p *place) ip(i int) netip.Addr { return p.ips[i%len(p.ips)] }

// world is an internet with a relay, phones and attackers.
type world struct {
	t       *testing.T
	pair    *program.Pair
	studio  *phone.Studio
	clients chan *module.Client

	callers, callees []*place
	mobile           []*place // NATs that phones move between

	everyPort []*sprayer
	onHold    []*sprayer // aimed at the ports of held calls
	heavy     []*sprayer // aimed at the ports of phones that move; see attackHeavily
	lab       *netlab.Lab
	meters    map[string]*netlab.Meter

	// owners is who has a port of the relay: uint16 to *call. Ports rest after a call,
	// so the last owner is right for a while after it.
	owners     sync.Map
	unassigned atomic.Uint64 // packets that attackers heard from ports of no call
}

// rates of attack, in packets per second and port.
const (
	rtpRate   = 20
	otherRate = 5 // each of RTCP and STUN, from each of two addresses
)

// newWorld starts everything, the attack included.
func newWorld(t *testing.T, binary string, relay program.Settings) *world {
	t.Helper()
	w := newQuietWorld(t, binary, relay)
	w.buildAttackers()
	return w
}

// newQuietWorld starts everything but the attack.
func newQuietWorld(t *testing.T, binary string, relay program.Settings) *world {
	t.Helper()
	takePrecedence(t)
	w := &world{t: t, studio: phone.NewStudio(), clients: make(chan *module.Client, modules), meters: map[string]*netlab.Meter{}}
	t.Cleanup(w.studio.Close)
	w.lab = netlab.New(t)
	host := w.lab.Host("relay", relayIP)
	w.buildPlaces(w.lab, host)
	settings := program.Settings{
		"relay_ip": relayIP.String(), "port_range": fmt.Sprintf("%d:%d", firstPort, endPort), "routable_private_ranges": directly.String(),
	}
	for k, v := range relay {
		settings[k] = v
	}
	w.pair = program.Start(t, binary, host, settings)
	for range modules {
		c, err := module.Dial(w.pair.Socket, module.Timeout)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		w.clients <- c
	}
	return w
}

// takePrecedence lets this process, and those it starts from now on, run before others:
// calls are judged by when their packets were sent.
func takePrecedence(t *testing.T) {
	t.Helper()
	threads, err := os.ReadDir("/proc/self/task")
	if err != nil {
		t.Fatal(err)
	}
	for _, thread := range threads {
		id, err := strconv.Atoi(thread.Name())
		if err != nil {
			t.Fatal(err)
		}
		// One that has ended since is no loss. Later threads take after these.
		unix.Setpriority(unix.PRIO_PROCESS, id, -10)
	}
}

func (w *world) buildPlaces(lab *netlab.Lab, relay *netlab.Host) {
	inside := []netip.Addr{addr("192.168.1.5"), addr("192.168.1.6"), addr("192.168.1.7")}
	nat := func(name, public string) *place {
		router, host := lab.NAT(name, addr(public), private, inside...)
		return &place{name: name, host: host, ips: inside, sip: addr(public), router: router}
	}
	public := func(name string, ips ...string) *place {
		p := &place{name: name}
		for _, ip := range ips {
			p.ips = append(p.ips, addr(ip))
		}
		p.host = lab.Host(name, p.ips...)
		return p
	}
	lan := &place{name: "lan", host: lab.Namespace("lan"), ips: []netip.Addr{addr("10.9.0.20"), addr("10.9.0.21")}}
	lab.Behind(relay, directly, lan.host, lan.ips...)
	w.callers = []*place{public("callers", "45.20.1.11", "45.20.1.12", "45.20.1.13", "45.20.1.14"), nat("nat-a", "45.20.1.40"), lan}
	w.callees = []*place{public("callees", "45.30.7.11", "45.30.8.12", "45.20.1.15"), nat("nat-b", "45.31.9.40"), lan}
	w.mobile = []*place{nat("nat-c", "45.32.9.40"), nat("nat-d", "45.33.2.40")}
}

// attacker is a host whose received packets are counted.
func (w *world) attacker(name string, ips ...netip.Addr) *netlab.Host {
	h := w.lab.Host(name, ips...)
	w.meters[name] = h.Meter("heard", relayIP)
	return h
}

// spray starts an attack from a host.
func (w *world) spray(host *netlab.Host, from netip.Addr, weapon weapon, rate int, ports []uint16) *sprayer {
	w.t.Helper()
	s, err := spray(host, from, relayIP, weapon, rate, ports, func(port uint16, packet []byte) { w.leak(host.Name(), port, packet) })
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(s.close)
	return s
}

func (w *world) buildAttackers() {
	var every []uint16
	for p := firstPort; p < endPort; p++ {
		every = append(every, uint16(p))
	}
	unrelated, near := addr("45.99.0.66"), addr("45.20.1.66")
	a, b := w.attacker("a", unrelated), w.attacker("b", near)
	w.everyPort = append(w.everyPort, w.spray(a, unrelated, rtpWeapon, rtpRate, every), w.spray(b, near, rtpWeapon, rtpRate, every))
	unrelated, near = addr("45.99.1.66"), addr("45.20.1.67")
	c := w.attacker("c", unrelated, near)
	w.onHold = append(w.onHold, w.spray(c, unrelated, rtpWeapon, rtpRate, nil), w.spray(c, near, rtpWeapon, rtpRate, nil))
	unrelated, near = addr("45.99.2.66"), addr("45.20.1.68")
	d := w.attacker("d", unrelated, near)
	for _, from := range []netip.Addr{unrelated, near} {
		w.everyPort = append(w.everyPort, w.spray(d, from, rtcpWeapon, otherRate, every), w.spray(d, from, stunWeapon, otherRate, every))
	}
}

// attackHeavily adds an attacker that has the ports it is aimed at to itself.
func (w *world) attackHeavily() {
	from := addr("45.99.3.66")
	w.heavy = append(w.heavy, w.spray(w.attacker("e", from), from, rtpWeapon, heavily, nil))
}

// checkMover fails the test unless media was moved as it says.
func (w *world) checkMover(way string) {
	w.t.Helper()
	relays, err := program.Documents[report.Relay](w.pair, "summary")
	if err != nil || len(relays) != 1 {
		w.t.Fatalf("summary: %+v, %v", relays, err)
	}
	m := relays[0].Moved
	if way == kernel && (m.Mover != "tc" || m.KernelPackets < m.Packets*8/10) || way == userSpace && (m.Mover != "user-space" || m.KernelPackets != 0) {
		w.t.Errorf("fast_path = %s: %+v", way, m)
	}
	w.t.Logf("the relay moved %d packets, of these %d inside the kernel", m.Packets, m.KernelPackets)
}

// leak notes what an attacker heard.
func (w *world) leak(attacker string, port uint16, packet []byte) {
	owner, ok := w.owners.Load(port)
	if !ok {
		w.unassigned.Add(1)
		return
	}
	owner.(*call).leak(fmt.Sprintf("attacker %s heard %q from port %d", attacker, packet[:min(len(packet), 40)], port))
}

// metered is what all attackers have heard since the world began, whether or not they
// listened.
func (w *world) metered() (n uint64) {
	for _, m := range w.meters {
		n += m.Packets()
	}
	return n
}

// checkAttack fails the test when the attack was weaker than it should have been: then
// its result says nothing.
func (w *world) checkAttack(since time.Time) {
	w.t.Helper()
	elapsed := time.Since(since).Seconds()
	for _, s := range w.everyPort {
		want := elapsed * float64((endPort-firstPort)*s.rate)
		if got := float64(s.sent.Load()); got < want/2 {
			w.t.Errorf("attacker %s sent %.0f packets in %.0f s, want about %.0f: this machine is too busy for this test", s.name, got, elapsed, want)
		}
	}
}
