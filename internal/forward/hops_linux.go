package forward

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Why a flow is not moved by the kernel.
var (
	errLocalParty = errors.New("a party is on this host")
	errNoRoute    = errors.New("no route to the party")
	errNoEthernet = errors.New("the way to the party is no Ethernet device")
	errFamilies   = errors.New("one party has IPv4, the other IPv6")
	errHopsFull   = errors.New("too many next hops")
)

// hops is the kernel's table of next hops, kept true from netlink. A hop whose
// neighbour is not confirmed has the kernel look for it with each packet, which
// is what confirms it again.
type hops struct {
	// set in newHops, read-only afterwards
	log     *slog.Logger
	handle  *netlink.Handle
	updates subscriptions
	inUse   func() map[uint16]bool // by flows

	mu         sync.Mutex // guards what follows
	mem        []hop
	byKey      map[hopKey]uint16
	routes     map[routeKey]route
	neighbours map[hopKey]neighbour
	links      map[int]device
	own        map[netip.Addr]bool // the host's addresses
}

type hopKey struct {
	ifindex int
	gateway netip.Addr // or the party itself
}

type routeKey struct{ local, dest netip.Addr }

// route is the way to a party, or why there is none for the kernel.
type route struct {
	hop uint16
	err error
}

type neighbour struct {
	mac   [6]byte
	ready bool
}

type device struct {
	mac      [6]byte
	mtu      int
	ethernet bool
}

// maxRoutes bounds what is remembered; then all is looked up again.
const maxRoutes = 100_000

func newHops(mem []hop, inUse func() map[uint16]bool, log *slog.Logger) (*hops, error) {
	handle, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("ask the kernel for routes: %w", err)
	}
	h := &hops{log: log, handle: handle, inUse: inUse, mem: mem, byKey: map[hopKey]uint16{}}
	if err := h.updates.open(); err != nil { // before the lists, so that nothing is missed
		h.close()
		return nil, err
	}
	if err := h.reload(); err != nil {
		h.close()
		return nil, err
	}
	h.adopt()
	return h, nil
}

func (h *hops) close() {
	h.updates.close()
	h.handle.Close()
}

// reload reads what the host has; routes are looked up anew when they are needed.
func (h *hops) reload() error {
	links, err := h.handle.LinkList()
	if err != nil {
		return fmt.Errorf("list the network devices: %w", err)
	}
	addrs, err := h.handle.AddrList(nil, netlink.FAMILY_ALL)
	if err != nil {
		return fmt.Errorf("list the host's addresses: %w", err)
	}
	neighs, err := h.handle.NeighList(0, 0)
	if err != nil {
		return fmt.Errorf("list the neighbours: %w", err)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.links, h.own, h.neighbours = map[int]device{}, map[netip.Addr]bool{}, map[hopKey]neighbour{}
	for _, l := range links {
		a := l.Attrs()
		d := device{mtu: a.MTU, ethernet: a.EncapType == "ether" && len(a.HardwareAddr) == 6}
		copy(d.mac[:], a.HardwareAddr)
		h.links[a.Index] = d
	}
	for _, a := range addrs {
		if ip, ok := netip.AddrFromSlice(a.IP); ok {
			h.own[ip.Unmap()] = true
		}
	}
	for _, n := range neighs {
		h.noteNeighbourLocked(n, false)
	}
	h.routes = map[routeKey]route{}
	return nil
}

// adopt learns the hops that a former process left, whose numbers are in its flows.
func (h *hops) adopt() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for i := 1; i < len(h.mem); i++ {
		if x := &h.mem[i]; x.ifindex.Load() != 0 {
			h.byKey[hopKey{int(x.ifindex.Load()), addrOfRaw(x.gateway, x.family)}] = uint16(i)
		}
	}
	for key := range h.byKey {
		h.writeLocked(key)
	}
}

// resolve finds the hop for media from a local address to a party.
func (h *hops) resolve(local, dest netip.Addr) (uint16, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	key := routeKey{local, dest}
	if r, ok := h.routes[key]; ok {
		return r.hop, r.err
	}
	if len(h.routes) >= maxRoutes {
		h.routes = map[routeKey]route{}
	}
	r := h.lookLocked(key)
	h.routes[key] = r
	return r.hop, r.err
}

// device is the one that a party's media should arrive on: that of the way to it. 0: not
// known.
func (h *hops) device(local, party netip.Addr) int {
	n, err := h.resolve(local, party)
	if err != nil {
		return 0
	}
	return int(h.mem[n].ifindex.Load())
}

func (h *hops) lookLocked(key routeKey) route {
	if h.own[key.dest] || key.dest.IsLoopback() {
		return route{err: errLocalParty}
	}
	found, err := h.handle.RouteGetWithOptions(net.IP(key.dest.AsSlice()), &netlink.RouteGetOptions{SrcAddr: net.IP(key.local.AsSlice())})
	if err != nil || len(found) == 0 {
		return route{err: errNoRoute}
	}
	way := found[0]
	if way.Type == unix.RTN_LOCAL {
		return route{err: errLocalParty}
	}
	if way.Type != unix.RTN_UNICAST || !h.links[way.LinkIndex].ethernet {
		return route{err: errNoEthernet}
	}
	gateway := key.dest
	if ip, ok := netip.AddrFromSlice(way.Gw); ok && !ip.Unmap().IsUnspecified() {
		gateway = ip.Unmap()
	}
	n, err := h.hopLocked(hopKey{way.LinkIndex, gateway})
	return route{hop: n, err: err}
}

// hopLocked finds or makes the entry of a next hop.
func (h *hops) hopLocked(key hopKey) (uint16, error) {
	if n, ok := h.byKey[key]; ok {
		return n, nil
	}
	if len(h.byKey)+1 >= len(h.mem) {
		h.reclaimLocked()
	}
	if len(h.byKey)+1 >= len(h.mem) {
		return 0, errHopsFull
	}
	n := uint16(len(h.byKey) + 1)
	for h.mem[n].ifindex.Load() != 0 { // numbers may have gaps
		n = n%uint16(len(h.mem)-1) + 1
	}
	h.byKey[key] = n
	h.writeLocked(key)
	return n, nil
}

// reclaimLocked forgets hops that no flow goes to: each phone of a large Ethernet is
// one, and they come and go.
func (h *hops) reclaimLocked() {
	used := h.inUse()
	for key, n := range h.byKey {
		if !used[n] {
			h.mem[n].ifindex.Store(0)
			delete(h.byKey, key)
		}
	}
	h.routes = map[routeKey]route{}
}

// writeLocked brings a hop up to date.
func (h *hops) writeLocked(key hopKey) {
	x := &h.mem[h.byKey[key]]
	d, n := h.links[key.ifindex], h.neighbours[key]
	x.setReady(false)
	x.mtu = uint16(min(max(d.mtu, 0), 1<<16-1))
	x.family = familyOf(key.gateway)
	x.gateway = rawAddr(key.gateway)
	if n.ready && d.ethernet {
		x.setAddresses(n.mac, d.mac)
	}
	x.ifindex.Store(uint32(key.ifindex))
	x.setReady(n.ready && d.ethernet)
}

const reachable = netlink.NUD_REACHABLE | netlink.NUD_PERMANENT | netlink.NUD_NOARP

// noteNeighbourLocked takes what the kernel knows about a neighbour.
func (h *hops) noteNeighbourLocked(n netlink.Neigh, gone bool) {
	ip, ok := netip.AddrFromSlice(n.IP)
	if !ok {
		return
	}
	key := hopKey{n.LinkIndex, ip.Unmap()}
	now := neighbour{ready: !gone && n.State&reachable != 0 && len(n.HardwareAddr) == 6}
	copy(now.mac[:], n.HardwareAddr)
	if !now.ready {
		delete(h.neighbours, key)
	} else {
		h.neighbours[key] = now
	}
	if _, used := h.byKey[key]; used {
		h.writeLocked(key)
	}
}

// follow applies what changes in the host's network until stop. changed is called
// after routes, addresses or devices changed.
func (h *hops) follow(stop <-chan struct{}, changed func()) {
	// Changes come in swarms: an interface that goes down takes many routes along.
	const settle = 100 * time.Millisecond
	var settled <-chan time.Time
	for {
		select {
		case <-stop:
			return
		case n, ok := <-h.updates.neighbours:
			if !ok {
				h.log.Error("the kernel's news about neighbours ended; next hops are searched by the kernel for each packet")
				h.distrust()
				<-stop
				return
			}
			h.mu.Lock()
			h.noteNeighbourLocked(n.Neigh, n.Type == unix.RTM_DELNEIGH)
			h.mu.Unlock()
		case <-h.updates.changes:
			if settled == nil {
				settled = time.After(settle)
			}
		case <-settled:
			settled = nil
			if err := h.reload(); err != nil {
				h.log.Error("the host's network changed and cannot be read; flows keep their ways", "error", err)
				continue
			}
			h.mu.Lock()
			for key := range h.byKey {
				h.writeLocked(key)
			}
			h.mu.Unlock()
			changed()
		}
	}
}

// distrust has the kernel search each next hop itself.
func (h *hops) distrust() {
	h.mu.Lock()
	defer h.mu.Unlock()
	clear(h.neighbours)
	for key := range h.byKey {
		h.writeLocked(key)
	}
}

// isOwn says whether an address is one of the host's.
func (h *hops) isOwn(a netip.Addr) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.own[a] || a.IsLoopback()
}

// subscriptions are the kernel's news.
type subscriptions struct {
	neighbours chan netlink.NeighUpdate
	changes    chan struct{} // capacity 1: routes, addresses or devices changed
	done       chan struct{}
}

func (s *subscriptions) open() error {
	s.neighbours = make(chan netlink.NeighUpdate, 64)
	s.changes = make(chan struct{}, 1)
	s.done = make(chan struct{})
	routes, addrs, links := make(chan netlink.RouteUpdate, 64), make(chan netlink.AddrUpdate, 64), make(chan netlink.LinkUpdate, 64)
	if err := errors.Join(
		netlink.NeighSubscribeWithOptions(s.neighbours, s.done, netlink.NeighSubscribeOptions{ErrorCallback: func(error) {}}),
		netlink.RouteSubscribeWithOptions(routes, s.done, netlink.RouteSubscribeOptions{ErrorCallback: func(error) {}}),
		netlink.AddrSubscribeWithOptions(addrs, s.done, netlink.AddrSubscribeOptions{ErrorCallback: func(error) {}}),
		netlink.LinkSubscribeWithOptions(links, s.done, netlink.LinkSubscribeOptions{ErrorCallback: func(error) {}}),
	); err != nil {
		return fmt.Errorf("subscribe to changes of the host's network: %w", err)
	}
	go drain(routes, s.changes) // each ends when done is closed, which closes its channel
	go drain(addrs, s.changes)
	go drain(links, s.changes)
	return nil
}

func drain[T any](from <-chan T, to chan<- struct{}) {
	for range from {
		select {
		case to <- struct{}{}:
		default:
		}
	}
}

func (s *subscriptions) close() {
	if s.done != nil {
		close(s.done)
		s.done = nil
	}
}
