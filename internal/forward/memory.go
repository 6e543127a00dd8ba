package forward

import (
	"fmt"
	"net/netip"
	"sync"
	"unsafe"
)

// memory is where the records of all ports lie: one slot of 65,536 for each local
// address. Who maps it decides how long it lives.
type memory struct {
	locals  []netip.Addr // by slot
	records []record
	sides   []side
	unmap   func() // nil: somebody else does

	mu    sync.Mutex // guards what follows
	taken map[int]*entry
	rests bool // resting records are of this process
}

// memorySize is how many bytes records and sides of so many slots take.
func memorySize(slots int) (records, sides int) {
	return slots * portsPerSlot * recordSize, slots * portsPerSlot * sideSize
}

// newMemory lays records over mapped bytes.
func newMemory(locals []netip.Addr, records, sides []byte) (*memory, error) {
	wantRecords, wantSides := memorySize(len(locals))
	if len(records) != wantRecords || len(sides) != wantSides {
		return nil, fmt.Errorf("flow table of %d and %d bytes, want %d and %d for %d addresses", len(records), len(sides), wantRecords, wantSides, len(locals))
	}
	n := len(locals) * portsPerSlot
	return &memory{
		locals:  locals,
		records: unsafe.Slice((*record)(unsafe.Pointer(unsafe.SliceData(records))), n),
		sides:   unsafe.Slice((*side)(unsafe.Pointer(unsafe.SliceData(sides))), n),
		taken:   map[int]*entry{},
	}, nil
}

// slot is the index of a local address, -1 if the table does not have it.
func (m *memory) slot(a netip.Addr) int {
	for i, l := range m.locals {
		if l == a {
			return i
		}
	}
	return -1
}

// index is where a port's record lies.
func (m *memory) index(local netip.AddrPort) (int, bool) {
	slot := m.slot(local.Addr())
	return slot*portsPerSlot + int(local.Port()), slot >= 0
}

// enter gives an entry its record, made anew unless it is adopted: then what a former
// process left there goes on.
func (m *memory) enter(e *entry, local netip.AddrPort, h Handler, adopt bool) error {
	i, ok := m.index(local)
	if !ok {
		return fmt.Errorf("%s: %w", local.Addr(), ErrNoSlot)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.taken[i] != nil {
		return fmt.Errorf("%s: %w", local, ErrPortInUse)
	}
	m.taken[i] = e
	e.local, e.handler, e.rec, e.side = local, h, &m.records[i], &m.sides[i]
	switch state := e.rec.state.Load(); {
	case !adopt:
		e.rec.reset(e.side, familyOf(local.Addr()), stateOpen)
	case state == stateOff, state == stateResting:
		e.rec.state.Store(stateOpen) // counters go on
	}
	return nil
}

// leave gives a record back.
func (m *memory) leave(e *entry) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if i, ok := m.index(e.local); ok && m.taken[i] == e {
		delete(m.taken, i)
		e.rec.state.CompareAndSwap(stateOpen, stateOff)
	}
}

// unclaimed switches off what nobody entered and returns how many ports that were.
func (m *memory) unclaimed() (dropped int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for i := range m.records {
		r := &m.records[i]
		state := r.state.Load()
		if state == stateOff || m.taken[i] != nil || state == stateResting && m.rests {
			continue
		}
		if state != stateResting {
			dropped++
		}
		r.state.Store(stateOff)
	}
	m.rests = true // those of this process end by themselves
	return dropped
}

// hops are the next hops of all flows in the kernel.
func (m *memory) hops() map[uint16]bool {
	m.mu.Lock() // against ports that open; flows are written under the caller's
	defer m.mu.Unlock()
	used := map[uint16]bool{}
	for i := range m.records {
		if r := &m.records[i]; r.state.Load() == stateDecided {
			used[r.flow.hop] = true
		}
	}
	return used
}

// close gives the mapped bytes back, if that is the memory's own business.
func (m *memory) close() {
	if m.unmap != nil {
		m.unmap()
	}
}
