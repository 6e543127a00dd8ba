package forward

import (
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"unsafe"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// testPins is a folder for pins that goes away with the test.
func testPins(t *testing.T) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: BPF maps")
	}
	folder := filepath.Join("/sys/fs/bpf", fmt.Sprintf("mediaproxy-test-%d-%s", os.Getpid(), t.Name()))
	if _, err := pinFolder(folder); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(folder) })
	return folder
}

func testKernel(t *testing.T, pins string, locals ...string) *kernel {
	t.Helper()
	cfg := Config{Pins: pins}
	for _, l := range locals {
		cfg.Locals = append(cfg.Locals, netip.MustParseAddr(l))
	}
	k, err := openKernel(complete(cfg), []string{flowProgFlowTc}, false, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(k.abandon)
	return k
}

// settled does what start does after the programs were replaced.
func (k *kernel) settled() {
	if k.old != nil {
		k.old.settle()
		k.old = nil
	}
}

func portOf(local string) netip.AddrPort { return netip.MustParseAddrPort(local) }

// A relay that has another set of addresses keeps the flows of those that it still has.
func TestFlowsSurviveAnotherSetOfAddresses(t *testing.T) {
	pins := testPins(t)
	first := testKernel(t, pins, "192.0.2.1", "2001:db8::1")
	at := func(k *kernel, local string) *record {
		i, ok := k.mem.index(portOf(local))
		if !ok {
			t.Fatalf("%s is not in the table", local)
		}
		return &k.mem.records[i]
	}
	for _, local := range []string{"192.0.2.1:40000", "[2001:db8::1]:40002"} {
		r := at(first, local)
		r.packets.Store(1000)
		r.decide(flowLine{hop: 3, outSlot: uint8(first.mem.slot(portOf(local).Addr())), destPort: [2]byte{1, 2}}, familyOf(portOf(local).Addr()))
	}
	toV6 := at(first, "192.0.2.1:40010") // its way out will be gone
	toV6.decide(flowLine{outSlot: 1}, 4)
	first.hops.mem[3].gateway = [16]byte{9}
	first.settled()

	second := testKernel(t, pins, "192.0.2.7", "192.0.2.1")
	// The old program still counts.
	at(first, "192.0.2.1:40000").packets.Add(5)
	second.settled()
	r := at(second, "192.0.2.1:40000")
	if r.state.Load() != stateDecided || r.packets.Load() != 1005 || r.flow.hop != 3 || r.flow.outSlot != 1 || r.flow.destPort != [2]byte{1, 2} {
		t.Errorf("state %d, %d packets, flow %+v", r.state.Load(), r.packets.Load(), r.flow)
	}
	if s := at(second, "192.0.2.1:40010").state.Load(); s != stateOpen {
		t.Errorf("a flow without a way out has state %d, want open", s)
	}
	if s := at(second, "192.0.2.7:40000").state.Load(); s != stateOff {
		t.Errorf("a port of a new address has state %d", s)
	}
	if second.hops.mem[3].gateway != [16]byte{9} {
		t.Error("the next hops were not copied")
	}
	// The pins are those of the new table: a third process finds them as they are.
	third := testKernel(t, pins, "192.0.2.7", "192.0.2.1")
	if third.old == nil || !third.old.same {
		t.Error("the next process does not find the table")
	}
	if n := at(third, "192.0.2.1:40000").packets.Load(); n != 1005 {
		t.Errorf("%d packets, want 1005", n)
	}
	third.settled()
}

// A table of another version is read by its own functions, and its folder goes away.
func TestFlowsSurviveAnotherVersion(t *testing.T) {
	pins := testPins(t)
	const shift = 8 // version 0 has this much more in each record
	layouts["v0"] = layout{
		version: 0, recordSize: uint32(recordSize + shift), sideSize: uint32(sideSize), hopSize: uint32(unsafe.Sizeof(hop{})),
		locals: localsOf,
		copyRecord: func(to *record, toSide *side, from, fromSide []byte) {
			copy(bytesOf(to)[:64], from)
			copy(bytesOf(to)[64:], from[64+shift:])
			copy(bytesOf(toSide), fromSide)
		},
		copyHop: layouts[abiFolder].copyHop,
	}
	t.Cleanup(func() { delete(layouts, "v0") })
	old := filepath.Join(pins, "v0")
	if err := os.Mkdir(old, 0o700); err != nil {
		t.Fatal(err)
	}
	spec, err := flowSpec(1, nil)
	if err != nil {
		t.Fatal(err)
	}
	spec.Maps[flowMapFlows].ValueSize += shift
	spec.Maps[flowMapFlows].Value = nil
	var packets *uint64
	for name, m := range spec.Maps {
		if isConstant(name) {
			continue
		}
		m, err := ebpf.NewMap(m)
		if err != nil {
			t.Fatal(err)
		}
		defer m.Close()
		if err := m.Pin(filepath.Join(old, name)); err != nil {
			t.Fatal(err)
		}
		if name != flowMapFlows && name != flowMapGlobals {
			continue
		}
		b, err := mapValues(m)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Munmap(b[:cap(b)])
		if name == flowMapGlobals {
			g := (*globals)(unsafe.Pointer(&b[0]))
			g.locals[0] = local{addr: rawAddr(netip.MustParseAddr("192.0.2.1")), family: 4}
			g.localsUsed.Store(1)
			continue
		}
		r := b[40000*(recordSize+shift):]
		*(*uint32)(unsafe.Pointer(&r[0])) = stateDecided
		packets = (*uint64)(unsafe.Pointer(&r[64+shift]))
		*packets = 77
	}
	os.Mkdir(filepath.Join(pins, "v999"), 0o700)

	k := testKernel(t, pins, "192.0.2.1")
	*packets = 80
	k.settled()
	r := &k.mem.records[40000]
	if r.state.Load() != stateDecided || r.packets.Load() != 80 {
		t.Errorf("state %d, %d packets, want decided and 80", r.state.Load(), r.packets.Load())
	}
	if _, err := os.Stat(filepath.Join(pins, "v999")); !os.IsNotExist(err) {
		t.Error("what a version left that nobody can read is still there")
	}
	if _, err := os.Stat(filepath.Join(pins, abiFolder, flowMapFlows)); err != nil {
		t.Errorf("the new table is not pinned: %v", err)
	}
}
