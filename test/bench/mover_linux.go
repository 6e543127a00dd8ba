package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"example.org/mediaproxy/test/bench/traffic"
)

// mover is one way of relaying, on a host of its own.
type mover struct {
	name   string
	calls  int
	turn   uint64        // packets of one turn
	settle time.Duration // traffic before a turn
	begin  func(*settings, *mover) error

	bed     *traffic.Bed
	board   switchboard
	pid     int // of the relay, 0: it has no process
	cluster *cluster
	closers []func()

	sent, arrived uint64
	senderTime    time.Duration
	took          []float64 // ns of the processor for a packet, each turn
}

// title is the mover's name for people.
func (m *mover) title() string {
	return map[string]string{"tc": "in the kernel", "sk_lookup": "sk_lookup", "off": "bound sockets"}[m.name]
}

// start makes the host, the relay and its calls, and lets every phone be heard.
func (m *mover) start(s *settings) (err error) {
	if m.bed, err = traffic.NewBed(); err != nil {
		return err
	}
	if err := m.begin(s, m); err != nil {
		return err
	}
	if m.cluster != nil {
		defer m.cluster.explain(&err)
	}
	var callers, callees []traffic.Stream
	for i := range m.calls {
		caller, callee := phonesOf(i)
		ports, err := m.board.setUp(callID("path", i), caller, callee)
		if err != nil {
			return fmt.Errorf("call %d of %d: %w", i+1, pathCalls, err)
		}
		callers = append(callers, traffic.Stream{From: caller, To: ports.fromCaller, SSRC: uint32(2*i + 1)})
		callees = append(callees, traffic.Stream{From: callee, To: ports.fromCallee, SSRC: uint32(2*i + 2)})
	}
	if n, ok := m.board.(*nat); ok {
		if err := n.install(); err != nil {
			return err
		}
	}
	// Each caller speaks before its callee: an entry of NAT begins with the caller.
	if err := m.bed.SetStreams(append(callers, callees...)); err != nil {
		return err
	}
	// A relay may drop what comes before it knows where to send it. Packets of so many
	// streams need as long as those of the 500 calls for which this is a second.
	if err := m.send(uint64(100*m.calls), steadyPace); err != nil {
		return err
	}
	m.sent, m.arrived = 0, 0
	if m.name == "rtpengine" {
		return m.steady(settleTime) // it makes up its mind about addresses
	}
	return nil
}

// steadyPace is how often the phones of pathCalls send, all together.
const steadyPace = 50 * 2 * pathCalls

// steady sends as often as phones do.
func (m *mover) steady(d time.Duration) error {
	return m.send(uint64(steadyPace*d/time.Second), steadyPace)
}

// phonesOf are the two phones of a call.
func phonesOf(call int) (caller, callee netip.AddrPort) {
	of := func(network byte) netip.AddrPort {
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, network, byte(call >> 8), byte(call)}), 4000)
	}
	return of(18), of(19)
}

func (m *mover) end() {
	for _, c := range m.closers {
		c()
	}
	if m.bed != nil {
		m.bed.Close()
	}
}

// nowhere has calls that nobody relays.
type nowhere struct{}

func (nowhere) setUp(_ string, _, _ netip.AddrPort) (callPorts, error) {
	any := netip.AddrPortFrom(traffic.RelayAddr, relayPorts)
	return callPorts{any, any}, nil
}

func (nowhere) tearDown(string) error { return nil }

func beginDoor(_ *settings, m *mover) error {
	m.board = nowhere{}
	return m.bed.ShutDoor()
}

func beginNAT(_ *settings, m *mover) error {
	m.board = &nat{bed: m.bed}
	return nil
}

func beginOurs(fastPath string) func(*settings, *mover) error {
	return func(s *settings, m *mover) error {
		c, err := startCluster(s, place{bed: m.bed, core: m.core(), wide: m.calls > pathCalls}, fastPath)
		if err != nil {
			return err
		}
		m.cluster, m.pid = c, c.relay.pid()
		m.closers = append(m.closers, c.stop)
		p, err := dialProxy(c.socket)
		if err != nil {
			return err
		}
		m.closers = append(m.closers, func() { p.Close() })
		m.board = module{p}
		return nil
	}
}

func beginEngine(s *settings, m *mover) error {
	e, err := startEngine(s, place{bed: m.bed, core: pathCore()}, "--num-threads=1")
	if err != nil {
		return err
	}
	m.closers = append(m.closers, e.stop)
	m.board, m.pid = e, e.pid()
	return nil
}

// core is the processor of the relay; with many calls it may have any.
func (m *mover) core() int {
	if m.calls > pathCalls {
		return -1
	}
	return pathCore()
}

func (m *mover) send(packets uint64, perSecond int) error {
	sent, err := m.bed.Send(pathCore(), packets, perSecond)
	m.sent, m.arrived, m.senderTime = m.sent+sent.Packets, m.arrived+sent.Arrived, m.senderTime+sent.CPU
	return err
}

func (m *mover) cpu() (time.Duration, error) {
	if m.pid == 0 {
		return 0, nil
	}
	return traffic.CPUTime(m.pid)
}

// proof is why a mover's figures are not what they say: packets were lost, or
// something else moved them.
func (m *mover) proof() error {
	if lost := float64(m.sent-m.arrived) / float64(m.sent); lost > maxLost {
		return fmt.Errorf("%s lost %.1f %% of the packets", m.name, 100*lost)
	}
	if m.cluster == nil {
		return nil
	}
	inKernel, all, by, err := m.cluster.moved(m.calls)
	if err != nil {
		return err
	}
	word, kernel := "user-space", uint64(0)
	if m.name == "tc" {
		word, kernel = "tc", m.arrived
	}
	sockets, err := descriptors(m.pid)
	if err != nil {
		return err
	}
	few := sockets < maxDescriptors
	switch {
	case all < m.arrived || inKernel < kernel || kernel == 0 && inKernel > 0:
		err = fmt.Errorf("%d packets arrived, the relay moved %d, %d of them in the kernel", m.arrived, all, inKernel)
	case len(by) != 1 || by[word] != 2*m.calls:
		err = fmt.Errorf("the %d flows are moved by %v", 2*m.calls, by)
	case few != (m.name != "off"):
		err = fmt.Errorf("the relay has %d descriptors", sockets)
	}
	if err != nil {
		return fmt.Errorf("fast_path = %s: %w", m.name, err)
	}
	return nil
}

// moved says how many packets a relay moved, how many of them inside the kernel, and
// how many flows each mover has now.
func (c *cluster) moved(calls int) (inKernel, all uint64, by map[string]int, err error) {
	m, err := c.manage()
	if err != nil {
		return 0, 0, nil, err
	}
	defer m.Close()
	type quality struct {
		Mover string `json:"mover"`
	}
	var relays []struct {
		Packets       uint64 `json:"packets"`
		KernelPackets uint64 `json:"kernel_packets"`
	}
	ask := func(command string, into any) error {
		line, err := m.ask(command)
		if err != nil {
			return err
		}
		if err := json.Unmarshal(line, into); err != nil {
			return fmt.Errorf("read %s: %w: %.100s", command, err, line)
		}
		return nil
	}
	if err := ask("summary", &relays); err != nil {
		return 0, 0, nil, err
	}
	by = map[string]int{}
	for i := range calls {
		var sessions []struct {
			Streams []struct {
				Caller quality `json:"caller_quality"`
				Callee quality `json:"callee_quality"`
			} `json:"streams"`
		}
		if err := ask("session "+callID("path", i), &sessions); err != nil {
			return 0, 0, nil, err
		}
		for _, s := range sessions {
			for _, st := range s.Streams {
				by[st.Caller.Mover]++
				by[st.Callee.Mover]++
			}
		}
	}
	if len(relays) != 1 {
		return 0, 0, nil, fmt.Errorf("%d relays in the summary", len(relays))
	}
	return relays[0].KernelPackets, relays[0].Packets, by, nil
}

// descriptors of a process that are open.
func descriptors(pid int) (int, error) {
	names, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	return len(names), err
}

// profiles records where the processor's time goes and says where the profiles are.
func profiles(s *settings, movers ...*mover) string {
	var files []string
	for _, m := range movers {
		file := filepath.Join(profileFolder, "path-"+strings.ReplaceAll(m.name, " ", "-")+".txt")
		if err := m.profile(file); err != nil {
			s.progress.Printf("%s: no profile: %v", m.name, err)
			continue
		}
		files = append(files, file)
	}
	if len(files) == 0 {
		return ""
	}
	return ", profiles " + strings.Join(files, " ")
}

const profileFolder = "build/bench"

func (m *mover) profile(file string) error {
	if err := os.MkdirAll(profileFolder, 0o755); err != nil {
		return err
	}
	data := strings.TrimSuffix(file, ".txt") + ".data"
	p, err := start("perf", "record", "-q", "-g", "-C", fmt.Sprint(pathCore()), "-o", data)
	if err != nil {
		return err
	}
	time.Sleep(time.Second) // perf does not say when it has begun
	err = m.send(m.turn, 0)
	p.cmd.Process.Signal(os.Interrupt)
	<-p.done
	if err != nil {
		return err
	}
	report, err := exec.Command("perf", "report", "-i", data, "--stdio", "--no-children", "-g", "none", "--percent-limit", "0.5").Output()
	if err != nil {
		return fmt.Errorf("perf report: %w", err)
	}
	return os.WriteFile(file, bytes.TrimLeft(report, "\n"), 0o644)
}
