package forward

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/cilium/ebpf"

	"example.org/mediaproxy/internal/wire/rtp"
)

// bench runs the kernel program without a network, on a table of its own.
type bench struct {
	t       testing.TB
	k       *kernel
	program *ebpf.Program
	hops    []hop
	options ebpf.RunOptions
	context [192]byte // struct __sk_buff
	out     [1 << 12]byte
	each    []kernelCounts
	before  kernelCounts
}

// weakly is for processors that reorder: there the program reads in another way.
func newBench(t testing.TB, weakly bool, locals ...netip.Addr) *bench {
	t.Helper()
	needsNetwork(t)
	spec, err := flowSpec(len(locals), []string{flowProgFlowTc})
	if err != nil {
		t.Fatal(err)
	}
	if weakly {
		if err := spec.Variables[flowVarWeaklyOrdered].Set(uint8(1)); err != nil {
			t.Fatal(err)
		}
	}
	b := &bench{t: t, k: &kernel{log: slog.New(slog.DiscardHandler)}}
	t.Cleanup(b.k.release)
	if err := b.k.load(spec, nil, Config{Locals: locals, Lease: time.Hour}); err != nil {
		t.Fatal(err)
	}
	b.program, b.hops = b.k.coll.Programs[flowProgFlowTc], b.k.hopMemory()
	b.each = make([]kernelCounts, ebpf.MustPossibleCPU())
	return b
}

// tooShort says whether the kernel does not run programs on such a frame.
func tooShort(f []byte) bool {
	if len(f) < ethernetHeader {
		return true
	}
	switch binary.BigEndian.Uint16(f[12:]) {
	case 0x0800:
		return len(f) < ethernetHeader+20
	case 0x86dd:
		return len(f) < ethernetHeader+40
	}
	return false
}

// run gives a frame to the program.
func (b *bench) run(frame []byte, segments uint32) (action int32, out []byte, err error) {
	binary.NativeEndian.PutUint32(b.context[164:], segments) // gso_segs
	binary.NativeEndian.PutUint32(b.context[176:], 1000*segments)
	b.options.Data, b.options.DataOut, b.options.Context = frame, b.out[:], b.context[:]
	got, err := b.program.Run(&b.options)
	return int32(got), b.options.DataOut, err
}

// counted is what the program counted since the last call.
func (b *bench) counted() (d kernelCounts) {
	if err := b.k.coll.Maps[flowMapStats].Lookup(uint32(0), &b.each); err != nil {
		b.t.Fatal(err)
	}
	var sum kernelCounts
	for _, c := range b.each {
		sum.Packets += c.Packets
		sum.Bytes += c.Bytes
		sum.Refused += c.Refused
		sum.Resting += c.Resting
		sum.Raised += c.Raised
		sum.Orphaned += c.Orphaned
		sum.Neigh += c.Neigh
	}
	d = kernelCounts{Packets: sum.Packets - b.before.Packets, Bytes: sum.Bytes - b.before.Bytes, Refused: sum.Refused - b.before.Refused,
		Resting: sum.Resting - b.before.Resting, Raised: sum.Raised - b.before.Raised, Orphaned: sum.Orphaned - b.before.Orphaned, Neigh: sum.Neigh - b.before.Neigh}
	b.before = sum
	return d
}

func (b *bench) record(a netip.AddrPort) (*record, *side) {
	i, ok := b.k.mem.index(a)
	if !ok {
		b.t.Fatalf("no record for %v", a)
	}
	return &b.k.mem.records[i], &b.k.mem.sides[i]
}

// world is a table with ports of every kind, in the kernel and in the model.
type world struct {
	*bench
	model
	list  []*modelPort
	hops  []*modelHop
	reads map[string]int // how often which verdict was given and why
}

var worldLocals = []netip.Addr{addr("192.0.2.1"), addr("2001:db8::1"), addr("198.51.100.7"), addr("2001:db8:7::7")}

func newWorld(t testing.TB, weakly bool) *world {
	w := &world{bench: newBench(t, weakly, worldLocals...), reads: map[string]int{}}
	w.hops = []*modelHop{
		{exists: true, ready: true, mtu: 1500, dmac: [6]byte{2, 1, 1, 1, 1, 1}, smac: [6]byte{2, 2, 2, 2, 2, 2}},
		{exists: true, mtu: 1500, dmac: [6]byte{2, 3, 3, 3, 3, 3}},
		{exists: true, ready: true, mtu: 220, dmac: [6]byte{2, 4, 4, 4, 4, 4}, smac: [6]byte{2, 5, 5, 5, 5, 5}},
		{},
	}
	for i, h := range w.hops {
		x := &w.bench.hops[i+1]
		x.mtu, x.dmac, x.smac = uint16(h.mtu), h.dmac, h.smac
		x.setReady(h.ready)
		if h.exists {
			x.ifindex.Store(1)
		}
	}
	w.k.global.crowdGap = 0 // has a test of its own: it depends on the processor
	w.fill()
	return w
}

// fill makes the ports: for each address some of each kind.
func (w *world) fill() {
	w.ports, w.list = map[netip.AddrPort]*modelPort{}, nil
	for slot, local := range worldLocals {
		party := func(n int) netip.AddrPort { // outside; the first is the party
			return netip.AddrPortFrom(stranger(local, 100+n), uint16(4000+n*1001))
		}
		other := worldLocals[(slot+2)%4]
		for i, kind := range []string{"decided", "decided", "unready", "narrow", "hopless", "broken", "bent", "same ports", "open", "resting", "off"} {
			p := &modelPort{name: kind, local: netip.AddrPortFrom(local, uint16(30000+2*i)), hop: w.hops[0], state: stateDecided,
				source: party(i), dest: party(i + 20), out: netip.AddrPortFrom(other, uint16(40000+2*i))}
			switch kind {
			case "unready":
				p.hop = w.hops[1]
			case "narrow":
				p.hop = w.hops[2]
			case "hopless":
				p.hop = w.hops[3]
			case "broken", "bent":
				p.broken = true
			case "same ports":
				p.out, p.dest = p.local, p.source // hairpin: nothing changes but the direction
			case "open", "resting", "off":
				p.state = map[string]uint32{"open": stateOpen, "resting": stateResting, "off": stateOff}[kind]
				p.source, p.dest, p.out = netip.AddrPort{}, netip.AddrPort{}, netip.AddrPort{}
			}
			p.known = [3]netip.Addr{party(50).Addr(), {}, party(i).Addr()}
			w.ports[p.local] = p
			w.list = append(w.list, p)
			w.write(p)
		}
	}
}

// write brings a port into the kernel's table by the same functions as the program.
func (w *world) write(p *modelPort) {
	p.reset()
	rec, s := w.record(p.local)
	rec.reset(s, familyOf(p.local.Addr()), stateOpen)
	e := entry{local: p.local, rec: rec, side: s}
	e.know(p.known)
	if p.state != stateDecided {
		rec.state.Store(p.state)
		return
	}
	hop := uint16(0)
	for i, h := range w.hops {
		if h == p.hop {
			hop = uint16(i + 1)
		}
	}
	out := entry{local: p.out}
	line := lineOf(&e, Flow{Source: p.source, Dest: p.dest}, &out, w.k.mem.slot(p.out.Addr()), hop)
	if p.name == "broken" {
		line.outSlot = 255
	}
	rec.decide(line, familyOf(p.local.Addr()))
	if p.name == "bent" {
		rec.state.Store(stateOpen)
		rec.setDetail(familyOf(p.local.Addr()), 10-familyOf(p.local.Addr()))
		rec.state.Store(stateDecided)
	}
}

// weather changes what is the same for all ports.
func (w *world) weather(r *rand.Rand) {
	w.lease, w.silence = time.Hour, 0
	switch r.IntN(10) {
	case 0:
		w.silence = 6 * time.Second // next hops are not trusted
	case 1:
		w.silence = time.Hour + time.Minute
	case 2:
		w.silence = -time.Minute // the clock of the host began anew
	}
	w.k.global.lease.Store(uint64(w.lease))
	w.k.global.heartbeat.Store(uint64(coarse() - w.silence))
}

// limits sets when strangers of a port may go up; a long time is as none.
func (w *world) limits(p *modelPort, r *rand.Rand) {
	choice := func() time.Duration {
		return []time.Duration{0, -time.Second, 900 * time.Millisecond, time.Hour}[r.IntN(4)]
	}
	w.stranger, w.knownGoes = choice(), choice()
	_, s := w.record(p.local)
	s.nextStranger, s.nextKnown = uint64(coarse()+w.stranger), uint64(coarse()+w.knownGoes)
}

// check runs a frame through kernel and model, and says how they differ.
func (w *world) check(frame []byte, segments uint32) error {
	if tooShort(frame) {
		return nil
	}
	want := w.judge(frame, segments)
	before := coarse()
	action, out, err := w.run(frame, segments)
	after := coarse()
	if err != nil {
		return err
	}
	w.reads[want.why]++
	if action != want.action {
		return fmt.Errorf("verdict %d, want %d (%s)", action, want.action, want.why)
	}
	if got := w.counted(); got != want.counts {
		return fmt.Errorf("counts %+v, want %+v (%s)", got, want.counts, want.why)
	}
	if want.moved {
		if err := sameErrors(out, &want); err != nil {
			return err
		}
	}
	if !bytes.Equal(out, want.frame) {
		return fmt.Errorf("%s, leaves as\n    %x, want\n    %x", want.why, out, want.frame)
	}
	if want.port == nil {
		return nil
	}
	rec, s := w.record(want.port.local)
	want.port.refused += want.counts.Refused
	if want.moved {
		want.port.count(before, want.from.payload)
		if err := w.times(rec, before, after, rtp.Classify(want.from.payload).IsMedia()); err != nil {
			return err
		}
		if err := sameAsRaw(out, &want); err != nil {
			return err
		}
	}
	return want.port.differs(rec, s)
}

func (w *world) times(r *record, before, after time.Duration, media bool) error {
	in := func(v uint64) bool { return time.Duration(v) >= before && time.Duration(v) <= after }
	if !in(r.lastSeen.Load()) || media && (!in(r.lastMedia.Load()) || r.firstMedia.Load() > uint64(after)) {
		return fmt.Errorf("seen at %d, media at %d since %d, want between %d and %d", r.lastSeen.Load(), r.lastMedia.Load(), r.firstMedia.Load(), before, after)
	}
	return nil
}

// sameErrors makes sure that a checksum that was wrong is as wrong afterwards, and
// takes its bytes over into what is wanted.
func sameErrors(out []byte, want *verdict) error {
	if len(out) != len(want.frame) {
		return nil // told elsewhere
	}
	d := &want.from
	in, got := d.ip, out[ethernetHeader:]
	header, addrs := 40, [2]int{8, 40}
	if d.v4 {
		header, addrs = 20, [2]int{12, 20}
		if !d.headerIsRight {
			if a, b := ones(in[:20])%0xffff, ones(got[:20])%0xffff; a != b {
				return fmt.Errorf("a wrong header checksum was off by %#x, now by %#x", a, b)
			}
			copy(want.frame[ethernetHeader+10:][:2], got[10:])
		}
	}
	if d.withChecksum && !d.payloadIsRight {
		length := []byte{0, 17, byte(len(d.udp) >> 8), byte(len(d.udp))}
		a := ones(in[addrs[0]:addrs[1]], length, d.udp) % 0xffff
		b := ones(got[addrs[0]:addrs[1]], length, got[header:][:len(d.udp)]) % 0xffff
		if a != b {
			return fmt.Errorf("a wrong UDP checksum was off by %#x, now by %#x", a, b)
		}
		copy(want.frame[ethernetHeader+header+6:][:2], got[header+6:])
	}
	return nil
}

// sameAsRaw compares with the headers that user space writes for the same datagram:
// only IPv4's number and don't-fragment, and IPv6's flow label, stay as they came.
func sameAsRaw(out []byte, v *verdict) error {
	d := &v.from
	if !d.withChecksum || !d.payloadIsRight || !d.headerIsRight {
		return nil
	}
	var b [largestHeader]byte
	n := putHeaders(&b, v.port.out, v.port.dest, d.hops-1, d.tos, d.payload)
	got := append([]byte(nil), out[ethernetHeader:][:n]...)
	if d.v4 {
		clear(got[4:8])
		fixHeader(got)
	} else {
		got[1] &= 0xf0
		got[2], got[3] = 0, 0
	}
	if !bytes.Equal(got, b[:n]) {
		return fmt.Errorf("user space would write\n    %x, the kernel made\n    %x", b[:n], got)
	}
	return nil
}

func soaking() bool { return os.Getenv("MEDIAPROXY_TEST") == "soak" }

// Every frame has the same fate in the kernel and in the model, byte by byte and
// count by count, and leaves as user space would send it.
func TestKernelIsTheModel(t *testing.T) {
	t.Run("ordered", func(t *testing.T) { compareFrames(t, false, 100_000) })
	t.Run("weakly ordered", func(t *testing.T) { compareFrames(t, true, 20_000) })
}

func compareFrames(t *testing.T, weakly bool, frames int) {
	seed := uint64(time.Now().UnixNano())
	if s, err := strconv.ParseUint(os.Getenv("FORWARD_SEED"), 10, 64); err == nil {
		seed = s // of a failure
	}
	if soaking() {
		frames *= 100
	}
	w := newWorld(t, weakly)
	g := &generator{Rand: rand.New(rand.NewPCG(seed, 1)), ports: w.list, sequence: map[*modelPort]uint16{}}
	for i := range frames {
		if i%100 == 0 {
			w.weather(g.Rand)
		}
		if i%5000 == 4999 {
			w.write(pick(g, w.list...))
		}
		frame, segments := g.frame()
		if p := w.ports[read(frame).dest]; p != nil {
			w.limits(p, g.Rand)
		}
		if err := w.check(frame, segments); err != nil {
			t.Fatalf("FORWARD_SEED=%d, frame %d, %d segments\n    %x\n    %v\n%v", seed, i, segments, frame, read(frame).dest, err)
		}
	}
	for _, why := range []string{
		"moved", "segments", "not for this device", "not IP", "short", "another version", "options", "not UDP", "first or middle fragment",
		"last fragment", "the last hop", "no checksum", "an extension header, or not UDP", "no port of ours", "lengths that disagree", "the lease is over",
		"resting", "a flow that cannot be used", "no next hop", "larger than the way out", "a stranger, raised", "a stranger too many", "a known address, raised", "the party's stream, raised",
	} {
		if w.reads[why] == 0 {
			t.Errorf("no frame of %d was: %s", frames, why)
		}
	}
	t.Logf("seed %d: %v", seed, w.reads)
}
