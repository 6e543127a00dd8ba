package forward

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestPutHeaders(t *testing.T) {
	for _, c := range []struct {
		name, from, to string
		hops, tos      int
		payload, want  string
	}{
		{"IPv4", "192.0.2.1:30000", "198.51.100.2:4000", 63, 0xb8, "hello!",
			"45b8002200000000 3f118edc c0000201 c6336402" + "75300fa0000e4ad7"},
		{"IPv4, the usual hops and class", "192.0.2.1:1", "192.0.2.2:2", -1, -1, "",
			"4500001c00000000 4011f6cd c0000201 c0000202" + "0001000200087bd7"},
		{"IPv6", "[2001:db8::1]:30000", "[2001:db8::2]:4000", 1, 0xb8, "hello!",
			"6b800000000e1101 20010db8000000000000000000000001 20010db8000000000000000000000002" + "75300fa0000edb99"},
		{"odd length", "192.0.2.1:1", "192.0.2.2:2", 64, 0, "\xff",
			"4500001d00000000 4011f6cc c0000201 c0000202" + "0001000200097cd4"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var b [largestHeader]byte
			for i := range b {
				b[i] = 0xee // of the datagram before
			}
			n := putHeaders(&b, netip.MustParseAddrPort(c.from), netip.MustParseAddrPort(c.to), c.hops, c.tos, []byte(c.payload))
			if got, want := hex.EncodeToString(b[:n]), strings.ReplaceAll(c.want, " ", ""); got != want {
				t.Errorf("got  %s\nwant %s", got, want)
			}
		})
	}
}

// Whatever the datagram is, receivers find its checksums right, and never 0.
func TestPutHeadersAddsUp(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for i := range 20_000 {
		local := []netip.Addr{addr("192.0.2.1"), addr("2001:db8::1")}[i%2]
		from := netip.AddrPortFrom(local, uint16(r.Uint32()))
		to := netip.AddrPortFrom(stranger(local, r.IntN(256)), uint16(r.Uint32()))
		payload := make([]byte, 2+r.IntN(300))
		for i := range payload[2:] {
			payload[2+i] = byte(r.Uint32())
		}
		write := func() (udp []byte) {
			t.Helper()
			var b [largestHeader]byte
			n := putHeaders(&b, from, to, r.IntN(256), r.IntN(256), payload)
			f := append(make([]byte, 12), []byte{8, 0, 0x86, 0xdd}[i%2*2:][:2]...)
			f = append(append(f, b[:n]...), payload...)
			udp = udpOf(f)
			if err := wrongChecksum(frame{bytes: f}); err != nil || len(udp) != 8+len(payload) || udp[6] == 0 && udp[7] == 0 {
				t.Fatalf("%x: %v", f, err)
			}
			return udp
		}
		copy(payload, write()[6:8]) // what lacked: now the sum is 0xffff, its inverse 0
		if udp := write(); udp[6] != 0xff || udp[7] != 0xff {
			t.Fatalf("checksum %x, want ffff for 0", udp[6:8])
		}
	}
}

func TestChecksumIsTheSlowOne(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for range 20_000 {
		b := make([]byte, r.IntN(200))
		for i := range b {
			b[i] = byte(r.Uint32()) | byte(r.IntN(2)*255) // many carries
		}
		cut := r.IntN(len(b)+1) &^ 1 // parts that follow each other end at a word
		if got, want := foldChecksum(checksum(b[cut:], checksum(b[:cut], 0))), ones(b); got != want {
			t.Fatalf("%x in %d and %d bytes: %#04x, want %#04x", b, cut, len(b)-cut, got, want)
		}
	}
}

// A header that was right is right after its addresses and ports changed.
func TestChangeIsTheDifference(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	for range 50_000 {
		size := 2 * (1 + r.IntN(18))
		from, to, rest := make([]byte, size), make([]byte, size), make([]byte, 2+2*r.IntN(4))
		for _, b := range [][]byte{from, to, rest} {
			for i := range b {
				b[i] = byte(r.Uint32()) | byte(r.IntN(2)*255)
			}
		}
		check := ^ones(from, rest)
		// As the kernel program has it, in the order of bytes in memory (RFC 1624).
		sum := uint32(^binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, check))) + change(from, to)
		sum = sum&0xffff + sum>>16
		sum = sum&0xffff + sum>>16
		got := binary.BigEndian.Uint16(binary.NativeEndian.AppendUint16(nil, ^uint16(sum)))
		if want := ^ones(to, rest); got%0xffff != want%0xffff {
			t.Fatalf("%x to %x beside %x: %#04x, want %#04x", from, to, rest, got, want)
		}
	}
	if change([]byte{1, 2, 3, 4}, []byte{1, 2, 3, 4})%0xffff != 0 {
		t.Error("no change is a change")
	}
}

// Large datagrams of one port may be in the hands of several threads at once.
func TestLargeDatagramsOfOnePort(t *testing.T) {
	to := phone(t, "127.0.0.1")
	free := phone(t, "127.0.0.1")
	from := addrOf(free)
	free.Close()
	errs := make(chan error, 4*100)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 100 {
				errs <- sendLarge(from, addrOf(to), make([]byte, 4000), -1, -1)
			}
		})
	}
	wg.Wait()
	close(errs)
	for err := range errs {
		if err != nil {
			t.Fatal(err)
		}
	}
	if got, source := receive(t, to); len(got) != 4000 || source != from {
		t.Errorf("%d bytes from %v, want 4000 from %v", len(got), source, from)
	}
}

// From the verdict about a datagram until it is sent through the raw socket.
func TestSteeredPathAllocatesNothing(t *testing.T) {
	needsNetwork(t)
	for _, ip := range []string{"127.0.0.1", "::1"} {
		callee := phone(t, ip)
		local, source := netip.AddrPortFrom(addr(ip), 30000), netip.AddrPortFrom(addr(ip), 4000)
		in, out := &port{entry: newEntry(local, handlerFunc(refuse))}, &port{entry: newEntry(netip.AddrPortFrom(addr(ip), 30002), handlerFunc(refuse))}
		in.Install(Flow{Source: source, Out: out, Dest: addrOf(callee)})
		var numbers idents
		numbers.init()
		s, err := newSender(addr(ip), &numbers)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(s.fd)
		w := &worker{log: slog.New(slog.DiscardHandler)}
		from, n := newSockaddr(source, addr(ip).Is6()), uint16(0)
		buffer := append(make([]byte, headerRoom), rtpPacket(1, 7)...)
		payload := buffer[headerRoom:]
		allocs := testing.AllocsPerRun(200, func() {
			n++
			binary.BigEndian.PutUint16(payload[2:], n)
			to, dest, flow := w.judge(in, &from, payload, time.Duration(n))
			if to != out || flow == nil || !w.lives(in, 64) {
				t.Fatal("not of the flow")
			}
			s.add(w, in, out, &dest, buffer, len(payload), 63, 0)
			s.flush(w)
		})
		if allocs != 0 {
			t.Errorf("%s: %v allocations per packet, want 0", ip, allocs)
		}
		if got := w.packets.Load(); got < 200 || w.sendErrors.Load() != 0 {
			t.Errorf("%s: %d packets sent, %d failed", ip, got, w.sendErrors.Load())
		}
		if got, from := receive(t, callee); !bytes.HasPrefix([]byte(got), payload[:2]) || from != out.local {
			t.Errorf("%s: %d bytes from %v", ip, len(got), from)
		}
	}
}
