package attack

import (
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"example.org/mediaproxy/internal/report"
	"example.org/mediaproxy/test/internal/netlab"
	"example.org/mediaproxy/test/internal/program"
)

// victim is an established call in a world without any other.
type victim struct {
	*call
	meters [2]*netlab.Meter // of what comes from the relay to each party's host
}

// establishVictim makes a call and waits until it is moved as it is to be.
func (w *world) establishVictim(mover string) *victim {
	w.t.Helper()
	callee := &place{name: "callee", ips: []netip.Addr{addr("45.30.9.11")}}
	callee.host = w.lab.Host(callee.name, callee.ips...)
	v := &victim{}
	for side, at := range []*place{w.callers[0], callee} {
		v.meters[side] = at.host.Meter("heard", relayIP)
	}
	var err error
	v.call, err = w.newCall(plan{number: 1, places: [2]*place{w.callers[0], callee}, len: lengths{ring: 100 * time.Millisecond}})
	w.t.Cleanup(v.close)
	if err == nil {
		err = v.establish(w.t.Context())
	}
	if err == nil {
		err = until(w.t.Context(), stall*5, func() bool {
			legs, _, err := v.explain()
			return err == nil && legs[0].Mover == mover && legs[1].Mover == mover
		})
	}
	if err != nil {
		legs, _, problem := v.explain()
		w.t.Fatalf("%s is not moved by %s: %v, %v: %+v", v.call, mover, err, problem, legs)
	}
	return v
}

// explain asks about the call: the RTP legs of both parties, and how many packets from
// strangers at the caller's port user space has looked at.
func (c *call) explain() (legs [2]report.Leg, looked uint64, err error) {
	docs, err := program.Documents[report.Explanation](c.w.pair, "explain", c.id())
	if err != nil || len(docs) != 1 || len(docs[0].Streams) != 1 || len(docs[0].Streams[0].Legs) != 4 {
		return legs, 0, fmt.Errorf("explain: %+v %w", docs, err)
	}
	s := docs[0].Streams[0]
	for _, d := range s.Decisions {
		if d.Why.Refused() && d.Party == "caller" && d.Path == "RTP" {
			looked += max(1, d.Count)
		}
	}
	return [2]report.Leg(s.Legs[:2]), looked, nil
}

// expectUntouched ends the media and fails the test unless the parties heard all of
// each other, and their hosts nothing else from the relay.
func (v *victim) expectUntouched() {
	t := v.w.t
	t.Helper()
	for _, p := range v.phones {
		p.Pause()
	}
	for side, p := range v.phones {
		var sent uint64
		for _, n := range v.phones[1-side].Counts().Sent {
			sent += n
		}
		heard := func() (n uint64) {
			for _, h := range p.Counts().Heard {
				n += h
			}
			return n
		}
		if until(t.Context(), 2*stall, func() bool { return heard() == sent }) != nil {
			t.Errorf("party %d heard %d of the other's %d packets", side, heard(), sent)
		}
		if n := p.Counts().Strays; n > 0 {
			t.Errorf("party %d got %d packets that were not for it, the first %s", side, n, p.Stray())
		}
		if got := v.meters[side].Packets(); got != sent {
			t.Errorf("%d packets came to the host of party %d, want the other party's %d", got, side, sent)
		}
	}
}

// stranger opens a socket at which nothing may be heard.
func (w *world) stranger(host *netlab.Host, from netip.AddrPort) *net.UDPConn {
	w.t.Helper()
	conn, err := host.ListenUDP(from)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() {
		conn.SetReadDeadline(time.Now().Add(time.Millisecond))
		if n, src, err := conn.ReadFromUDPAddrPort(make([]byte, 2000)); err == nil {
			w.t.Errorf("a stranger at %s heard %d bytes from %s", from, n, src)
		}
		conn.Close()
	})
	return conn
}

// TestStrangers sends to the port of an established call from every source that is
// nearly the right one. All of it is refused and counted, whoever moves the call.
func TestStrangers(t *testing.T) {
	netlab.Needs(t)
	binary := program.Build(t)
	for way, mover := range map[string]string{kernel: "tc", "sk_lookup": "user-space", userSpace: "user-space"} {
		t.Run(way, func(t *testing.T) {
			w := newQuietWorld(t, binary, program.Settings{"fast_path": way})
			v := w.establishVictim(mover)
			other := w.lab.Host("other", addr("45.99.0.66"))
			right := v.phones[0].Addr()
			from := []*net.UDPConn{
				w.stranger(v.places[0].host, netip.AddrPortFrom(right.Addr(), 9000)),
				w.stranger(other, netip.AddrPortFrom(addr("45.99.0.66"), right.Port())),
				w.stranger(other, netip.AddrPortFrom(addr("45.99.0.66"), 9000)),
			}
			packet := rtpWeapon.build(7)
			const each = 100
			for range each {
				for _, c := range from {
					rtpWeapon.next(packet)
					if _, err := c.WriteToUDPAddrPort(packet, v.to[0]); err != nil {
						t.Fatal(err)
					}
				}
				if err := pass(t.Context(), 5*time.Millisecond); err != nil {
					t.Fatal(err)
				}
			}
			want := uint64(each * len(from))
			var leg report.Leg
			if until(t.Context(), 2*stall, func() bool { legs, _, _ := v.explain(); leg = legs[0]; return leg.Refused >= want }) != nil || leg.Refused != want {
				t.Errorf("%d packets are counted as refused, want %d: %+v", leg.Refused, want, leg)
			}
			if leg.Learned != right.String() {
				t.Errorf("the caller is believed to be at %s, want %s", leg.Learned, right)
			}
			v.expectUntouched()
			if way == kernel {
				w.checkMover(way)
			}
		})
	}
}

// Between packets of strangers that the kernel passes up from one port: of addresses
// that nobody knows, and of those that the call's signalling or media named.
const (
	strangerGap = 5 * time.Millisecond
	knownGap    = 2 * time.Millisecond
)

// TestFlood injects a million packets at an established call that the kernel moves. None
// comes out, the call loses nothing, and the relay's process looks at few of them.
func TestFlood(t *testing.T) {
	netlab.Needs(t)
	w := newQuietWorld(t, program.Build(t), program.Settings{"fast_path": kernel})
	v := w.establishVictim("tc")
	other := w.lab.Host("other", addr("45.99.0.66"))
	floods := []struct {
		name string
		from *net.UDPConn
		gap  time.Duration
	}{
		{"a stranger", w.stranger(other, netip.MustParseAddrPort("45.99.0.66:9000")), strangerGap},
		{"another port of the caller", w.stranger(v.places[0].host, netip.AddrPortFrom(v.phones[0].Addr().Addr(), 9000)), knownGap},
	}
	total, looked := uint64(0), uint64(0)
	for _, f := range floods {
		busy, start := cpuTime(t, w.pair.RelayPID()), time.Now()
		sent, err := flood(t.Context(), f.from, v.to[0], 500_000)
		if err != nil {
			t.Fatal(err)
		}
		elapsed := time.Since(start)
		busy = cpuTime(t, w.pair.RelayPID()) - busy
		total += sent
		var leg report.Leg
		var now uint64
		err = until(t.Context(), 2*stall, func() bool {
			legs, n, err := v.explain()
			leg, now = legs[0], n
			return err == nil && leg.Refused >= total
		})
		if err != nil || leg.Refused != total {
			t.Errorf("from %s: %d packets are counted as refused, %d were sent", f.name, leg.Refused, total)
		}
		raised := now - looked
		looked = now
		if limit := uint64(elapsed/f.gap) + 2; raised > limit || raised == 0 {
			t.Errorf("from %s: the relay's process looked at %d packets in %v, want at most %d, and some", f.name, raised, elapsed, limit)
		}
		t.Logf("%s: %d packets in %v (%.0f a second), of which the relay's process looked at %d; it was busy for %v, %.1f %% of a processor",
			f.name, sent, elapsed.Round(time.Millisecond), float64(sent)/elapsed.Seconds(), raised, busy, 100*busy.Seconds()/elapsed.Seconds())
	}
	v.expectUntouched()
	w.checkMover(kernel)
}

// flood sends so many packets, a hundred each millisecond: a queue of the kernel has
// room for a thousand, and what overflows it says nothing about the relay.
func flood(ctx context.Context, from *net.UDPConn, to netip.AddrPort, count uint64) (sent uint64, err error) {
	raw, err := from.SyscallConn()
	if err != nil {
		return 0, err
	}
	from.SetWriteBuffer(4 << 20)
	name := unix.RawSockaddrInet4{Family: unix.AF_INET, Addr: to.Addr().As4()}
	binary.BigEndian.PutUint16((*[2]byte)(unsafe.Pointer(&name.Port))[:], to.Port())
	const slice = 100
	var iovs [slice]unix.Iovec
	var batch [slice]mmsghdr
	packets := make([][]byte, slice)
	for i := range batch {
		packets[i] = rtpWeapon.build(uint32(i))
		iovs[i].Base = &packets[i][0]
		iovs[i].SetLen(len(packets[i]))
		batch[i] = messageTo(&name, &iovs[i])
	}
	ticker := time.NewTicker(time.Millisecond)
	defer ticker.Stop()
	for sent < count {
		select {
		case <-ctx.Done():
			return sent, context.Cause(ctx)
		case <-ticker.C:
		}
		for _, p := range packets {
			rtpWeapon.next(p)
		}
		var n uintptr
		var errno unix.Errno
		if err := raw.Control(func(fd uintptr) {
			n, _, errno = unix.Syscall6(unix.SYS_SENDMMSG, fd, uintptr(unsafe.Pointer(&batch[0])), slice, 0, 0, 0)
		}); err != nil || errno != 0 {
			return sent, fmt.Errorf("flood: %v, %w", err, errno)
		}
		sent += uint64(n)
	}
	return sent, nil
}

// cpuTime is what a process has used so far (proc(5)).
func cpuTime(t *testing.T, pid int) time.Duration {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(text), ") ")
	fields := strings.Fields(rest)
	var ticks int
	for _, i := range []int{11, 12} { // utime and stime, counted from the state
		n, err := strconv.Atoi(fields[i])
		if err != nil {
			t.Fatal(err)
		}
		ticks += n
	}
	return time.Duration(ticks) * time.Second / 100
}
