package forward

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/cilium/ebpf"
)

// A flow is written anew while packets are on their way through it: each leaves by
// one flow as a whole, or not at all. Half of an old one with half of a new one would
// send a call to a stranger.
func TestFlowsAreNeverMixed(t *testing.T) {
	rounds := 150_000
	if soaking() {
		rounds = 2_000_000
	}
	for _, v4 := range []bool{true, false} {
		t.Run(fmt.Sprintf("IPv4=%v", v4), func(t *testing.T) {
			w := newWorld(t, !v4) // each way of reading with one of the families
			p := w.port("decided", v4)
			rec, s := w.record(p.local)
			out := [2]netip.AddrPort{p.out, netip.AddrPortFrom(p.local.Addr(), 50001)}
			family := familyOf(p.local.Addr())
			var lines [2]flowLine
			var frames, want [2][]byte
			for i, hop := range []int{0, 2} { // both ready, with other link-layer addresses
				f := Flow{Source: netip.AddrPortFrom(stranger(p.local.Addr(), 10+i), uint16(1111*(i+1))), Dest: netip.AddrPortFrom(stranger(p.local.Addr(), 200+i), uint16(7777*(i+1)))}
				lines[i] = lineOf(&entry{local: p.local}, f, &entry{local: out[i]}, w.k.mem.slot(out[i].Addr()), uint16(hop+1))
				frames[i] = build(f.Source, p.local, rtpPacket(1, 7)[:60], options{hops: 64})
				p.source, p.dest, p.out, p.hop = f.Source, f.Dest, out[i], w.hops[hop]
				w.lease, w.silence = 1<<62, 0
				want[i] = w.judge(frames[i], 0).frame
			}
			w.k.global.strangerGap, w.k.global.knownGap = 0, 0
			w.k.global.lease.Store(1 << 62)
			w.k.global.heartbeat.Store(uint64(coarse()) + 1e15) // no matter how long it takes
			w.write(p)

			var stop atomic.Bool
			var written uint64
			var wg sync.WaitGroup
			wg.Go(func() {
				r := rand.New(rand.NewPCG(1, 1))
				for ; !stop.Load(); written++ {
					switch r.IntN(12) {
					case 0:
						rec.open()
					case 1:
						rec.state.Store(stateResting)
					case 2:
						rec.reset(s, family, stateOpen)
					default:
						rec.decide(lines[r.IntN(2)], family)
					}
				}
			})
			var moved [2]int
			options := ebpf.RunOptions{DataOut: make([]byte, 256)}
			for i := range rounds {
				which := i % 2
				options.Data, options.DataOut = frames[which], options.DataOut[:256]
				action, err := w.program.Run(&options)
				if err != nil {
					t.Fatal(err)
				}
				if int32(action) == sentOn {
					moved[which]++
					if !bytes.Equal(options.DataOut, want[which]) {
						t.Errorf("a packet of flow %d left as\n    %x, want\n    %x", which, options.DataOut, want[which])
						break
					}
				} else if !bytes.Equal(options.DataOut, frames[which]) {
					t.Errorf("verdict %d with bytes changed: %x", int32(action), options.DataOut)
					break
				}
			}
			stop.Store(true)
			wg.Wait()
			t.Logf("%d packets, %d and %d moved, %d flows written", rounds, moved[0], moved[1], written)
			if min(moved[0], moved[1]) < rounds/100 || written < uint64(rounds) {
				t.Errorf("%d and %d of %d moved, %d flows written: that proves nothing", moved[0], moved[1], rounds, written)
			}
		})
	}
}

// A neighbour gets another link-layer address under traffic: each frame goes to the
// old or the new one, or has the kernel look for it.
func TestNextHopsAreNeverMixed(t *testing.T) {
	w := newWorld(t, false)
	p := w.port("decided", true)
	w.k.global.heartbeat.Store(uint64(coarse()) + 1e15)
	key := hopKey{1, addr("192.0.2.99")}
	h := hops{mem: w.bench.hops, byKey: map[hopKey]uint16{key: 1}, links: map[int]device{1: {mac: [6]byte{2, 9, 9, 9, 9, 9}, mtu: 1500, ethernet: true}}, neighbours: map[hopKey]neighbour{}}
	macs := [2][6]byte{{2, 0x11, 0x11, 0x11, 0x11, 0x11}, {2, 0xee, 0xee, 0xee, 0xee, 0xee}}
	h.writeLocked(key)
	var stop atomic.Bool
	var wg sync.WaitGroup
	wg.Go(func() {
		for i := 0; !stop.Load(); i++ {
			h.neighbours[key] = neighbour{mac: macs[i%2], ready: true}
			h.writeLocked(key)
		}
	})
	frame := build(p.source, p.local, rtpPacket(1, 7)[:60], options{hops: 64})
	options := ebpf.RunOptions{Data: frame, DataOut: make([]byte, 256)}
	seen := map[[12]byte]int{}
	for range 150_000 {
		options.DataOut = options.DataOut[:256]
		if action, err := w.program.Run(&options); err != nil || int32(action) != sentOn {
			t.Fatalf("verdict %d: %v", int32(action), err)
		}
		seen[[12]byte(options.DataOut)]++
	}
	stop.Store(true)
	wg.Wait()
	own := h.links[1].mac
	for i, want := range [][]byte{frame[:12], append(macs[0][:], own[:]...), append(macs[1][:], own[:]...)} {
		if seen[[12]byte(want)] < 100 {
			t.Errorf("%d frames had the addresses %x: that proves nothing", seen[[12]byte(want)], want)
		}
		if i == 2 && len(seen) != 3 {
			t.Errorf("%d different addresses: %x", len(seen), seen)
		}
	}
}
