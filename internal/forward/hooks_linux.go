package forward

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// hooks are the places where the kernel runs the programs.
type hooks struct {
	k      *kernel
	handle uint32 // of clsact filters

	mu      sync.Mutex        // guards what follows
	classic bool              // clsact filters instead of tcx links
	ingress map[int]link.Link // by interface index
	filters map[int]bool      // devices with a clsact filter
	lookup  link.Link
	undo    []func() // takes away what was not there before
}

func newHooks(k *kernel) *hooks {
	return &hooks{k: k, handle: filterHandle(k.folder), ingress: map[int]link.Link{}, filters: map[int]bool{}}
}

// pinned is the file of a link, empty if nothing is pinned.
func (h *hooks) pinned(name string) string {
	if h.k.pins == "" {
		return ""
	}
	return filepath.Join(h.k.pins, name)
}

const (
	ingressPin = "ingress-"
	lookupPin  = "lookup"
)

// attachIngress runs the program on every device that media may arrive on.
func (h *hooks) attachIngress() error {
	devices, err := h.devices()
	if err != nil {
		return err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.pruneLocked()
	if len(devices) == 0 {
		return errNoDevice
	}
	for _, d := range devices {
		if err := h.attachLocked(d); err != nil {
			return fmt.Errorf("attach to %s: %w", d.Attrs().Name, err)
		}
	}
	return nil
}

// need has the program run on the device that a party's media arrives on, too: that need
// not be one with an address of the relay.
func (h *hooks) need(index int) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if index == 0 || h.ingress[index] != nil || h.filters[index] {
		return nil
	}
	l, err := h.k.hops.handle.LinkByIndex(index)
	if err != nil || !arrives(l) {
		return errNoEthernet
	}
	if err := h.attachLocked(l); err != nil {
		return fmt.Errorf("attach to %s: %w", l.Attrs().Name, err)
	}
	return nil
}

// pruneLocked forgets devices that are gone.
func (h *hooks) pruneLocked() {
	for index, l := range h.ingress {
		if !attached(l, index) {
			detachLink(l)
			delete(h.ingress, index)
		}
	}
	for index := range h.filters {
		if _, err := h.k.hops.handle.LinkByIndex(index); err != nil {
			delete(h.filters, index)
		}
	}
}

// sweep takes away what a former process attached and this one did not: nobody would
// know what it does.
func (h *hooks) sweep() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.classic {
		h.removeFiltersLocked()
	}
	if h.k.pins == "" {
		return
	}
	files, err := os.ReadDir(h.k.pins)
	if err != nil {
		h.k.log.Warn("what a former relay attached to devices stays there", "folder", h.k.pins, "error", err)
		return
	}
	for _, f := range files {
		index, ingress := strings.CutPrefix(f.Name(), ingressPin)
		n, _ := strconv.Atoi(index)
		if ingress && h.ingress[n] == nil || f.Name() == lookupPin && h.lookup == nil {
			os.Remove(filepath.Join(h.k.pins, f.Name()))
		}
	}
}

var errNoDevice = errors.New("no Ethernet device has an address of the relay")

// devices are those that carry a relay address. When one is on a device that
// nothing arrives on (loopback, dummy), all Ethernet devices count.
func (h *hooks) devices() ([]netlink.Link, error) {
	links, err := h.k.hops.handle.LinkList()
	if err != nil {
		return nil, fmt.Errorf("list the network devices: %w", err)
	}
	addrs, err := h.k.hops.handle.AddrList(nil, netlink.FAMILY_ALL)
	if err != nil {
		return nil, fmt.Errorf("list the host's addresses: %w", err)
	}
	carriers := map[int]bool{}
	for _, a := range addrs {
		if ip, ok := netip.AddrFromSlice(a.IP); ok && h.k.mem.slot(ip.Unmap()) >= 0 && !ip.IsLoopback() {
			carriers[a.LinkIndex] = true
		}
	}
	all := false
	for _, l := range links {
		if carriers[l.Attrs().Index] && !arrives(l) {
			all = true
		}
	}
	return slices.DeleteFunc(links, func(l netlink.Link) bool {
		return !arrives(l) || !all && !carriers[l.Attrs().Index]
	}), nil
}

// arrives says whether datagrams for this host come in through a device.
func arrives(l netlink.Link) bool {
	a := l.Attrs()
	return a.EncapType == "ether" && l.Type() != "dummy" && a.Flags&unix.IFF_LOOPBACK == 0 && a.Flags&unix.IFF_UP != 0
}

func (h *hooks) attachLocked(l netlink.Link) error {
	index, program := l.Attrs().Index, h.k.coll.Programs[flowProgFlowTc]
	if h.classic {
		return h.filterLocked(l, program)
	}
	pin := h.pinned(ingressPin + strconv.Itoa(index))
	if h.ingress[index] != nil {
		return nil
	}
	if pin != "" {
		if old, err := link.LoadPinnedLink(pin, nil); err == nil {
			if attached(old, index) && old.Update(program) == nil {
				h.ingress[index] = old
				return nil
			}
			old.Close()
			os.Remove(pin)
		}
	}
	fresh, err := attachTCX(index, program)
	if err != nil {
		return err
	}
	h.ingress[index] = fresh
	h.undo = append(h.undo, func() { detachLink(fresh) })
	return h.pin(fresh, pin)
}

func attachTCX(index int, program *ebpf.Program) (link.Link, error) {
	if err := refused("tcx"); err != nil {
		return nil, err
	}
	return link.AttachTCX(link.TCXOptions{Interface: index, Program: program, Attach: ebpf.AttachTCXIngress})
}

func attachNetNs(ns int, program *ebpf.Program) (link.Link, error) {
	if err := refused("sk_lookup"); err != nil {
		return nil, err
	}
	return link.AttachNetNs(ns, program)
}

// attached says whether a link still stands on its device: one that was removed
// leaves a link to nowhere.
func attached(l link.Link, index int) bool {
	info, err := l.Info()
	return err == nil && info.TCX() != nil && info.TCX().Ifindex == uint32(index)
}

func (h *hooks) pin(l link.Link, file string) error {
	if file == "" {
		return nil
	}
	if err := l.Pin(file); err != nil {
		return fmt.Errorf("pin: %w", err)
	}
	return nil
}

// attachLookup has datagrams for the table's ports steered to our sockets.
func (h *hooks) attachLookup() error {
	program, pin := h.k.coll.Programs[flowProgFlowLookup], h.pinned(lookupPin)
	h.mu.Lock()
	defer h.mu.Unlock()
	if pin != "" {
		if old, err := link.LoadPinnedLink(pin, nil); err == nil {
			if sameNetNS(old) && old.Update(program) == nil {
				h.lookup = old
				return nil
			}
			old.Close()
			os.Remove(pin)
		}
	}
	ns, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		return fmt.Errorf("open the network namespace: %w", err)
	}
	defer ns.Close()
	fresh, err := attachNetNs(int(ns.Fd()), program)
	if err != nil {
		return fmt.Errorf("attach to the socket lookup: %w", err)
	}
	h.lookup = fresh
	h.undo = append(h.undo, func() { detachLink(fresh) })
	return h.pin(fresh, pin)
}

// sameNetNS says whether a link is attached to the namespace of this process.
func sameNetNS(l link.Link) bool {
	info, err := l.Info()
	if err != nil || info.NetNs() == nil {
		return false
	}
	var st unix.Stat_t
	return unix.Stat("/proc/thread-self/ns/net", &st) == nil && uint64(info.NetNs().NetnsInode) == st.Ino
}

// changed attaches to devices that came.
func (h *hooks) changed() {
	if h.k.coll.Programs[flowProgFlowTc] == nil {
		return // the kernel moves nothing
	}
	if err := h.attachIngress(); err != nil {
		h.k.log.Warn("media of a device that changed is moved in user space", "error", err)
	}
}

// detach takes the programs away from all devices.
func (h *hooks) detach() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for index, l := range h.ingress {
		detachLink(l)
		delete(h.ingress, index)
	}
	if len(h.filters) > 0 {
		h.removeFiltersLocked()
		clear(h.filters)
	}
	if h.lookup != nil {
		detachLink(h.lookup)
		h.lookup = nil
	}
}

func detachLink(l link.Link) {
	l.Unpin()
	l.Close()
}

// restore detaches what this process attached. What it took over goes on for the flows
// of the former one, and is found by the next attempt.
func (h *hooks) restore() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, undo := range h.undo {
		undo()
	}
	h.undo = nil
}

// release closes what this process holds; what is pinned goes on.
func (h *hooks) release() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, l := range h.ingress {
		l.Close()
	}
	if h.lookup != nil {
		h.lookup.Close()
	}
	h.ingress, h.lookup = map[int]link.Link{}, nil
}

// names says where the program runs, for the log.
func (h *hooks) names() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	var names []string
	for index := range h.ingress {
		names = append(names, h.nameOf(index))
	}
	for index := range h.filters {
		names = append(names, h.nameOf(index))
	}
	slices.Sort(names)
	return strings.Join(names, " ")
}

func (h *hooks) nameOf(index int) string {
	l, err := h.k.hops.handle.LinkByIndex(index)
	if err != nil {
		return strconv.Itoa(index)
	}
	return l.Attrs().Name
}
