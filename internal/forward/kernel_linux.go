package forward

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/rlimit"
	"golang.org/x/sys/unix"
)

//go:generate go tool -modfile=../../tools/go.mod bpf2go -tags linux -cc clang-14 -strip llvm-strip-14 -target bpfel,bpfeb -cflags "-O2 -g -Wall -Werror -mcpu=v3" -no-global-types flow bpf/flow.c

const (
	// abiFolder holds the pins of this layout of the table; another one has another
	// folder, so that two versions never read each other's memory.
	abiFolder = "v1"

	beatInterval = time.Second
	// Between datagrams of strangers that one port passes up: a phone that moved is
	// heard, and a sprayer cannot fill the slow path.
	strangerGap = 5 * time.Millisecond
	// The same for addresses that the signalling or the media of the call named.
	knownGap = 2 * time.Millisecond
	// Between datagrams of strangers from all decided ports on one processor: however many
	// ports are sprayed, user space has time for those who are to be heard.
	crowdGap = 500 * time.Microsecond
)

// kernel is the flow table inside the kernel: its maps, programs and attachments.
// As long as they are pinned it goes on without this process.
type kernel struct {
	// set in openKernel, read-only afterwards
	log    *slog.Logger
	folder string // of this relay in the BPF file system, if that works or not
	pins   string // of this layout in it; empty: nothing outlives the process
	coll   *ebpf.Collection
	mem    *memory
	global *globals
	hops   *hops
	hooks  *hooks
	maps   [][]byte // mapped memory, to be given back

	stop chan struct{}
	wg   sync.WaitGroup

	before kernelCounts // of former processes
	old    *left        // until the programs are replaced

	mu        sync.Mutex // guards what follows
	installed map[int]install
	clockless map[int]clockless
	resting   []restingRecord
	closed    atomic.Bool
}

// install is a flow as it was asked for, to be resolved again when routes change.
type install struct {
	e, out *entry
	flow   Flow
}

type restingRecord struct {
	rec   *record
	until time.Time
}

// openKernel loads the table, or takes over the one that a former process left.
func openKernel(cfg Config, programs []string, classic bool, log *slog.Logger) (_ *kernel, err error) {
	if len(cfg.Locals) > maxLocals {
		return nil, fmt.Errorf("%d relay addresses, the kernel table has room for %d", len(cfg.Locals), maxLocals)
	}
	if err := rlimit.RemoveMemlock(); err != nil && !errors.Is(err, os.ErrPermission) {
		return nil, fmt.Errorf("raise the limit of locked memory: %w", err)
	}
	if err := allowed(); err != nil {
		return nil, err
	}
	k := &kernel{log: log, folder: cfg.Pins, installed: map[int]install{}, clockless: map[int]clockless{}, stop: make(chan struct{})}
	defer func() {
		if err != nil {
			k.release()
		}
	}()
	spec, err := flowSpec(len(cfg.Locals), programs)
	if err != nil {
		return nil, err
	}
	if p := spec.Programs[flowProgFlowTc]; p != nil && classic {
		p.AttachType = ebpf.AttachNone
	}
	if cfg.Pins != "" {
		if k.pins, err = pinFolder(cfg.Pins); err != nil {
			log.Warn("kernel flows will end with this process", "error", err)
		} else {
			k.old = k.takeOver(spec, cfg.Locals)
			k.endUnknown()
		}
	}
	if err := k.load(spec, k.old, cfg); err != nil {
		return nil, err
	}
	if k.hops, err = newHops(k.hopMemory(), k.mem.hops, log); err != nil {
		return nil, err
	}
	k.before = k.counts()
	return k, nil
}

// flowSpec is the object with the maps in the size for so many addresses, and the
// programs that are wanted.
func flowSpec(slots int, programs []string) (*ebpf.CollectionSpec, error) {
	spec, err := loadFlow()
	if err != nil {
		return nil, fmt.Errorf("read the kernel program: %w", err)
	}
	spec.Maps[flowMapFlows].MaxEntries = uint32(slots * portsPerSlot)
	spec.Maps[flowMapSides].MaxEntries = uint32(slots * portsPerSlot)
	if runtime.GOARCH != "amd64" && runtime.GOARCH != "386" && runtime.GOARCH != "s390x" {
		if err := spec.Variables[flowVarWeaklyOrdered].Set(uint8(1)); err != nil {
			return nil, fmt.Errorf("set up the kernel program: %w", err)
		}
	}
	for name := range spec.Programs {
		wanted := false
		for _, p := range programs {
			wanted = wanted || p == name
		}
		if !wanted {
			delete(spec.Programs, name)
		}
	}
	return spec, nil
}

// load brings maps and programs into the kernel, on the maps of old if there are any.
func (k *kernel) load(spec *ebpf.CollectionSpec, old *left, cfg Config) (err error) {
	options := ebpf.CollectionOptions{}
	if old != nil && old.same {
		options.MapReplacements = old.maps
	}
	if k.coll, err = ebpf.NewCollectionWithOptions(spec, options); err != nil {
		return fmt.Errorf("load the kernel program: %w", err)
	}
	records, err := k.mapMemory(flowMapFlows)
	if err != nil {
		return err
	}
	sides, err := k.mapMemory(flowMapSides)
	if err != nil {
		return err
	}
	global, err := k.mapMemory(flowMapGlobals)
	if err != nil {
		return err
	}
	k.global = (*globals)(unsafe.Pointer(unsafe.SliceData(global)))
	if k.mem, err = newMemory(cfg.Locals, records, sides); err != nil {
		return err
	}
	k.writeGlobals(cfg)
	if old != nil && !old.same {
		if err := old.copyTo(k); err != nil {
			k.log.Error("the flows of a former process are lost, the relay's addresses or version changed", "error", err)
		}
	}
	if k.pins != "" && (old == nil || !old.same) {
		if err := k.pinMaps(old); err != nil {
			k.log.Warn("kernel flows will end with this process", "error", err)
			k.pins = ""
		}
	}
	return nil
}

func (k *kernel) writeGlobals(cfg Config) {
	g := k.global
	g.version = tableVersion
	for i, a := range cfg.Locals {
		g.locals[i] = local{addr: rawAddr(a), family: uint32(familyOf(a))}
	}
	g.strangerGap, g.knownGap, g.crowdGap = uint64(strangerGap), uint64(knownGap), uint64(crowdGap)
	g.lease.Store(uint64(cfg.Lease))
	g.heartbeat.Store(uint64(monotonic()))
	g.localsUsed.Store(uint32(len(cfg.Locals)))
}

// mapMemory maps the values of an array map.
func (k *kernel) mapMemory(name string) ([]byte, error) {
	b, err := mapValues(k.coll.Maps[name])
	if err != nil {
		return nil, err
	}
	k.maps = append(k.maps, b)
	return b, nil
}

func mapValues(m *ebpf.Map) ([]byte, error) {
	page := os.Getpagesize()
	size := int(m.ValueSize()+7) &^ 7 * int(m.MaxEntries())
	b, err := unix.Mmap(m.FD(), 0, (size+page-1)/page*page, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("map the kernel's table: %w", err)
	}
	return b[:size:cap(b)], nil
}

func (k *kernel) hopMemory() []hop {
	b, err := k.mapMemory(flowMapHops)
	if err != nil {
		k.log.Error("the kernel's next hops cannot be written, no flow is moved there", "error", err)
		return nil
	}
	return unsafe.Slice((*hop)(unsafe.Pointer(unsafe.SliceData(b))), maxHops)
}

// start attaches the programs and keeps the table alive.
func (k *kernel) start(attach func(h *hooks) error) error {
	k.hooks = newHooks(k)
	if err := attach(k.hooks); err != nil {
		return err
	}
	k.hooks.sweep()
	k.hooks.undo = nil
	if k.old != nil {
		k.old.settle()
		if k.old.folder != k.pins {
			os.RemoveAll(k.old.folder)
		}
		k.old = nil
	}
	k.wg.Go(k.beat)
	k.wg.Go(func() { k.hops.follow(k.stop, k.changed) })
	return nil
}

// beat tells the kernel's programs that somebody is responsible for their flows.
func (k *kernel) beat() {
	tick := time.NewTicker(beatInterval)
	defer tick.Stop()
	for {
		select {
		case <-k.stop:
			return
		case now := <-tick.C:
			k.global.heartbeat.Store(uint64(monotonic()))
			k.endRests(now)
			k.findClocks(now)
		}
	}
}

// rest has late datagrams of a closed port dropped without a word for a while.
func (k *kernel) rest(e *entry, used bool) {
	k.forget(e)
	if !used {
		e.rec.state.Store(stateOff)
		return
	}
	e.rec.state.Store(stateResting)
	k.mu.Lock()
	defer k.mu.Unlock()
	k.resting = append(k.resting, restingRecord{e.rec, time.Now().Add(restTime)})
}

// restTime is longer than a call's last packets are on their way.
const restTime = 60 * time.Second

func (k *kernel) endRests(now time.Time) {
	k.mu.Lock()
	defer k.mu.Unlock()
	n := 0
	for n < len(k.resting) && now.After(k.resting[n].until) {
		// It may be the port of another call by now, or of one that rests again.
		k.resting[n].rec.state.CompareAndSwap(stateResting, stateOff)
		n++
	}
	k.resting = append(k.resting[:0], k.resting[n:]...)
}

// counts adds those of all processors.
func (k *kernel) counts() (sum kernelCounts) {
	m := k.coll.Maps[flowMapStats]
	if m == nil {
		return sum
	}
	var each []kernelCounts
	if err := m.Lookup(uint32(0), &each); err != nil {
		return sum
	}
	for _, c := range each {
		sum.Packets += c.Packets
		sum.Bytes += c.Bytes
		sum.Refused += c.Refused
		sum.Resting += c.Resting
		sum.Raised += c.Raised
		sum.Orphaned += c.Orphaned
		sum.Neigh += c.Neigh
	}
	b := k.before
	return kernelCounts{Packets: sum.Packets - b.Packets, Bytes: sum.Bytes - b.Bytes, Refused: sum.Refused - b.Refused,
		Resting: sum.Resting - b.Resting, Raised: sum.Raised - b.Raised, Orphaned: sum.Orphaned - b.Orphaned, Neigh: sum.Neigh - b.Neigh}
}

func (k *kernel) addTo(s *Stats) {
	c := k.counts()
	s.Kernel = KernelStats{Packets: c.Packets, Bytes: c.Bytes, Refused: c.Refused, Resting: c.Resting, Raised: c.Raised, Orphaned: c.Orphaned, Searched: c.Neigh}
	s.Packets += c.Packets
	s.Bytes += c.Bytes
}

// close ends the table for good: no flow is moved any more.
func (k *kernel) close() {
	if k.closed.Swap(true) {
		return
	}
	k.halt()
	for i := range k.mem.records {
		k.mem.records[i].state.Store(stateOff)
	}
	if k.hooks != nil {
		k.hooks.detach()
	}
	if k.pins != "" {
		if err := os.RemoveAll(k.pins); err != nil {
			k.log.Warn("the kernel's table stays behind", "folder", k.pins, "error", err)
		}
		os.Remove(filepath.Dir(k.pins)) // of this relay, if nothing else is in it
	}
	k.release()
}

// abandon gives back what openKernel took, and detaches what start attached before it
// failed. The flows of a former process go on.
func (k *kernel) abandon() {
	if k.closed.Swap(true) {
		return
	}
	if k.hooks != nil {
		k.hooks.restore()
	}
	if k.old != nil {
		k.old.settle()
		k.old = nil
	}
	k.release()
}

// halt ends the goroutines; flows go on.
func (k *kernel) halt() {
	close(k.stop)
	k.wg.Wait()
}

// release gives back what this process holds.
func (k *kernel) release() {
	if k.hooks != nil {
		k.hooks.release()
	}
	if k.hops != nil {
		k.hops.close()
	}
	for _, b := range k.maps {
		unix.Munmap(b[:cap(b)])
	}
	k.maps = nil
	if k.coll != nil {
		k.coll.Close()
	}
}
