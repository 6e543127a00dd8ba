package cluster

import (
	"fmt"
	"os"
	"slices"
	"testing"
	"time"

	"example.org/mediaproxy/internal/report"
)

// election is how long a cluster may need for a new leader.
const election = 7 * time.Second

// A cluster whose dispatchers are killed in turn, and whose network is cut, loses no call
// and no record, and no answer waits for an election.
func TestNothingIsLost(t *testing.T) {
	for _, tt := range []struct{ name, settings string }{
		{"each keeps its own records", ""},
	} {
		t.Run(tt.name, func(t *testing.T) { faults(t, newWorld(t, tt.settings)) })
	}
}

func faults(t *testing.T, w *world) {
	rounds := 1
	if os.Getenv("MEDIAPROXY_TEST") == "soak" {
		rounds = 10
	}
	s := &storm{w: w, over: make(chan struct{}), took: map[string][]time.Duration{}, phase: "normal"}
	done := make(chan struct{})
	go func() { defer close(done); s.run() }()
	time.Sleep(lives + election) // the storm goes on undisturbed
	var phases []string
	fault := func(what string, begin, end func()) {
		phase := fmt.Sprintf("%d: %s", len(phases)+1, what)
		phases = append(phases, phase)
		s.enter(phase)
		begin()
		time.Sleep(election) // the storm goes on
		end()
		s.enter("between")
		for i := range w.dispatchers {
			eventually(t, "the cluster is whole again", func() bool { c := w.cluster(i); return c.Leader != "" && len(c.Servers) == 3 })
		}
	}
	for range rounds {
		for i := range w.dispatchers {
			fault(name(i)+" killed", func() { w.kill(i) }, func() { w.start(w.dispatchers[i]); w.serving(i) })
		}
		leader := w.leader()
		fault(name(leader)+", the leader, cut off", func() { w.cut(leader) }, func() { w.mend(leader) })
		leader = w.leader()
		fault(name(leader)+", the leader, killed", func() { w.kill(leader) }, func() { w.start(w.dispatchers[leader]); w.serving(leader) })
	}
	close(s.over)
	<-done
	w.counted(s)
	w.quick(s, phases)
}

// leader is the dispatcher that leads the cluster.
func (w *world) leader() (leader int) {
	w.Helper()
	eventually(w, "somebody leads", func() bool {
		leader = slices.IndexFunc([]string{name(0), name(1), name(2)}, func(n string) bool { return n == w.cluster(0).Leader })
		return leader >= 0
	})
	return leader
}

// counted compares what was stored with the calls that were made.
func (w *world) counted(s *storm) {
	w.Helper()
	eventually(w, "all calls are stored", func() bool { return len(w.books.rows()) >= len(s.answered) })
	for i := range w.dispatchers {
		eventually(w, "nothing waits at "+name(i), func() bool { return w.waiting(i) == 0 })
	}
	rows := w.books.rows()
	for _, id := range s.answered {
		switch r := rows[id]; {
		case len(r) != 1:
			w.Errorf("call %s has %d records: %+v", id, len(r), r)
		case r[0].Reason != report.ReasonRemoved:
			w.Errorf("call %s ended by %q", id, r[0].Reason)
		}
	}
	if len(rows) != len(s.answered) {
		w.Errorf("%d calls are stored, %d were answered", len(rows), len(s.answered))
	}
	for _, bad := range []string{"placed anew", "call dropped", "ended here", "bug in this program"} {
		if n := w.has(bad); n > 0 {
			w.Errorf("dispatchers say %d times: %s", n, bad)
		}
	}
	var located, hinted, taken uint64
	for i := range w.dispatchers {
		c := w.cluster(i)
		located, hinted, taken = located+c.Located, hinted+c.Hinted, taken+c.TakenOver
	}
	w.Logf("%d calls, %d records in %d posts; %d questions asked elsewhere, %d removes answered to nobody; since the last starts %d calls were found (%d by the map), %d taken over",
		len(s.answered), len(w.books.records), w.books.posts, s.failed, s.gone, located, hinted, taken)
	if located == 0 || hinted == 0 || taken == 0 {
		w.Error("the dispatchers did not serve each other's calls")
	}
}

// quick compares answers during faults with those before. One fault may meet a host that has
// other things to do: the middle one counts.
func (w *world) quick(s *storm, phases []string) {
	w.Helper()
	var p99s []time.Duration
	for _, phase := range append([]string{"normal", "between"}, phases...) {
		n, p50, p99, slowest := s.figures(phase)
		w.Logf("%-45s %5d answers, p50 %-10v p99 %-10v slowest %v", phase, n, p50.Round(10*time.Microsecond), p99.Round(10*time.Microsecond), slowest.Round(10*time.Microsecond))
		if phase != "normal" && phase != "between" {
			p99s = append(p99s, p99)
		}
	}
	slices.Sort(p99s)
	_, _, normal, _ := s.figures("normal")
	if middle := p99s[len(p99s)/2]; middle > normal+50*time.Millisecond {
		w.Errorf("p99 of answers during faults is %v, normally %v: want at most 50 ms more", middle, normal)
	}
}
