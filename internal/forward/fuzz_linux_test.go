package forward

import (
	"encoding/binary"
	"math/rand/v2"
	"testing"
)

// FuzzKernel gives the program frames that nobody thought of. selector picks a port,
// the relay's health and the limits; the comparison is that of TestKernelIsTheModel.
func FuzzKernel(f *testing.F) {
	needsNetwork(f)
	w := newWorld(f, false)
	g := &generator{Rand: rand.New(rand.NewPCG(1, 1)), ports: w.list, sequence: map[*modelPort]uint16{}}
	for i := range 200 {
		frame, segments := g.frame()
		f.Add(frame, uint16(i), byte(segments))
	}
	f.Fuzz(func(t *testing.T, frame []byte, selector uint16, segments byte) {
		if len(frame) > 1700 {
			return
		}
		w.fill()
		r := rand.New(rand.NewPCG(uint64(selector), 0))
		w.weather(r)
		frame = aim(append([]byte(nil), frame...), w.list[r.IntN(len(w.list))], r.IntN(3))
		if p := w.ports[read(frame).dest]; p != nil {
			w.limits(p, r)
		}
		if err := w.check(frame, uint32(segments%4)); err != nil {
			t.Fatalf("%d segments\n    %x\n    %v", segments%4, frame, err)
		}
	})
}

// aim leaves a frame as it is (0), sends it to a port (1), from its party (2).
func aim(b []byte, p *modelPort, how int) []byte {
	d := read(b)
	if how == 0 || d.why != "" || d.v4 != p.local.Addr().Is4() {
		return b
	}
	source, dest, size := d.ip[12:], d.ip[16:], 4
	if !d.v4 {
		source, dest, size = d.ip[8:], d.ip[24:], 16
	}
	copy(dest[:size], p.local.Addr().AsSlice())
	binary.BigEndian.PutUint16(d.udp[2:], p.local.Port())
	if how == 2 && p.source.IsValid() {
		copy(source[:size], p.source.Addr().AsSlice())
		binary.BigEndian.PutUint16(d.udp[0:], p.source.Port())
	}
	return b
}
