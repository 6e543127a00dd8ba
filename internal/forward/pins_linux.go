package forward

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"unsafe"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// What the next process finds: the maps under their names, one file for each
// attachment, all in PINS/v1 of the BPF file system.

// pinFolder makes the folder for pins of this layout.
func pinFolder(base string) (string, error) {
	folder := filepath.Join(base, abiFolder)
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return "", fmt.Errorf("make a folder in the BPF file system (as root: mount -t bpf bpf /sys/fs/bpf, and give the relay's user a folder in it): %w", err)
	}
	var fs unix.Statfs_t
	if err := unix.Statfs(folder, &fs); err != nil {
		return "", fmt.Errorf("look at %s: %w", folder, err)
	}
	if fs.Type != unix.BPF_FS_MAGIC {
		os.Remove(folder)
		return "", fmt.Errorf("%s is not in a BPF file system (as root: mount -t bpf bpf /sys/fs/bpf)", folder)
	}
	return folder, nil
}

// left is what a former process left behind.
type left struct {
	maps   map[string]*ebpf.Map
	locals []netip.Addr
	same   bool // its maps have the size that is needed now
	// of copyTo: what was counted in the records when they were copied
	records []byte
	copied  []copiedRecord
	release func()
}

type copiedRecord struct {
	from, to       *record
	packets, bytes uint64
	refused        uint64
}

// takeOver opens the pinned maps, nil if there are none that can be used.
func (k *kernel) takeOver(spec *ebpf.CollectionSpec, locals []netip.Addr) *left {
	old := &left{maps: map[string]*ebpf.Map{}, release: func() {}}
	for name := range spec.Maps {
		if isConstant(name) {
			continue
		}
		m, err := ebpf.LoadPinnedMap(filepath.Join(k.pins, name), nil)
		if errors.Is(err, os.ErrNotExist) && len(old.maps) == 0 {
			return nil
		}
		if err == nil {
			old.maps[name] = m
			continue
		}
		k.log.Warn("the kernel table of a former process cannot be used, its flows end", "folder", k.pins, "map", name, "error", err)
		k.discard()
		return nil
	}
	if err := old.check(spec, locals); err != nil {
		k.log.Warn("the kernel table of a former process cannot be used, its flows end", "folder", k.pins, "error", err)
		k.discard()
		return nil
	}
	return old
}

// isConstant says whether a map is a program's own constants, which are loaded with it.
func isConstant(name string) bool { return strings.HasPrefix(name, ".") }

// discard removes what is pinned.
func (k *kernel) discard() {
	os.RemoveAll(k.pins)
	os.MkdirAll(k.pins, 0o700)
}

// discardPins ends what a former process left in the kernel, for one that has no part
// there: nobody would keep those flows true.
func discardPins(base string, log *slog.Logger) {
	folder := filepath.Join(base, abiFolder)
	if _, err := os.Stat(folder); err != nil {
		return
	}
	if err := os.RemoveAll(folder); err != nil {
		log.Warn("flows of a former process stay in the kernel until orphan_lease is over", "folder", folder, "error", err)
		return
	}
	log.Warn("flows of a former process in the kernel were ended: user space moves them now", "folder", folder)
}

func (old *left) check(spec *ebpf.CollectionSpec, locals []netip.Addr) error {
	for name, m := range old.maps {
		want := spec.Maps[name]
		if m.Type() != want.Type || m.ValueSize() != want.ValueSize || m.KeySize() != want.KeySize || m.Flags() != want.Flags {
			return fmt.Errorf("map %s has another layout", name)
		}
	}
	b, err := mapValues(old.maps[flowMapGlobals])
	if err != nil {
		return err
	}
	defer unix.Munmap(b[:cap(b)])
	g := (*globals)(unsafe.Pointer(unsafe.SliceData(b)))
	if g.version != tableVersion {
		return fmt.Errorf("version %d of the table, this program has %d", g.version, tableVersion)
	}
	for _, l := range g.locals[:min(g.localsUsed.Load(), maxLocals)] {
		old.locals = append(old.locals, addrOfRaw(l.addr, uint8(l.family)))
	}
	flows := old.maps[flowMapFlows]
	if int(flows.MaxEntries()) != len(old.locals)*portsPerSlot {
		return fmt.Errorf("%d addresses and %d ports", len(old.locals), flows.MaxEntries())
	}
	old.same = slices.Equal(old.locals, locals)
	return nil
}

// copyTo brings the records of addresses that are still the relay's to new maps.
// Flows go on in the old ones until the programs are replaced; see settle.
func (old *left) copyTo(k *kernel) {
	records, err := mapValues(old.maps[flowMapFlows])
	if err != nil {
		k.log.Error("the flows of a former process are lost", "error", err)
		return
	}
	sides, err := mapValues(old.maps[flowMapSides])
	if err != nil {
		unix.Munmap(records[:cap(records)])
		k.log.Error("the flows of a former process are lost", "error", err)
		return
	}
	old.release = func() {
		unix.Munmap(records[:cap(records)])
		unix.Munmap(sides[:cap(sides)])
	}
	from, err := newMemory(old.locals, records, sides)
	if err != nil {
		k.log.Error("the flows of a former process are lost", "error", err)
		return
	}
	copyHops(old.maps[flowMapHops], k)
	for slot, a := range from.locals {
		to := k.mem.slot(a)
		if to < 0 {
			continue
		}
		for port := range portsPerSlot {
			r := &from.records[slot*portsPerSlot+port]
			if r.state.Load() == stateOff {
				continue
			}
			out := int(r.flow.outSlot)
			if out < len(from.locals) {
				out = k.mem.slot(from.locals[out])
			}
			old.copied = append(old.copied, copyRecord(r, &k.mem.records[to*portsPerSlot+port],
				&from.sides[slot*portsPerSlot+port], &k.mem.sides[to*portsPerSlot+port], out))
		}
	}
}

// copyRecord copies one port. A flow whose way out is gone is left to user space.
func copyRecord(from, to *record, fromSide, toSide *side, outSlot int) copiedRecord {
	c := copiedRecord{from: from, to: to, packets: from.packets.Load(), bytes: from.bytes.Load(), refused: from.refused.Load()}
	state := from.state.Load()
	copy(bytesOf(to)[4:], bytesOf(from)[4:])
	copy(bytesOf(toSide), bytesOf(fromSide))
	to.packets.Store(c.packets)
	to.bytes.Store(c.bytes)
	to.refused.Store(c.refused)
	to.flow.outSlot = uint8(outSlot)
	if outSlot < 0 && state == stateDecided {
		state = stateOpen
	}
	to.state.Store(state)
	return c
}

func bytesOf[T any](v *T) []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(v)), unsafe.Sizeof(*v))
}

func copyHops(from *ebpf.Map, k *kernel) {
	b, err := mapValues(from)
	if err != nil {
		return // flows find their ways again when they are adopted
	}
	defer unix.Munmap(b[:cap(b)])
	to, err := mapValues(k.coll.Maps[flowMapHops])
	if err != nil {
		return
	}
	defer unix.Munmap(to[:cap(to)])
	copy(to, b)
}

// settle adds what was counted in the old records after they were copied; the
// programs count in the new ones now.
func (old *left) settle() {
	for _, c := range old.copied {
		c.to.packets.Add(c.from.packets.Load() - c.packets)
		c.to.bytes.Add(c.from.bytes.Load() - c.bytes)
		c.to.refused.Add(c.from.refused.Load() - c.refused)
	}
	old.copied = nil
	old.release()
	for _, m := range old.maps {
		m.Close()
	}
}

// pinMaps puts the maps where the next process finds them, in place of old ones.
func (k *kernel) pinMaps(old *left) error {
	for name, m := range k.coll.Maps {
		if isConstant(name) {
			continue
		}
		file := filepath.Join(k.pins, name)
		if old == nil {
			if err := m.Pin(file); err != nil {
				return fmt.Errorf("pin %s: %w", name, err)
			}
			continue
		}
		fresh := filepath.Join(k.pins, "new-"+name) // names in this file system have no dots
		if err := errors.Join(m.Pin(fresh), os.Rename(fresh, file)); err != nil {
			return fmt.Errorf("pin %s in place of the former one: %w", name, err)
		}
	}
	return nil
}
