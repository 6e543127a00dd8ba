package forward

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/btf"
)

// objects are the committed kernel programs, for both byte orders.
var objects = []string{"flow_bpfel.o", "flow_bpfeb.o"}

func readObject(t *testing.T, name string) *ebpf.CollectionSpec {
	t.Helper()
	spec, err := ebpf.LoadCollectionSpec(name)
	if err != nil {
		t.Fatalf("read %s: %v", name, err)
	}
	return spec
}

// span is where a field lies.
type span struct{ offset, size int }

// inGo are the fields of a table's structure by their names in C. Packed words are
// one field in Go and several in C.
func inGo(v reflect.Type, base int, found map[string]span) map[string]span {
	for i := range v.NumField() {
		f := v.Field(i)
		at := base + int(f.Offset)
		if f.Type == reflect.TypeFor[flowLine]() {
			inGo(f.Type, at, found)
			continue
		}
		name := inC(f.Name)
		if parts, ok := packed[f.Name]; ok {
			for part, s := range parts {
				found[part] = span{at + s.offset, s.size}
			}
			continue
		}
		if name == "_" {
			name = "spare at " + strconv.Itoa(at)
		}
		found[name] = span{at, int(f.Type.Size())}
	}
	return found
}

var packed = map[string]map[string]span{
	"detail":   {"generation": {0, 2}, "family": {2, 1}, "out_family": {3, 1}},
	"sequence": {"sequence": {0, 2}, "has_rtp": {2, 1}, "spare at": {3, 1}},
}

var capital = regexp.MustCompile(`[A-Z]`)

// inC is a Go name in the style of the C file.
func inC(name string) string {
	name = strings.ToLower(name[:1]) + name[1:]
	return capital.ReplaceAllStringFunc(name, func(s string) string { return "_" + strings.ToLower(s) })
}

// fromBTF are the fields that the object says its structure has.
func fromBTF(t *testing.T, s *btf.Struct) map[string]span {
	t.Helper()
	found := map[string]span{}
	for _, m := range s.Members {
		size, err := btf.Sizeof(m.Type)
		if err != nil {
			t.Fatalf("size of %s.%s: %v", s.Name, m.Name, err)
		}
		name, at := m.Name, int(m.Offset.Bytes())
		if strings.HasPrefix(name, "reserved") {
			name = "spare at " + strconv.Itoa(at)
			if m.Name == "reserved2" {
				name = "spare at" // the packed byte beside a sequence number
			}
		}
		found[name] = span{at, size}
	}
	return found
}

// The table in shared memory is read and written by two programs; they have to mean
// the same bytes.
func TestLayoutIsTheSameInBothLanguages(t *testing.T) {
	for _, object := range objects {
		spec := readObject(t, object)
		structs := map[string]*btf.Struct{}
		for name, m := range spec.Maps {
			if s, ok := m.Value.(*btf.Struct); ok && !isConstant(name) {
				structs[s.Name] = s
			}
		}
		for _, m := range structs["globals"].Members {
			if a, ok := m.Type.(*btf.Array); ok && m.Name == "locals" {
				structs["local"] = a.Type.(*btf.Struct)
			}
		}
		goTypes := map[string]reflect.Type{
			"flow": reflect.TypeFor[record](), "side": reflect.TypeFor[side](), "hop": reflect.TypeFor[hop](),
			"local": reflect.TypeFor[local](), "globals": reflect.TypeFor[globals](), "counts": reflect.TypeFor[kernelCounts](),
		}
		if got, want := slices.Sorted(maps.Keys(structs)), slices.Sorted(maps.Keys(goTypes)); !slices.Equal(got, want) {
			t.Errorf("%s: structures %q, want %q", object, got, want)
			continue
		}
		for name, s := range structs {
			want := inGo(goTypes[name], 0, map[string]span{})
			if got := fromBTF(t, s); !maps.Equal(got, want) {
				t.Errorf("%s: struct %s is\n %v in C\n %v in Go", object, name, got, want)
			}
			if got, want := int(s.Size), int(goTypes[name].Size()); got != want {
				t.Errorf("%s: struct %s has %d bytes in C, %d in Go", object, name, got, want)
			}
		}
	}
}

var (
	comment  = regexp.MustCompile(`(?s)//[^\n]*|/\*.*?\*/`)
	enumBody = regexp.MustCompile(`enum\s*\{([^}]*)\}`)
	enumItem = regexp.MustCompile(`(\w+)\s*=\s*(-?\w+)`)
)

// enums are the constants of a C file.
func enums(t *testing.T, name string) map[string]int64 {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("bpf", name))
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]int64{}
	for _, body := range enumBody.FindAllSubmatch(comment.ReplaceAll(text, nil), -1) {
		for _, item := range enumItem.FindAllSubmatch(body[1], -1) {
			n, err := strconv.ParseInt(strings.TrimRight(string(item[2]), "UL"), 0, 64)
			if err != nil {
				continue // computed from others
			}
			found[string(item[1])] = n
		}
	}
	return found
}

func TestConstantsAreTheSameInBothLanguages(t *testing.T) {
	want := map[string]int64{
		"table_version": tableVersion,
		"port_off":      stateOff, "port_open": stateOpen, "port_decided": stateDecided, "port_resting": stateResting,
		"max_locals": maxLocals, "max_hops": maxHops, "ports": portsPerSlot, "cpus_per_slot": cpusPerSlot, "max_sockets": maxLocals * cpusPerSlot,
	}
	if got := enums(t, "table.h"); !maps.Equal(got, want) {
		t.Errorf("table.h has %v, Go %v", got, want)
	}
	counting := enums(t, "quality.h")
	for name, want := range map[string]int64{"max_dropout": maxDropout, "max_misorder": maxMisorder} {
		if counting[name] != want {
			t.Errorf("quality.h has %s = %d, Go %d", name, counting[name], want)
		}
	}
	program := enums(t, "flow.c")
	// A relay that is a little late must not have its next hops distrusted.
	if trust := time.Duration(program["hop_trust_ns"]); trust < 3*beatInterval {
		t.Errorf("next hops are trusted for %v with a heartbeat each %v", trust, beatInterval)
	}
	if types, ok := reflect.TypeFor[side]().FieldByName("types"); !ok || types.Type.Len() != 4 {
		t.Errorf("quality.h looks at 4 payload types, Go at %v", types.Type)
	}
}

// Each map has the size that Go assumes when it maps it.
func TestMapsHaveTheSizesOfTheTable(t *testing.T) {
	for _, object := range objects {
		spec := readObject(t, object)
		got := map[string][2]uint32{}
		for name, m := range spec.Maps {
			if !isConstant(name) {
				got[name] = [2]uint32{m.ValueSize, m.MaxEntries}
			}
		}
		want := map[string][2]uint32{
			flowMapFlows: {uint32(recordSize), portsPerSlot}, flowMapSides: {uint32(sideSize), portsPerSlot},
			flowMapHops: {uint32(reflect.TypeFor[hop]().Size()), maxHops}, flowMapGlobals: {uint32(reflect.TypeFor[globals]().Size()), 1},
			flowMapStats: {uint32(reflect.TypeFor[kernelCounts]().Size()), 1}, flowMapSockets: {8, maxLocals * cpusPerSlot},
		}
		if !maps.Equal(got, want) {
			t.Errorf("%s: value sizes and entries %v, want %v", object, got, want)
		}
	}
}

// The program is not GPL: it may call only what the kernel gives to everyone.
func TestLicenceAndHelpers(t *testing.T) {
	allowed := []asm.BuiltinFunc{
		asm.FnMapLookupElem, asm.FnKtimeGetNs, asm.FnKtimeGetCoarseNs, asm.FnGetSmpProcessorId, asm.FnSkbPullData,
		asm.FnL4CsumReplace, asm.FnRedirect, asm.FnRedirectNeigh, asm.FnSkAssign, asm.FnSkRelease,
	}
	for _, object := range objects {
		spec := readObject(t, object)
		called := map[asm.BuiltinFunc]bool{}
		for name, p := range spec.Programs {
			if p.License != "Apache-2.0" {
				t.Errorf("%s: %s is under %q", object, name, p.License)
			}
			for _, in := range p.Instructions {
				if in.IsKfuncCall() {
					t.Errorf("%s: %s calls a kernel function without a stable interface: %v", object, name, in)
				}
				if in.IsBuiltinCall() {
					called[asm.BuiltinFunc(in.Constant)] = true
				}
			}
		}
		for f := range called {
			if !slices.Contains(allowed, f) {
				t.Errorf("%s calls %v, which is not on the list", object, f)
			}
		}
		for _, f := range allowed {
			if !called[f] {
				t.Errorf("%s: the list has %v, which nothing calls", object, f)
			}
		}
	}
}

// Whoever builds the objects again gets the same bytes: nothing of the machine is in
// them, and no debug information besides BTF.
func TestObjectsNameNoPlace(t *testing.T) {
	for _, object := range objects {
		f, err := elf.Open(object)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		sources := 0
		for _, s := range f.Sections {
			if strings.HasPrefix(s.Name, ".debug") {
				t.Errorf("%s has a section %s", object, s.Name)
			}
			b, err := s.Data()
			if err != nil || s.Name != ".BTF" && s.Type != elf.SHT_STRTAB {
				continue
			}
			if s.Name == ".BTF" { // header: magic, version, flags; its length; types: offset, length; strings: the same
				header := f.ByteOrder.Uint32(b[4:])
				b = b[header+f.ByteOrder.Uint32(b[16:]):][:f.ByteOrder.Uint32(b[20:])]
			}
			for text := range bytes.SplitSeq(b, []byte{0}) {
				if len(text) > 1 && text[0] == '/' && text[1] != '/' {
					t.Errorf("%s names the place %s", object, text)
				}
				if bytes.HasSuffix(text, []byte("flow.c")) {
					sources++
				}
			}
		}
		if sources == 0 {
			t.Errorf("%s: its own source file is not found; the test looks at the wrong bytes", object)
		}
		want := binary.ByteOrder(binary.LittleEndian)
		if strings.Contains(object, "eb") {
			want = binary.BigEndian
		}
		if f.ByteOrder != want {
			t.Errorf("%s is %v", object, f.ByteOrder)
		}
	}
}
