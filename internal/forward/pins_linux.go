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

// layout is how a version of the table lies in memory, in the folder of its name.
type layout struct {
	version                       uint32
	recordSize, sideSize, hopSize uint32
	locals                        func(globals []byte) []netip.Addr
	copyRecord                    func(to *record, toSide *side, from, fromSide []byte)
	copyHop                       func(to *hop, from []byte)
}

// layouts are those that this program can take over. When the table changes, the
// former one stays here with functions that read it.
var layouts = map[string]layout{
	abiFolder: {
		version: tableVersion, recordSize: uint32(recordSize), sideSize: uint32(sideSize), hopSize: uint32(unsafe.Sizeof(hop{})),
		locals: localsOf,
		copyRecord: func(to *record, toSide *side, from, fromSide []byte) {
			copy(bytesOf(to), from)
			copy(bytesOf(toSide), fromSide)
		},
		copyHop: func(to *hop, from []byte) { copy(bytesOf(to), from) },
	},
}

func localsOf(b []byte) (locals []netip.Addr) {
	g := (*globals)(unsafe.Pointer(unsafe.SliceData(b)))
	for _, l := range g.locals[:min(g.localsUsed.Load(), maxLocals)] {
		locals = append(locals, addrOfRaw(l.addr, uint8(l.family)))
	}
	return locals
}

// left is what a former process left behind.
type left struct {
	layout layout
	folder string
	maps   map[string]*ebpf.Map
	locals []netip.Addr
	same   bool // this program needs just these maps

	mapped [][]byte // of copyTo
	copied []copiedRecord
}

// copiedRecord is a port whose flow went on in the old table while it was copied.
type copiedRecord struct {
	from, fromSide []byte
	to             *record
	packets, bytes uint64 // when it was copied
	refused        uint64
	lost           int32
}

// takeOver opens the maps that a former process pinned, nil if there are none that
// can be used.
func (k *kernel) takeOver(spec *ebpf.CollectionSpec, locals []netip.Addr) *left {
	folders := []string{abiFolder}
	for name := range layouts {
		if name != abiFolder {
			folders = append(folders, name)
		}
	}
	for _, name := range folders {
		folder := filepath.Join(filepath.Dir(k.pins), name)
		old := &left{layout: layouts[name], folder: folder, maps: map[string]*ebpf.Map{}}
		err := old.open(spec)
		if err == nil {
			err = old.check(spec, locals)
		}
		if err == nil {
			if folder != k.pins {
				moveHooks(folder, k.pins)
			}
			return old
		}
		old.close()
		if !errors.Is(err, os.ErrNotExist) {
			k.log.Warn("the kernel table of a former process cannot be used, its flows end", "folder", folder, "error", err)
		}
		clearFolder(folder)
	}
	return nil
}

func (old *left) open(spec *ebpf.CollectionSpec) error {
	for name := range spec.Maps {
		if isConstant(name) {
			continue
		}
		m, err := ebpf.LoadPinnedMap(filepath.Join(old.folder, name), nil)
		if err != nil {
			return fmt.Errorf("map %s: %w", name, err)
		}
		old.maps[name] = m
	}
	return nil
}

func (old *left) close() {
	for _, b := range old.mapped {
		unix.Munmap(b[:cap(b)])
	}
	for _, m := range old.maps {
		m.Close()
	}
}

// endUnknown removes what versions left that this program cannot read: a newer one,
// before it was taken back.
func (k *kernel) endUnknown() {
	base := filepath.Dir(k.pins)
	files, _ := os.ReadDir(base)
	for _, f := range files {
		if _, known := layouts[f.Name()]; known || !f.IsDir() {
			continue
		}
		folder := filepath.Join(base, f.Name())
		k.log.Warn("another version of this program left flows in the kernel that this one cannot read, they end", "folder", folder)
		if err := os.RemoveAll(folder); err != nil {
			k.log.Error("these flows go on until orphan_lease is over", "folder", folder, "error", err)
		}
	}
}

// moveHooks brings the attachments to another folder, where their programs are replaced.
func moveHooks(from, to string) {
	files, _ := os.ReadDir(from)
	for _, f := range files {
		if f.Name() == lookupPin || strings.HasPrefix(f.Name(), ingressPin) {
			_ = os.Rename(filepath.Join(from, f.Name()), filepath.Join(to, f.Name())) // else it is attached anew
		}
	}
}

// clearFolder removes what is in a folder of pins, which ends it.
func clearFolder(folder string) {
	files, _ := os.ReadDir(folder)
	for _, f := range files {
		os.Remove(filepath.Join(folder, f.Name()))
	}
}

// endFormer ends what a former process left in the kernel, for one that has no part
// there and would not know when those flows change. What this process pinned in attempts
// that failed goes, too.
func endFormer(base string, former bool, log *slog.Logger) {
	if base == "" {
		return
	}
	folder := filepath.Join(base, abiFolder)
	err := errors.Join(switchOff(filepath.Join(folder, flowMapFlows)), os.RemoveAll(folder))
	os.Remove(base) // of this relay, if nothing else is in it
	switch {
	case former && err != nil:
		log.Warn("flows of a former process stay in the kernel until orphan_lease is over", "error", err, "hint", "as root: rm -r "+base)
	case former:
		log.Warn("flows of a former process in the kernel were ended: user space moves them now", "folder", folder)
	}
}

// switchOff ends the flows of a pinned table: a clsact filter stays attached without its
// maps' pins, and has nothing to move then.
func switchOff(file string) error {
	flows, err := ebpf.LoadPinnedMap(file, nil)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("open the former flow table: %w", err)
	}
	defer flows.Close()
	b, err := mapValues(flows)
	if err != nil {
		return err
	}
	defer unix.Munmap(b[:cap(b)])
	for at := 0; at+recordSize <= len(b); at += recordSize {
		(*record)(unsafe.Pointer(&b[at])).state.Store(stateOff)
	}
	return nil
}

// isConstant says whether a map is a program's own constants, which are loaded with it.
func isConstant(name string) bool { return strings.HasPrefix(name, ".") }

// leftPins says whether a former process left something in the kernel.
func leftPins(base string) bool {
	if base == "" {
		return false
	}
	files, err := os.ReadDir(filepath.Join(base, abiFolder))
	return err == nil && len(files) > 0
}

func (old *left) check(spec *ebpf.CollectionSpec, locals []netip.Addr) error {
	l := old.layout
	for name, size := range map[string]uint32{flowMapFlows: l.recordSize, flowMapSides: l.sideSize, flowMapHops: l.hopSize} {
		if m := old.maps[name]; m.Type() != spec.Maps[name].Type || m.ValueSize() != size || m.Flags() != spec.Maps[name].Flags {
			return fmt.Errorf("map %s has another layout", name)
		}
	}
	b, err := mapValues(old.maps[flowMapGlobals])
	if err != nil {
		return err
	}
	defer unix.Munmap(b[:cap(b)])
	if v := *(*uint32)(unsafe.Pointer(unsafe.SliceData(b))); v != l.version {
		return fmt.Errorf("version %d of the table, want %d", v, l.version)
	}
	old.locals = l.locals(b)
	if n := old.maps[flowMapFlows].MaxEntries(); int(n) != len(old.locals)*portsPerSlot {
		return fmt.Errorf("%d addresses and %d ports", len(old.locals), n)
	}
	old.same = l.version == tableVersion && slices.Equal(old.locals, locals)
	return nil
}

// copyTo brings the records of addresses that are still the relay's to new maps.
// Flows go on in the old ones until the programs are replaced; see settle.
func (old *left) copyTo(k *kernel) error {
	values := map[string][]byte{}
	for _, name := range []string{flowMapFlows, flowMapSides, flowMapHops} {
		b, err := mapValues(old.maps[name])
		if err != nil {
			return err
		}
		values[name] = b
		old.mapped = append(old.mapped, b)
	}
	l := old.layout
	to, err := mapValues(k.coll.Maps[flowMapHops])
	if err != nil {
		return err
	}
	defer unix.Munmap(to[:cap(to)])
	hops := unsafe.Slice((*hop)(unsafe.Pointer(unsafe.SliceData(to))), maxHops)
	for i := range min(maxHops, int(old.maps[flowMapHops].MaxEntries())) {
		l.copyHop(&hops[i], values[flowMapHops][i*int(l.hopSize):][:l.hopSize])
	}
	for slot, a := range old.locals {
		if newSlot := k.mem.slot(a); newSlot >= 0 {
			old.copySlot(k.mem, values, slot, newSlot)
		}
	}
	return nil
}

func (old *left) copySlot(to *memory, values map[string][]byte, slot, newSlot int) {
	l := old.layout
	for port := range portsPerSlot {
		i, j := slot*portsPerSlot+port, newSlot*portsPerSlot+port
		c := copiedRecord{
			from:     values[flowMapFlows][i*int(l.recordSize):][:l.recordSize],
			fromSide: values[flowMapSides][i*int(l.sideSize):][:l.sideSize],
			to:       &to.records[j],
		}
		if *(*uint32)(unsafe.Pointer(&c.from[0])) == stateOff { // every layout begins with it
			continue
		}
		var r record
		var s side
		l.copyRecord(&r, &s, c.from, c.fromSide)
		c.packets, c.bytes, c.refused, c.lost = r.packets.Load(), r.bytes.Load(), r.refused.Load(), r.lost.Load()
		state, out := r.state.Load(), -1
		if n := int(r.flow.outSlot); n < len(old.locals) {
			out = to.slot(old.locals[n])
		}
		if out < 0 && state == stateDecided {
			state = stateOpen // its way out is gone; user space finds another
		}
		r.flow.outSlot = uint8(out)
		r.state.Store(stateOff)
		r.sequence.Store(0) // unknown: what the old record still counts is no gap in this one
		copy(bytesOf(c.to), bytesOf(&r))
		copy(bytesOf(&to.sides[j]), bytesOf(&s))
		c.to.state.Store(state)
		old.copied = append(old.copied, c)
	}
}

// settle adds what was counted in the old records after they were copied; the
// programs count in the new ones now.
func (old *left) settle() {
	for _, c := range old.copied {
		var r record
		var s side
		old.layout.copyRecord(&r, &s, c.from, c.fromSide)
		c.to.packets.Add(r.packets.Load() - c.packets)
		c.to.bytes.Add(r.bytes.Load() - c.bytes)
		c.to.refused.Add(r.refused.Load() - c.refused)
		c.to.lost.Add(r.lost.Load() - c.lost)
		c.to.sequence.CompareAndSwap(0, r.sequence.Load()) // there was no packet since
	}
	old.close()
}

func bytesOf[T any](v *T) []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(v)), unsafe.Sizeof(*v))
}

// pinMaps puts the maps where the next process finds them, in place of old ones.
func (k *kernel) pinMaps(old *left) error {
	for name, m := range k.coll.Maps {
		if isConstant(name) {
			continue
		}
		file := filepath.Join(k.pins, name)
		if old == nil || old.folder != k.pins {
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
