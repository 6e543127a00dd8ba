package media

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"example.org/mediaproxy/internal/forward"
	"example.org/mediaproxy/internal/report"
	"example.org/mediaproxy/internal/wire/rtp"
)

const ms = time.Millisecond

func ap(s string) netip.AddrPort { return netip.MustParseAddrPort(s) }

// learnBench drives a learner as a table would: what it accepts refreshes the
// learned address.
type learnBench struct {
	learner
	now time.Duration
	cur current
	pol policy
	seq map[string]uint16
}

func newLearnBench() *learnBench {
	b := &learnBench{now: time.Hour, cur: current{lastSeen: forward.Never}, seq: map[string]uint16{}}
	b.maySend = true
	return b
}

func (b *learnBench) sdp(a, signalling string) {
	b.setSignalling(netip.MustParseAddr(signalling), b.now, b.pol.trusted)
	b.setSDP(ap(a), b.now)
}

func (b *learnBench) offer(s source) decision {
	s.now = b.now
	d := b.learn(s, b.cur, b.pol, true)
	if d.accepted {
		b.cur.lastSeen = b.now
		if s.kind == rtp.KindRTP {
			b.cur.quality = forward.Quality{SSRC: s.ssrc, Sequence: s.sequence, HasRTP: true}
		}
	}
	return d
}

// rtp sends n packets 20 ms apart and returns the last decision's reason, or
// "accepted" for one from the learned address.
func (b *learnBench) rtp(from string, ssrc uint32, n int) string {
	why := ""
	for range n {
		b.seq[from]++
		d := b.offer(source{addr: ap(from), kind: rtp.KindRTP, ssrc: ssrc, sequence: b.seq[from], consistent: true})
		why = reason(d)
		b.now += 20 * ms
	}
	return why
}

// pile is n packets that the relay could not look at when they came.
func (b *learnBench) pile(from string, ssrc uint32, n int) string {
	why := ""
	for now := b.now; n > 0; n-- {
		why = b.rtp(from, ssrc, 1)
		b.now = now
	}
	return why
}

func (b *learnBench) other(from string, kind rtp.Kind) string {
	return reason(b.offer(source{addr: ap(from), kind: kind}))
}

func reason(d decision) string {
	if d.why != "" {
		return string(d.why)
	}
	return fmt.Sprint("accepted ", d.accepted)[:8]
}

const (
	sdpAddr = "198.51.100.7:4000"
	natAddr = "203.0.113.50:31000" // the signalling's IP
	natIP   = "203.0.113.50"
	nearby  = "203.0.113.77:5000"
	far     = "192.0.2.66:6000"
)

func TestLearningRules(t *testing.T) {
	for _, c := range []struct {
		name string
		run  func(b *learnBench) string
		want report.Why
	}{
		{"before any SDP", func(b *learnBench) string { return b.rtp(sdpAddr, 1, 3) }, report.IgnoredBeforeSDP},
		{"rank 1 at once, before the answer", func(b *learnBench) string { b.sdp(sdpAddr, natIP); return b.rtp(sdpAddr, 1, 1) }, report.LearnedSDP},
		{"rank 1 by a keep-alive", func(b *learnBench) string { b.sdp(sdpAddr, natIP); return b.other(sdpAddr, rtp.KindOther) }, report.LearnedSDP},
		{"rank 2 by the signalling's IP", func(b *learnBench) string { b.sdp(sdpAddr, natIP); return b.rtp(natAddr, 1, 1) }, report.LearnedKnownIP},
		{"rank 2 by another port of the SDP's IP", func(b *learnBench) string { b.sdp(sdpAddr, natIP); return b.rtp("198.51.100.7:9", 1, 1) }, report.LearnedKnownIP},
		{"rank 2 by a trusted network", func(b *learnBench) string {
			b.pol.trusted = []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}
			b.sdp(sdpAddr, natIP)
			return b.rtp(far, 1, 1)
		}, report.LearnedTrusted},
		{"rank 3 before the answer", func(b *learnBench) string { b.sdp(sdpAddr, natIP); return b.rtp(nearby, 1, 200) }, report.IgnoredNotAnswered},
		{"rank 3 waits", func(b *learnBench) string { b.sdp(sdpAddr, natIP); b.answer(b.now); return b.rtp(nearby, 1, 25) }, report.IgnoredWaiting},
		{"rank 3 after the wait", func(b *learnBench) string { b.sdp(sdpAddr, natIP); b.answer(b.now); return b.rtp(nearby, 1, 28) }, report.LearnedNearby},
		{"rank 3 in a pile behind a stall", func(b *learnBench) string {
			b.sdp(sdpAddr, natIP)
			b.answer(b.now)
			b.now += time.Second
			return b.pile(nearby, 1, 200)
		}, report.IgnoredCollecting},
		{"rank 3 needs three packets", func(b *learnBench) string {
			b.sdp(sdpAddr, natIP)
			b.answer(b.now)
			b.now += time.Second
			return b.rtp(nearby, 1, 2)
		}, report.IgnoredCollecting},
		{"rank 3 while a known address sends", func(b *learnBench) string {
			b.sdp(sdpAddr, natIP)
			b.answer(b.now)
			b.now += time.Second
			b.other(natAddr, rtp.KindSTUN)
			b.forget(b.now - time.Second)
			return b.rtp(nearby, 1, 5)
		}, report.IgnoredWaiting},
		{"rank 4 waits longer", func(b *learnBench) string { b.sdp(sdpAddr, natIP); b.answer(b.now); return b.rtp(far, 1, 50) }, report.IgnoredWaiting},
		{"rank 4 after the wait", func(b *learnBench) string { b.sdp(sdpAddr, natIP); b.answer(b.now); return b.rtp(far, 1, 55) }, report.LearnedOther},
		{"rank 4 needs five packets", func(b *learnBench) string {
			b.sdp(sdpAddr, natIP)
			b.answer(b.now)
			b.now += 2 * time.Second
			return b.rtp(far, 1, 4)
		}, report.IgnoredCollecting},
		{"rank 4 of a party that does not send", func(b *learnBench) string {
			b.sdp(sdpAddr, natIP)
			b.answer(b.now)
			b.maySend = false
			b.now += 2 * time.Second
			return b.rtp(far, 1, 10)
		}, report.IgnoredDirection},
		{"changing SSRC is not consistent", func(b *learnBench) string {
			b.sdp(sdpAddr, natIP)
			b.answer(b.now)
			b.now += 2 * time.Second
			why := ""
			for i := range 20 {
				why = b.rtp(far, uint32(i), 1)
			}
			return why
		}, report.IgnoredCollecting},
		{"noise from elsewhere", func(b *learnBench) string {
			b.sdp(sdpAddr, natIP)
			b.answer(b.now)
			b.now += 2 * time.Second
			return b.other(far, rtp.KindSTUN)
		}, report.IgnoredInconsistent},
		{"a better rank replaces at once", func(b *learnBench) string { b.sdp(sdpAddr, natIP); b.rtp(natAddr, 1, 5); return b.rtp(sdpAddr, 2, 1) }, report.Replaced},
		{"a check takes nothing from media", func(b *learnBench) string {
			b.sdp(sdpAddr, natIP)
			b.rtp(natAddr, 1, 5)
			return b.other(sdpAddr, rtp.KindSTUN)
		}, report.IgnoredInUse},
		{"media replaces what a check learned", func(b *learnBench) string {
			b.sdp(sdpAddr, natIP)
			b.other(sdpAddr, rtp.KindSTUN)
			return b.rtp(natAddr, 1, 1)
		}, report.Replaced},
		{"equal rank while alive", func(b *learnBench) string {
			b.sdp(sdpAddr, natIP)
			b.rtp(natAddr, 1, 5)
			b.now += 1900 * ms
			return b.rtp("203.0.113.50:31001", 1, 1)
		}, report.IgnoredInUse},
		{"another port of the same IP after silence", func(b *learnBench) string {
			b.sdp(sdpAddr, natIP)
			b.rtp(natAddr, 1, 5)
			b.now += 2 * time.Second
			return b.rtp("203.0.113.50:31001", 99, 1)
		}, report.MovedSameIP},
		{"a known address after silence, whatever its SSRC", func(b *learnBench) string {
			b.sdp(sdpAddr, natIP)
			b.rtp(sdpAddr, 1, 5)
			b.now += 2 * time.Second
			return b.rtp(natAddr, 99, 1)
		}, report.MovedKnown},
		{"the same stream from a new network", func(b *learnBench) string {
			b.sdp(sdpAddr, natIP)
			b.rtp(natAddr, 7, 5)
			b.now += 2 * time.Second
			b.seq[far] = 104
			return b.rtp(far, 7, 1)
		}, report.MovedStream},
		{"another stream from a new network", func(b *learnBench) string {
			b.sdp(sdpAddr, natIP)
			b.answer(b.now)
			b.rtp(natAddr, 7, 5)
			b.now += 60 * time.Second
			return b.rtp(far, 8, 50)
		}, report.IgnoredOtherStream},
		{"the same SSRC but an old sequence", func(b *learnBench) string {
			b.sdp(sdpAddr, natIP)
			b.rtp(natAddr, 7, 50)
			b.now += 2 * time.Second
			return b.rtp(far, 7, 1)
		}, report.IgnoredOtherStream},
		{"too many moves", func(b *learnBench) string {
			b.sdp(sdpAddr, natIP)
			b.rtp(natAddr, 1, 1)
			why := ""
			for i := range 6 {
				b.now += 2 * time.Second
				why = b.rtp(fmt.Sprintf("203.0.113.50:%d", 40000+i), 1, 1)
			}
			return why
		}, report.IgnoredMoves},
		{"moves are free again after a minute", func(b *learnBench) string {
			b.sdp(sdpAddr, natIP)
			b.rtp(natAddr, 1, 1)
			why := ""
			for i := range 6 {
				b.now += 13 * time.Second
				why = b.rtp(fmt.Sprintf("203.0.113.50:%d", 40000+i), 1, 1)
			}
			return why
		}, report.MovedSameIP},
		{"a changed SDP starts anew", func(b *learnBench) string {
			b.sdp(sdpAddr, natIP)
			b.rtp(sdpAddr, 1, 5)
			b.sdp("198.51.100.7:4020", natIP)
			return b.rtp("198.51.100.7:4020", 1, 1)
		}, report.LearnedSDP},
		{"stragglers of before a changed SDP", func(b *learnBench) string {
			b.sdp(sdpAddr, natIP)
			b.rtp(natAddr, 1, 5)
			b.sdp("198.51.100.7:4020", natIP)
			return b.rtp(natAddr, 1, 25)
		}, report.IgnoredObsolete},
		{"the old address goes on, only the SDP changed", func(b *learnBench) string {
			b.sdp(sdpAddr, natIP)
			b.rtp(natAddr, 1, 5)
			b.sdp("198.51.100.7:4020", natIP)
			return b.rtp(natAddr, 1, 26)
		}, report.LearnedKnownIP},
		{"0.0.0.0 changes nothing", func(b *learnBench) string {
			b.sdp(sdpAddr, natIP)
			b.rtp(natAddr, 1, 5)
			b.sdp("0.0.0.0:4000", natIP)
			return b.rtp(natAddr, 1, 1)
		}, "accepted"},
		{"moved signalling: its IP takes over without waiting", func(b *learnBench) string {
			b.sdp(sdpAddr, natIP)
			b.rtp(natAddr, 1, 5)
			b.sdp(sdpAddr, "192.0.2.66")
			return b.rtp(far, 9, 1)
		}, report.Replaced},
		{"strict admits known addresses only", func(b *learnBench) string {
			b.pol.mode = Strict
			b.sdp(sdpAddr, natIP)
			b.answer(b.now)
			b.now += 10 * time.Second
			return b.rtp(nearby, 1, 10)
		}, report.IgnoredStrict},
		{"first-packet takes anyone", func(b *learnBench) string { b.pol.mode = FirstPacket; return b.rtp(far, 1, 1) }, report.LearnedFirst},
		{"first-packet keeps the first", func(b *learnBench) string {
			b.pol.mode = FirstPacket
			b.sdp(sdpAddr, natIP)
			b.rtp(far, 1, 1)
			return b.rtp(sdpAddr, 1, 1)
		}, report.IgnoredInUse},
		{"after a hold a known source need not wait", func(b *learnBench) string {
			b.sdp(sdpAddr, natIP)
			b.rtp(natAddr, 1, 5)
			b.now += 500 * ms
			b.restartWaits(b.now)
			return b.rtp("203.0.113.50:31001", 99, 1)
		}, report.MovedSameIP},
		{"after a hold a stranger still does", func(b *learnBench) string {
			b.sdp(sdpAddr, natIP)
			b.answer(b.now)
			b.rtp(natAddr, 1, 5)
			b.now += 500 * ms
			b.restartWaits(b.now)
			return b.rtp(far, 99, 1)
		}, report.IgnoredInUse},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := c.run(newLearnBench()); got != string(c.want) {
				t.Errorf("got %s, want %s", got, c.want)
			}
		})
	}
}

// Sprayers on many ports of a site must not push a slow but honest candidate
// out before it has its packets.
func TestCandidatesUnderSpray(t *testing.T) {
	b := newLearnBench()
	b.sdp(sdpAddr, natIP)
	b.answer(b.now)
	b.now += 2 * time.Second
	for i := range 4 {
		for range 7 {
			b.seq["x"]++
			b.offer(source{addr: netip.AddrPortFrom(netip.MustParseAddr("198.18.0.1"), 1000+b.seq["x"]), kind: rtp.KindRTP, ssrc: 3, sequence: b.seq["x"], consistent: true})
		}
		if got := b.rtp(far, 1, 1); got != string(report.IgnoredCollecting) {
			t.Fatalf("packet %d: %s", i+1, got)
		}
	}
	if got := b.rtp(far, 1, 1); got != string(report.LearnedOther) {
		t.Errorf("after five packets: %s", got)
	}
	if n := len(b.candidates); n > maxCandidates {
		t.Errorf("%d candidates kept", n)
	}
}

func TestRank(t *testing.T) {
	l := learner{sdp: ap("[2001:db8:0:1::5]:4000"), signalling: netip.MustParseAddr("2001:db8:0:2::5")}
	for from, want := range map[string]int{
		"[2001:db8:0:1::5]:4000": rankSDP, "[2001:db8:0:1::5]:4001": rankKnown, "[2001:db8:0:2::5]:9": rankKnown,
		"[2001:db8:0:77::1]:9": rankNearby, "[2001:db8:0:177::1]:9": rankOther, "192.0.2.1:9": rankOther,
	} {
		if got := l.rankOf(ap(from), nil); got != want {
			t.Errorf("%s: rank %d, want %d", from, got, want)
		}
	}
}
