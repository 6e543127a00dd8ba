package media

import (
	"net/netip"
	"testing"
	"time"

	"pgregory.net/rapid"

	"example.org/mediaproxy/internal/report"
	"example.org/mediaproxy/internal/wire/rtp"
)

var modelSources = []string{sdpAddr, "198.51.100.7:4002", natAddr, "203.0.113.50:31001", nearby, "198.51.100.99:77", far, "192.0.2.67:6000"}

// What no order of events may break, in words that are simpler than the rules.
func TestLearningSafety(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		b := newLearnBench()
		answeredAt := time.Duration(-1)
		restarted := b.now
		moves := []time.Duration{}
		for range rapid.IntRange(1, 300).Draw(t, "events") {
			switch rapid.IntRange(0, 30).Draw(t, "event") {
			case 0:
				b.sdp(rapid.SampledFrom([]string{sdpAddr, "198.51.100.7:4020", "0.0.0.0:4000"}).Draw(t, "sdp"), natIP)
				restarted = b.waitFrom
			case 1:
				if answeredAt < 0 {
					answeredAt = b.now
				}
				b.answer(b.now)
			case 2:
				b.restartWaits(b.now)
			case 3:
				b.now += time.Duration(rapid.IntRange(0, 3000).Draw(t, "pause")) * ms
			case 4:
				b.forget(b.now)
			default:
				from := rapid.SampledFrom(modelSources).Draw(t, "from")
				before, rankBefore, provisional, alive := b.learned, b.rank, b.provisional, b.alive(b.now, b.cur)
				kind := rapid.SampledFrom([]rtp.Kind{rtp.KindRTP, rtp.KindRTP, rtp.KindRTP, rtp.KindSTUN, rtp.KindOther}).Draw(t, "kind")
				b.seq[from] += uint16(rapid.IntRange(0, 3).Draw(t, "step"))
				known := b.known
				d := b.offer(source{addr: ap(from), kind: kind, ssrc: uint32(rapid.IntRange(1, 2).Draw(t, "ssrc")), sequence: b.seq[from], consistent: kind == rtp.KindRTP})
				if d.accepted != (b.learned == ap(from)) {
					t.Fatalf("%s accepted %v while %v is learned", from, d.accepted, b.learned)
				}
				if !d.changed {
					if b.learned != before {
						t.Fatalf("%v became %v without a decision", before, b.learned)
					}
					b.now += 5 * ms
					continue
				}
				if !known {
					t.Fatalf("%s learned before any SDP", from)
				}
				rank := b.rankOf(ap(from), nil)
				moved := d.why == report.MovedSameIP || d.why == report.MovedKnown || d.why == report.MovedStream
				if rank > rankKnown && !moved && (answeredAt < 0 || b.now-max(answeredAt, restarted, b.waitFrom) < nearbyWait) {
					t.Fatalf("%s of rank %d learned too early: %s", from, rank, d.why)
				}
				if before.IsValid() && alive && !provisional && rank >= rankBefore {
					t.Fatalf("%s of rank %d took over from a living %v of rank %d: %s", from, rank, before, rankBefore, d.why)
				}
				if moved {
					moves = append(moves, b.now)
					if n := len(moves); n > maxMoves && moves[n-1]-moves[n-1-maxMoves] < moveWindow {
						t.Fatalf("%d moves within a minute", maxMoves+1)
					}
				}
				b.now += 5 * ms
			}
		}
	})
}

// The pool against a set: a pair is never handed out twice, rests when it was
// used, and no call is refused while one has rested long enough.
func TestPoolModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const pairs = 12
		p := newPool(50000, 50000+2*pairs, 30*time.Second, nil)
		used, restingSince := map[uint16]bool{}, map[uint16]time.Duration{}
		now := time.Duration(0)
		for range rapid.IntRange(1, 200).Draw(t, "steps") {
			now += time.Duration(rapid.IntRange(0, 5000).Draw(t, "pause")) * ms
			if rapid.Bool().Draw(t, "take") {
				port, early, err := p.take(now)
				if err != nil {
					for port, since := range restingSince {
						if now-since >= minRest {
							t.Fatalf("refused although %d has rested %v", port, now-since)
						}
					}
					if len(used)+len(restingSince) != pairs {
						t.Fatalf("refused with %d of %d pairs taken", len(used)+len(restingSince), pairs)
					}
					continue
				}
				if used[port] || port%2 != 0 || port < 50000 || port >= 50000+2*pairs {
					t.Fatalf("handed out %d", port)
				}
				if since, ok := restingSince[port]; ok {
					if rested := now - since; early != (rested < 30*time.Second) || rested < minRest {
						t.Fatalf("%d had rested %v, early %v", port, rested, early)
					}
					delete(restingSince, port)
				} else if early {
					t.Fatalf("%d had no rest to cut short", port)
				}
				used[port] = true
				continue
			}
			for port := range used {
				carried := rapid.Bool().Draw(t, "carried")
				p.give(port, carried, now)
				delete(used, port)
				if carried {
					restingSince[port] = now
				}
				break
			}
		}
		if got, want := p.available(), pairs-len(used); got != want {
			t.Fatalf("%d available, want %d", got, want)
		}
	})
}

func TestHistoryIsBounded(t *testing.T) {
	var h history
	for i := range 500 {
		h.add(entry{at: time.Duration(i), why: report.IgnoredInUse, source: ap("192.0.2.1:1")}) // equal ones count up
		h.add(entry{at: time.Duration(i), why: report.Held, whole: true})
	}
	d := h.decisions(0)
	if len(d) != historyLimit || h.forgotten == 0 {
		t.Fatalf("%d entries, %d forgotten", len(d), h.forgotten)
	}
	if d[0].Why != report.IgnoredInUse || d[len(d)-1].Why != report.Held {
		t.Errorf("begins with %s, ends with %s", d[0].Why, d[len(d)-1].Why)
	}
	total := uint64(0)
	for _, e := range d {
		total += max(1, e.Count)
	}
	if total+h.forgotten < 500 {
		t.Errorf("only %d events accounted for", total)
	}
}

func TestUsableAndRoutable(t *testing.T) {
	e := &Engine{cfg: Config{RoutableRanges: []netip.Prefix{netip.MustParsePrefix("10.1.0.0/16"), netip.MustParsePrefix("169.254.9.0/24")}}}
	public, loopback, v6 := netip.MustParseAddr("203.0.113.9"), netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("2001:db8::9")
	for _, c := range []struct {
		addr             string
		local            netip.Addr
		usable, routable bool
	}{
		{"8.8.8.8:4000", public, true, true},
		{"8.8.8.8:0", public, false, false},
		{"192.168.1.5:4000", public, true, false},
		{"10.1.2.3:4000", public, true, true},
		{"0.0.0.0:4000", public, false, false},
		{"224.1.1.1:4000", public, false, false},
		{"255.255.255.255:4000", public, false, false},
		{"127.0.0.1:4000", public, false, false},
		{"127.0.0.1:4000", loopback, true, true},
		{"169.254.1.1:4000", public, false, false},
		{"169.254.9.1:4000", public, true, true},
		{"[2a00::5]:4000", public, false, false},
		{"[2a00::5]:4000", v6, true, true},
		{"[fd00::5]:4000", v6, true, false},
		{"[::1]:4000", v6, false, false},
		{"[ff02::1]:4000", v6, false, false},
		{"[fe80::1]:4000", v6, false, false},
	} {
		if got := e.usable(ap(c.addr), c.local); got != c.usable {
			t.Errorf("%s from %s: usable %v", c.addr, c.local, got)
		}
		if got := e.routable(ap(c.addr), c.local); got != c.routable {
			t.Errorf("%s from %s: routable %v", c.addr, c.local, got)
		}
	}
}
