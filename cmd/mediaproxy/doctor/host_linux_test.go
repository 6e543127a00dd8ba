package doctor

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// What every Linux has, whoever asks.
func TestThisHost(t *testing.T) {
	h, err := This()
	if err != nil {
		t.Fatal(err)
	}
	devices, err := h.Devices()
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(devices, func(d Device) bool { return d.Name == "lo" })
	if i < 0 || !devices[i].Loopback || devices[i].Index == 0 || devices[i].Hardware == ethernet || devices[i].Offloads == nil {
		t.Errorf("devices: %+v", devices)
	}
	if devices[i].Up && !slices.Contains(devices[i].Addresses, netip.MustParseAddr("127.0.0.1")) {
		t.Errorf("lo has %v", devices[i].Addresses)
	}
	f := gather(h, goodRelay())
	if !f.known || !f.kernel.atLeast(3, 0) || f.self.pid != os.Getpid() || f.self.uid != os.Geteuid() || f.processors == 0 || f.self.files == 0 {
		t.Errorf("kernel %q, process %+v, %d processors", f.release, f.self, f.processors)
	}
}

func TestFolder(t *testing.T) {
	dir := t.TempDir()
	inner := filepath.Join(dir, "a")
	if err := os.Mkdir(inner, 0o750); err != nil {
		t.Fatal(err)
	}
	d := this{}.Folder(inner)
	if last := d.last(); !d.exists() || last.Path != inner || last.UID != os.Geteuid() || last.Mode.Perm() != 0o750 || d.Steps[0].Path != "/" || d.Free == 0 || d.ReadOnly {
		t.Errorf("%+v", d)
	}
	if d := (this{}).Folder(inner + "/b/c/"); d.exists() || d.last().Path != inner || d.Path != inner+"/b/c" {
		t.Errorf("%+v", d)
	}
	if d := (this{}).Folder("/"); !d.exists() || len(d.Steps) != 1 {
		t.Errorf("%+v", d)
	}
}

// Attributes that are read lie one after the other in what was given, and none is
// longer than that.
func FuzzAttributes(f *testing.F) {
	f.Add([]byte{8, 0, 1, 0, 1, 2, 3, 4, 5, 0, 2, 0, 9, 0, 0, 0})
	f.Add([]byte{3, 0, 1, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		at := 0
		for kind, value := range attributes(b) {
			if at+4 > len(b) || int(binary.NativeEndian.Uint16(b[at:])) != len(value)+4 || !bytes.Equal(b[at+4:at+4+len(value)], value) {
				t.Fatalf("attribute %d at %d of %x: %x", kind, at, b, value)
			}
			at = min(len(b), (at+4+len(value)+3)&^3)
		}
		if rest := b[at:]; len(rest) >= 4 {
			if size := int(binary.NativeEndian.Uint16(rest)); size >= 4 && size <= len(rest) {
				t.Errorf("%x of %x was not read", rest, b)
			}
		}
		c, _ := chainOf(b)
		if len(c.Table)+len(c.Name) > len(b) {
			t.Errorf("%+v from %x", c, b)
		}
	})
}
