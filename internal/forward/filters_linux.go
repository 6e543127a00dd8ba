package forward

import (
	"errors"
	"fmt"
	"hash/fnv"
	"slices"

	"github.com/cilium/ebpf"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Name and priority of our clsact filters. A filter is replaced by one with the same
// handle, and each relay of a host has its own.
const (
	filterName     = "mediaproxy"
	filterPriority = 0x4d50
)

func filterHandle(pins string) uint32 {
	h := fnv.New32a()
	h.Write([]byte(pins))
	return h.Sum32() | 1 // 0 would have the kernel choose
}

// filterLocked attaches the way of kernels before 6.6. The filter stays when the
// process dies, all by itself.
func (h *hooks) filterLocked(l netlink.Link, program *ebpf.Program) error {
	index := l.Attrs().Index
	if err := refused("clsact"); err != nil {
		return err
	}
	qdisc := &netlink.GenericQdisc{QdiscType: "clsact", QdiscAttrs: netlink.QdiscAttrs{
		LinkIndex: index, Handle: netlink.MakeHandle(0xffff, 0), Parent: netlink.HANDLE_CLSACT}}
	if err := h.k.hops.handle.QdiscAdd(qdisc); err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("add clsact: %w", err)
	}
	former := h.hasFilter(l)
	if err := h.k.hops.handle.FilterReplace(h.filter(index, program.FD())); err != nil {
		return fmt.Errorf("add a filter: %w", err)
	}
	h.filters[index] = true
	if !former {
		h.undo = append(h.undo, func() { h.removeFilter(l) })
	}
	return nil
}

func (h *hooks) filter(index, fd int) *netlink.BpfFilter {
	return &netlink.BpfFilter{
		FilterAttrs: netlink.FilterAttrs{LinkIndex: index, Parent: netlink.HANDLE_MIN_INGRESS, Handle: h.handle,
			Protocol: unix.ETH_P_ALL, Priority: filterPriority},
		Fd: fd, Name: filterName, DirectAction: true,
	}
}

// removeFiltersLocked takes our clsact filters off all devices.
func (h *hooks) removeFiltersLocked() {
	links, err := h.k.hops.handle.LinkList()
	if err != nil {
		return
	}
	for _, l := range links {
		if h.hasFilter(l) {
			h.removeFilter(l)
		}
	}
}

// hasFilter says whether this relay, or a former process of it, has a filter on a device.
func (h *hooks) hasFilter(l netlink.Link) bool {
	filters, err := h.k.hops.handle.FilterList(l, netlink.HANDLE_MIN_INGRESS)
	return err == nil && slices.ContainsFunc(filters, func(f netlink.Filter) bool {
		b, ok := f.(*netlink.BpfFilter)
		return ok && b.Priority == filterPriority && b.Handle == h.handle
	})
}

func (h *hooks) removeFilter(l netlink.Link) {
	if err := h.k.hops.handle.FilterDel(h.filter(l.Attrs().Index, -1)); err != nil {
		h.k.log.Warn("a filter of this relay stays", "device", l.Attrs().Name, "error", err,
			"hint", fmt.Sprintf("tc filter del dev %s ingress prio %d", l.Attrs().Name, filterPriority))
	}
}
