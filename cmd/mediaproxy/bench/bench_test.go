package bench

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"example.org/mediaproxy/internal/wire/control"
	"example.org/mediaproxy/internal/wire/relaylink"
)

func TestCallsAreTheirNumbers(t *testing.T) {
	for _, n := range []call{0, 1, 99_999, 1 << 40} {
		got, err := parseCall(n.id())
		if err != nil || got != n {
			t.Errorf("call %d: its id %s is read as %d, %v", n, n.id(), got, err)
		}
		u, err := control.DecodeUpdate(n.answer().Headers)
		if err != nil || u.CallID != n.id() || u.ToTag != n.toTag() || u.Kind != control.KindReply || len(u.Media) != 1 {
			t.Errorf("call %d: its answer is %+v, %v", n, u, err)
		}
		if u, err = control.DecodeUpdate(withoutEmpty(n.offer().Headers)); err != nil || u.ToTag != "" || !u.HasMedia {
			t.Errorf("call %d: its offer is %+v, %v", n, u, err)
		}
	}
	for _, id := range []string{"", "x", "abc-7@192.0.2.10", strings.Replace(call(7).id(), "-7@", "-8@", 1)} {
		if n, err := parseCall(id); err == nil {
			t.Errorf("%q is taken for call %d", id, n)
		}
	}
	share := 0
	for n := range call(100_000) {
		if n.expires(5) {
			share++
		}
	}
	if share < 4500 || share > 5500 {
		t.Errorf("%d of 100000 calls expire, want 5 %%", share)
	}
}

// withoutEmpty is what a reader of the socket keeps.
func withoutEmpty(hs []control.Header) []control.Header {
	return slices.DeleteFunc(hs, func(h control.Header) bool { return h.Value == "" })
}

func TestBucketsKeepTheirOrder(t *testing.T) {
	for v := uint64(0); v < 1<<40; v += 1 + v/50 {
		b := bucketOf(v)
		low, high := floorOf(b), floorOf(b+1)
		if v < low || v >= high {
			t.Fatalf("value %d is in bucket %d of [%d, %d)", v, b, low, high)
		}
		if v >= subBuckets && float64(high-low) > 0.04*float64(v) {
			t.Fatalf("bucket of %d is %d wide, more than 4 %%", v, high-low)
		}
	}
}

func TestQuantiles(t *testing.T) {
	draw := rand.New(rand.NewPCG(1, 2))
	var one, two, both Histogram
	var all []time.Duration
	for i := range 20_000 {
		d := time.Duration(draw.ExpFloat64() * float64(3*time.Millisecond))
		all = append(all, d)
		if i%2 == 0 {
			one.Add(d)
		} else {
			two.Add(d)
		}
	}
	both.Merge(&one, &two)
	slices.Sort(all)
	for _, q := range []float64{0, .5, .99, .999, 1} {
		want := all[min(int(q*float64(len(all))), len(all)-1)]
		if got := both.Quantile(q); got < want || float64(got) > 1.04*float64(want)+40 {
			t.Errorf("quantile %v is %v, want %v", q, got, want)
		}
	}
	if both.Count() != 20_000 || both.Max() != all[len(all)-1] {
		t.Errorf("%d times, the longest %v; want 20000, %v", both.Count(), both.Max(), all[len(all)-1])
	}
	if d := (&Histogram{}).Quantile(.99); d != 0 {
		t.Errorf("quantile of nothing is %v", d)
	}
}

// A relay answers as ours do, and notes what no dispatcher may ask of it.
func TestRelayAnswers(t *testing.T) {
	f := newFleet(300, "", nil)
	f.fill(301)
	r := f.relays[0] // has calls 0 and 300
	r.owner = "d"
	command := func(name string, hs []control.Header) relaylink.Command {
		return relaylink.Command{Name: name, Seq: "7", Headers: withoutEmpty(hs)}
	}
	page := func(limit, offset string) relaylink.Command {
		return command(relaylink.List, []control.Header{{Name: "limit", Value: limit}, {Name: "offset", Value: offset}})
	}
	for _, tt := range []struct {
		name  string
		c     relaylink.Command
		want  string // begin of the answer
		fault string // part of it; empty: none
	}{
		{"page", page("1", "0"), `7 {"total":2,"calls":[{"call_id":"` + call(0).id(), ""},
		{"next page", page("1", "1"), `7 {"total":2,"calls":[{"call_id":"` + call(300).id(), ""},
		{"offer", command(relaylink.Update, append(call(1000).offer().Headers, control.Header{Name: "record_id", Value: "its-report"})), "7 198.18.0.0 4", ""},
		{"offer again", command(relaylink.Update, call(1000).offer().Headers), "7 198.18.0.0 4", ""},
		{"answer", command(relaylink.Update, call(1000).answer().Headers), "7 198.18.0.0 4", ""},
		{"answer of another's call", command(relaylink.Update, call(1).answer().Headers), "7 error ", "not on this relay"},
		{"remove", command(relaylink.Remove, call(300).remove().Headers), `7 {"call_id": "` + call(300).id(), ""},
		{"removed", command(relaylink.Remove, call(300).remove().Headers), "7 error unknown session", ""},
		{"remove of another's call", command(relaylink.Remove, call(1).remove().Headers), "7 error ", "not on this relay"},
		{"session", command(relaylink.Session, call(0).remove().Headers), `7 [{"call_id": "` + call(0).id(), ""},
		{"no session", command(relaylink.Session, call(300).remove().Headers), "7 []", ""},
		{"summary", command(relaylink.Summary, nil), `7 {"ip": "198.18.0.0"`, ""},
		{"unknown", command("explain", nil), "7 error unknown command", ""},
	} {
		before, _ := f.faultList()
		r.out = nil
		r.orderLocked(relaylink.Order{Kind: relaylink.OrderCommand, Command: tt.c})
		if got := string(r.out); !strings.HasPrefix(got, tt.want) || !strings.HasSuffix(got, "\r\n") {
			t.Errorf("%s: answered %.120q, want %q", tt.name, got, tt.want)
		}
		after, list := f.faultList()
		if after-before != min(1, len(tt.fault)) || tt.fault != "" && !strings.Contains(list[len(list)-1], tt.fault) {
			t.Errorf("%s: faults are %q, want one more with %q", tt.name, list, tt.fault)
		}
	}
	if n := f.owed(); n != 1 {
		t.Errorf("%d finished calls wait for an acknowledgement, want 1", n)
	}
	if r.calls[1000] != "its-report" {
		t.Errorf("the report of the new call is to be called %q, not as the dispatcher said", r.calls[1000])
	}
	r.orderLocked(relaylink.Order{Kind: relaylink.OrderAck, Body: []byte(r.record(300))})
	if n := f.owed(); n != 0 || f.acks.Count() != 1 {
		t.Errorf("%d wait after it, %d came", n, f.acks.Count())
	}
	for i, r := range f.relays {
		for _, n := range []call{call(i)} {
			if f.first(n) != r {
				t.Errorf("call %d begins on %s, not on %s", n, f.first(n).name, r.name)
			}
		}
	}
}

// The search ends near the highest rate, from above and from below, and does not give
// up a rate for one bad moment.
func TestSearch(t *testing.T) {
	for _, tt := range []struct{ first, highest float64 }{{2000, 9000}, {2000, 150}, {1000, 1000}, {3, 2}, {500_000, 40_000}} {
		t.Run(fmt.Sprint(tt), func(t *testing.T) {
			tries := map[float64]int{}
			r, err := search(settings{rate: tt.first}, func(string, ...any) {}, func(s settings) (*Result, error) {
				tries[s.rate]++
				r := &Result{UpdatesPerSecond: s.rate, Latency: []Latency{{P99: 10}}}
				if s.rate > tt.highest || tries[s.rate] == 1 {
					r.Latency[0].P99 = 80
				}
				return r, nil
			})
			if err != nil {
				t.Fatal(err)
			}
			if got := r.UpdatesPerSecond; got > tt.highest || got < tt.highest/near-1 {
				t.Errorf("found %v, want %v; steps %v", got, tt.highest, r.Steps)
			}
			if len(r.Steps) > 25 {
				t.Errorf("it took %d steps", len(r.Steps))
			}
		})
	}
	r, err := search(settings{rate: 64}, func(string, ...any) {}, func(s settings) (*Result, error) {
		return &Result{Latency: []Latency{{}}, Errors: 1, FirstError: "refused"}, nil
	})
	if err == nil || !strings.Contains(err.Error(), "refused") {
		t.Errorf("nothing is carried, but it found %v, %v", r, err)
	}
}
