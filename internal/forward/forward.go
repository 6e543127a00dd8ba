// Package forward moves datagrams between UDP ports. It holds the table of
// decided flows ("what comes from this address to this port goes to that
// address, from that port") and counts what it moved. What no flow covers goes
// up to a Handler, which decides; forward does not know what a call is.
//
//	              ┌────────────── Table ──────────────┐
//	datagram ──▶ port: source = flow's source? ──yes──▶ flow's destination
//	                        │ no
//	                        ▼
//	                     Handler ── Verdict ──▶ relayed, counted or refused
//
// Two tables exist: Loops, which runs in user space, and Fake, for tests of the
// rooms above. A kernel table has the same shape.
//
// Time in this package is a time.Duration on the host's monotonic clock, so that
// a step of the wall clock moves nothing.
package forward

import (
	"errors"
	"net/netip"
	"time"

	"example.org/mediaproxy/internal/wire/rtp"
)

var (
	// ErrPortInUse: another program has the port.
	ErrPortInUse = errors.New("port in use")
	// ErrTooManyPorts: the descriptor limit of the process is reached.
	ErrTooManyPorts = errors.New("no file descriptor left for another port (raise LimitNOFILE or ulimit -n)")
	// ErrUnsupported: this operating system has no mover.
	ErrUnsupported = errors.New("relaying needs Linux; other systems can run the dispatcher")
	// ErrNoSlot: the table was made without this address.
	ErrNoSlot = errors.New("not one of the relay's addresses when it started (add it to relay_ip)")
	// ErrClosed: the table is closed.
	ErrClosed = errors.New("forwarding table is closed")
)

// Table opens ports and moves what arrives at them.
type Table interface {
	// Open binds a port. Ports of the same group are served by one thread, so
	// their handlers never run at the same time. Handler calls may start before
	// Open returns.
	Open(local netip.AddrPort, group uint32, h Handler) (Port, error)
	// Adopt opens a port that a former process had. What that one left is kept:
	// its counters go on, and a flow that the kernel still moves is moved without
	// a gap until Install or Withdraw changes it. Where nothing was left it is Open.
	Adopt(local netip.AddrPort, group uint32, h Handler) (Port, error)
	// Claimed says that all ports of a former process that are still wanted were
	// adopted: the others are switched off. It returns how many these were.
	Claimed() int
	// Now is the time on the host's monotonic clock, which outlives the process:
	// times of one process mean the same in the next until the host restarts.
	Now() time.Duration
	// Capacity is how many ports may be open at once.
	Capacity() int
	// Mover names what moves decided flows if it can: one of the Mover constants.
	Mover() string
	Stats() Stats
	// Close closes all ports and waits for the threads to end.
	Close() error
}

// Keeper is a table with sockets that the service manager may keep for the next
// process, which names them in Config.Inherited: what arrives meanwhile waits in them.
type Keeper interface {
	// Sockets are the descriptors by name. They stay the table's own.
	Sockets() map[string]int
}

// Port is one open UDP port. Its methods may be called from anywhere.
type Port interface {
	Local() netip.AddrPort
	// Install decides the port: datagrams from f.Source are moved, all others
	// still go to the handler. It replaces an earlier flow at once.
	Install(f Flow)
	// Withdraw takes the flow back: everything goes to the handler again, and
	// the port hears every source.
	Withdraw()
	// Know names the addresses that may be the party's besides the flow's source
	// (learned, of its SDP, of its signalling; invalid: unknown), so that their
	// datagrams come up also while strangers spray the port.
	Know(addrs [3]netip.Addr)
	// Send transmits one datagram from this port.
	Send(to netip.AddrPort, payload []byte) error
	Counters() Counters
	// Close ends the port. done runs once the number may be bound again; used
	// tells whether a datagram was ever seen or sent here. No handler call
	// starts after Close returns for a caller that holds what the handler locks.
	Close(done func(used bool))
}

// Flow is a decided direction of a path.
type Flow struct {
	Source netip.AddrPort // the only sender that may use the port
	Out    Port           // the port that the other party hears it from
	Dest   netip.AddrPort
}

// Datagram is one datagram without a flow. Payload is valid during the call only.
type Datagram struct {
	Now     time.Duration
	Source  netip.AddrPort
	Payload []byte
	Kind    rtp.Kind
}

// Verdict is what becomes of a datagram.
type Verdict struct {
	// Accepted: it comes from the party that owns the port; it is counted and
	// its quality observed. Otherwise it counts as refused.
	Accepted bool
	// Out and Dest: relay it. Without Out it goes nowhere.
	Out  Port
	Dest netip.AddrPort
}

// Handler decides about datagrams without a flow.
type Handler interface {
	Handle(d Datagram) Verdict
}

// Complaint is a handler that wants to know when nobody hears what its port sends.
type Complaint interface {
	// Unreachable: an ICMP error came back for a datagram to dest.
	Unreachable(now time.Duration, dest netip.AddrPort)
}

// Counters of one port. Packets and Bytes count what its party sent and the
// table accepted; Bytes include IP and UDP headers.
type Counters struct {
	Packets   uint64
	Bytes     uint64
	Unsent    uint64        // accepted, but there was nowhere to send it, or sending failed
	Refused   uint64        // from elsewhere than its party
	FirstSeen time.Duration // first accepted media packet, Never if none
	LastSeen  time.Duration // last accepted datagram of any kind, Never if none
	LastMedia time.Duration // last accepted datagram other than STUN and DTLS, Never if none
	Decided   bool          // a flow is installed
	Mover     string        // what moves it, empty if not decided
	NotKernel string        // why that is not the kernel, empty if it is
	Quality   Quality
}

// What moves a decided flow.
const (
	MoverKernel = "tc"
	MoverUser   = "user-space"
)

// Never is the time of what has not happened.
const Never = time.Duration(-1)

// Stats of a table since its start.
type Stats struct {
	Ports       int    // open now
	Packets     uint64 // relayed
	Bytes       uint64 // relayed, with IP and UDP headers
	Undecided   uint64 // datagrams that went to a handler
	SendErrors  uint64
	TTLExpired  uint64 // dropped because they had made too many hops
	Panics      uint64 // handlers that failed; their port is mute since
	Unreachable uint64 // ICMP errors that came back to a port
	NotKernel   string // why no flow is moved in the kernel, empty if flows are
	Kernel      KernelStats
}

// KernelStats are those of the kernel's part of a table. Its packets and bytes are
// in the sums above, too.
type KernelStats struct {
	Packets  uint64 // moved
	Bytes    uint64
	Refused  uint64 // dropped: from elsewhere than the party, and too many to look at
	Resting  uint64 // dropped: for a port whose call is over
	Raised   uint64 // passed up to user space
	Orphaned uint64 // passed by because the relay was silent for longer than its lease
	Searched uint64 // of the packets: with a next hop that the kernel had to find
}
