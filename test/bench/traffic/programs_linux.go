package traffic

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"time"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"example.org/mediaproxy/test/internal/netlab"
)

// PayloadSize is an RTP header and 20 ms of G.711.
const PayloadSize = 172

const (
	frameSize = 14 + 20 + 8 + PayloadSize
	// Frames come to the relay in groups of what a busy receiver takes at once
	// (NAPI_POLL_WEIGHT).
	burst = 64
)

// Stream is what one phone sends.
type Stream struct {
	From, To netip.AddrPort
	SSRC     uint32
}

// The layouts of bpf/traffic.c.
type (
	stream struct {
		source, dest         [4]byte
		sourcePort, destPort [2]byte
		ipCheck, udpCheck    [2]byte
		ssrc                 uint32
		_                    uint32
	}
	sender struct {
		began, gap, limit, turn, sent uint64
		streams, ifindex              uint32
		dmac, smac                    [6]byte
		_                             uint32
	}
	arrivals struct{ Packets, Bytes uint64 }
)

// programs are the phones inside the kernel.
type programs struct {
	coll   *ebpf.Collection
	sender *sender
	maps   [][]byte
	table  []stream
	door   link.Link
	far    int // interface index of the relay's device
}

func (p *programs) load(near, far *net.Interface) error {
	spec, err := loadPrograms()
	if err != nil {
		return fmt.Errorf("read the traffic programs: %w", err)
	}
	if p.coll, err = ebpf.NewCollection(spec); err != nil {
		return fmt.Errorf("load the traffic programs (needs Linux 5.18): %w", err)
	}
	senders, err := p.mapped(programsMapSenders)
	if err != nil {
		return err
	}
	streams, err := p.mapped(programsMapStreams)
	if err != nil {
		return err
	}
	p.sender = (*sender)(unsafe.Pointer(&senders[0]))
	p.table = unsafe.Slice((*stream)(unsafe.Pointer(&streams[0])), p.coll.Maps[programsMapStreams].MaxEntries())
	p.sender.ifindex = uint32(near.Index)
	p.sender.smac, p.sender.dmac = [6]byte(near.HardwareAddr), [6]byte(far.HardwareAddr)
	p.far = far.Index
	return p.attachSink()
}

func (p *programs) mapped(name string) ([]byte, error) {
	m := p.coll.Maps[name]
	size, page := int(m.MaxEntries()*m.ValueSize()), os.Getpagesize()
	b, err := unix.Mmap(m.FD(), 0, (size+page-1)/page*page, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("map %s: %w", name, err)
	}
	p.maps = append(p.maps, b)
	return b, nil
}

// attachSink takes packets away as a classic filter: that may take them without
// the relay being told of a loss.
func (p *programs) attachSink() error {
	qdisc := &netlink.GenericQdisc{QdiscType: "clsact", QdiscAttrs: netlink.QdiscAttrs{
		LinkIndex: p.far, Handle: netlink.MakeHandle(0xffff, 0), Parent: netlink.HANDLE_CLSACT}}
	if err := netlink.QdiscAdd(qdisc); err != nil {
		return fmt.Errorf("add clsact: %w", err)
	}
	filter := &netlink.BpfFilter{
		FilterAttrs: netlink.FilterAttrs{LinkIndex: p.far, Parent: netlink.HANDLE_MIN_EGRESS, Handle: 1, Protocol: unix.ETH_P_ALL, Priority: 1},
		Fd:          p.coll.Programs[programsProgCollect].FD(), Name: "collect", DirectAction: true,
	}
	if err := netlink.FilterAdd(filter); err != nil {
		return fmt.Errorf("add the sink: %w", err)
	}
	return nil
}

func (p *programs) close() {
	if p.door != nil {
		p.door.Close()
	}
	for _, b := range p.maps {
		unix.Munmap(b)
	}
	if p.coll != nil {
		p.coll.Close()
	}
}

// SetStreams says who sends. All streams take turns.
func (b *Bed) SetStreams(streams []Stream) error {
	if len(streams) > len(b.table) {
		return fmt.Errorf("%d streams, there is room for %d", len(streams), len(b.table))
	}
	for i, s := range streams {
		b.table[i] = compile(s)
	}
	b.sender.streams = uint32(len(streams))
	return nil
}

// compile computes the checksums of a stream's packets, which are all the same: see
// struct frame.
func compile(s Stream) stream {
	c := stream{source: s.From.Addr().As4(), dest: s.To.Addr().As4()}
	binary.BigEndian.PutUint16(c.sourcePort[:], s.From.Port())
	binary.BigEndian.PutUint16(c.destPort[:], s.To.Port())
	binary.BigEndian.PutUint32((*[4]byte)(unsafe.Pointer(&c.ssrc))[:], s.SSRC)
	const udpLen = 8 + PayloadSize
	ip := binary.BigEndian.AppendUint16([]byte{0x45, 0}, 20+udpLen)
	ip = append(ip, 0, 0, 0, 0, 64, unix.IPPROTO_UDP, 0, 0)
	ip = append(append(ip, c.source[:]...), c.dest[:]...)
	binary.BigEndian.PutUint16(c.ipCheck[:], ^sum(ip))

	udp := append(append([]byte{0, unix.IPPROTO_UDP, 0, udpLen}, c.source[:]...), c.dest[:]...)
	udp = append(append(udp, c.sourcePort[:]...), c.destPort[:]...)
	udp = append(udp, 0, udpLen, 0, 0)
	rtp := [PayloadSize]byte{0: 0x80, 1: 8}
	binary.BigEndian.PutUint32(rtp[8:], s.SSRC)
	copy(rtp[12:], []byte{0xff, 0xff, 0, 0, 0xff, 0xff, 0xff, 0xff})
	if check := ^sum(append(udp, rtp[:]...)); check != 0 {
		binary.BigEndian.PutUint16(c.udpCheck[:], check)
	} else {
		c.udpCheck = [2]byte{0xff, 0xff}
	}
	return c
}

// sum is the Internet checksum, not yet inverted.
func sum(b []byte) uint16 {
	var n uint32
	for i := 0; i < len(b); i += 2 {
		n += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	n = n&0xffff + n>>16
	return uint16(n&0xffff + n>>16)
}

// Sent is what became of a turn of packets.
type Sent struct {
	Packets, Arrived uint64
	CPU              time.Duration // of the sending thread
}

// Lost is the share of the packets that did not arrive.
func (s Sent) Lost() float64 { return 1 - float64(s.Arrived)/float64(s.Packets) }

// Send sends n packets on a processor, so many a second; perSecond 0: as many as go.
// What the kernel does for them until they leave the relay, or wait in its sockets,
// is done by the sending thread, which then makes way for a program on that
// processor. So no ring overflows, and no packet is sent before the ones of the
// group before are done with.
func (b *Bed) Send(core int, n uint64, perSecond int) (s Sent, err error) {
	before, err := b.Arrived()
	if err != nil {
		return s, err
	}
	b.sender.began, b.sender.turn, b.sender.limit, b.sender.gap = 0, 0, n, 0
	if perSecond > 0 {
		b.sender.gap = uint64(time.Second) / uint64(perSecond)
	}
	err = netlab.Within(b.phones, func() error {
		return yielding(core, func() error {
			cpu := threadTime()
			_, err := b.coll.Programs[programsProgGenerate].Run(&ebpf.RunOptions{
				Data: make([]byte, frameSize), Repeat: uint32(n), Flags: unix.BPF_F_TEST_XDP_LIVE_FRAMES, BatchSize: burst})
			s.CPU = threadTime() - cpu
			return err
		})
	})
	if err != nil {
		return s, fmt.Errorf("send packets: %w", err)
	}
	if s.Packets = b.sender.turn; s.Packets == 0 {
		return s, errors.New("no packet was sent")
	}
	s.Arrived, err = b.settled(before, s.Packets)
	return s, err
}

// settled counts what has arrived when nothing more does.
func (b *Bed) settled(before, want uint64) (got uint64, err error) {
	for range 20 {
		now, err := b.Arrived()
		if err != nil || now-before == got && got > 0 || now-before >= want {
			return now - before, err
		}
		got = now - before
		time.Sleep(10 * time.Millisecond)
	}
	return got, nil
}

// Arrived counts all packets that the relay sent to phones.
func (b *Bed) Arrived() (n uint64, err error) {
	var each []arrivals
	if err := b.coll.Maps[programsMapArrived].Lookup(uint32(0), &each); err != nil {
		return 0, fmt.Errorf("count what arrived: %w", err)
	}
	for _, a := range each {
		n += a.Packets
	}
	return n, nil
}

// ShutDoor ends packets where they come in to the relay's device: sending costs then
// what it costs without a relay.
func (b *Bed) ShutDoor() error {
	return b.In(func() (err error) {
		b.door, err = link.AttachXDP(link.XDPOptions{Program: b.coll.Programs[programsProgRefuse], Interface: b.far, Flags: link.XDPDriverMode})
		return err
	})
}
