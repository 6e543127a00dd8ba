package bench

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/hex"
	"fmt"
	"net"
	"net/netip"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// keepalive is how often a relay pings by default ([Relay] keepalive_interval).
	keepalive = 10 * time.Second
	// connecting bounds the connections of all relays, and their lists.
	connecting = 2 * time.Minute
	// dialing is how many relays connect at a time: more would only wait for the
	// processor, which both sides need for the same handshakes.
	dialing = 16
	// maxFaults is how many are kept to be shown; all are counted.
	maxFaults = 10
)

// fleet is all simulated relays of a measurement.
type fleet struct {
	// set in newFleet, read-only afterwards
	tls     *tls.Config
	address string
	relays  []*relay

	running sync.WaitGroup
	over    atomic.Bool // links end because we say so
	pongs   atomic.Uint64
	acks    Histogram // from a call's end to its acknowledgement

	mu      sync.Mutex // guards what follows
	faults  []string
	faulted int
}

// firstIP is where the addresses begin by which relays are told apart: those of
// RFC 2544, set aside for measurements.
var firstIP = netip.MustParseAddr("198.18.0.0").As4()

func newFleet(n int, address string, config *tls.Config) *fleet {
	f := &fleet{tls: config, address: address}
	var instance [8]byte
	rand.Read(instance[:])
	for i := range n {
		ip := firstIP
		ip[2], ip[3] = byte(i>>8), byte(i)
		f.relays = append(f.relays, &relay{
			f: f, name: fmt.Sprintf("bench-%04d", i), instance: fmt.Sprintf("%s%04d", hex.EncodeToString(instance[:]), i),
			ip: netip.AddrFrom4(ip).String(), calls: map[call]string{}, owed: map[string]owed{},
		})
	}
	return f
}

// localAddr is where a relay connects from. On a dispatcher's own host each has an
// address for itself, where the system allows that: hosts that reserve their ports for
// media have too few others for hundreds of connections from one.
func (f *fleet) localAddr(ip string) net.Addr {
	to, err := netip.ParseAddrPort(f.address)
	if err != nil || runtime.GOOS != "linux" || !to.Addr().Is4() || !to.Addr().IsLoopback() {
		return nil
	}
	b := netip.MustParseAddr(ip).As4()
	return &net.TCPAddr{IP: net.IPv4(127, b[1], b[2], b[3])}
}

// relayOf says which relay has answered.
func (f *fleet) relayOf(ip netip.Addr) (*relay, error) {
	if ip.Is4() {
		b := ip.As4()
		if i := int(b[2])<<8 | int(b[3]); b[0] == firstIP[0] && b[1] == firstIP[1] && i < len(f.relays) {
			return f.relays[i], nil
		}
	}
	return nil, fmt.Errorf("%s is the address of no relay of this run", ip)
}

// fill gives the calls with the numbers below n to the relays, one after the other.
func (f *fleet) fill(n int) {
	for i := range n {
		r := f.first(call(i))
		r.mu.Lock()
		r.calls[call(i)] = r.record(call(i))
		r.mu.Unlock()
	}
}

func (f *fleet) first(n call) *relay { return f.relays[uint64(n)%uint64(len(f.relays))] }

// connect connects all relays and waits until the dispatcher has read their lists.
func (f *fleet) connect(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, connecting)
	defer cancel()
	listed := make(chan struct{}, len(f.relays))
	turns := make(chan struct{}, dialing)
	failed := make(chan error, len(f.relays))
	var dials sync.WaitGroup
	for _, r := range f.relays {
		dials.Go(func() {
			turns <- struct{}{}
			defer func() { <-turns }()
			if err := r.connect(ctx, func() { listed <- struct{}{} }); err != nil {
				failed <- err
				cancel()
			}
		})
	}
	dials.Wait()
	for range f.relays {
		select {
		case <-listed:
		case <-ctx.Done():
			select {
			case err := <-failed:
				return err
			default:
			}
			return fmt.Errorf("the dispatcher did not list the calls of all relays within %v; %s", connecting, f.said())
		}
	}
	return nil
}

// cut ends all links and waits for their readers.
func (f *fleet) cut() {
	f.over.Store(true)
	for _, r := range f.relays {
		r.cut()
	}
	f.running.Wait()
	f.over.Store(false)
}

// ping keeps all links alive, each in its turn, until the context ends.
func (f *fleet) ping(ctx context.Context) {
	ticker := time.NewTicker(keepalive / time.Duration(len(f.relays)))
	defer ticker.Stop()
	for i := 0; ; i++ {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			f.relays[i%len(f.relays)].ping()
		}
	}
}

// owed is how many finished calls nobody has acknowledged yet.
func (f *fleet) owed() (n int) {
	for _, r := range f.relays {
		r.mu.Lock()
		n += len(r.owed)
		r.mu.Unlock()
	}
	return n
}

// Spread is how evenly calls were given to relays.
type Spread struct {
	Least  int `json:"least"`
	Median int `json:"median"`
	Most   int `json:"most"`
}

// spread is of the calls that were begun.
func (f *fleet) spread() Spread {
	list := make([]int, len(f.relays))
	for i, r := range f.relays {
		r.mu.Lock()
		list[i] = r.offers
		r.mu.Unlock()
	}
	slices.Sort(list)
	return Spread{list[0], list[len(list)/2], list[len(list)-1]}
}

// traffic is the bytes of all links below TLS.
func (f *fleet) traffic() (toRelays, toDispatcher uint64) {
	for _, r := range f.relays {
		r.mu.Lock()
		toRelays += r.read
		toDispatcher += r.written
		r.mu.Unlock()
	}
	return toRelays, toDispatcher
}

// fault notes what must not happen between a dispatcher and relays.
func (f *fleet) fault(format string, args ...any) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.faulted++
	if len(f.faults) < maxFaults {
		f.faults = append(f.faults, fmt.Sprintf(format, args...))
	}
}

func (f *fleet) faultList() (n int, some []string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.faulted, slices.Clone(f.faults)
}

func (f *fleet) said() string {
	if _, some := f.faultList(); len(some) > 0 {
		return "the relays say: " + some[0]
	}
	return "the relays saw no fault"
}
