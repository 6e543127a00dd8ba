package cluster

import (
	"fmt"
	"os"
	"slices"
	"testing"
	"time"

	"example.org/mediaproxy/internal/report"
	"example.org/mediaproxy/test/internal/netlab"
	"example.org/mediaproxy/test/internal/program"
)

// election is how long a cluster may need for a new leader.
const election = 6 * time.Second

// stage is a world with a storm in it.
type stage struct {
	*world
	*storm
	phases []string
	done   chan struct{}
}

func begin(t *testing.T, binary, settings string) *stage {
	w := newWorld(t, binary, settings)
	s := &stage{world: w, storm: &storm{w: w, over: make(chan struct{}), took: map[string][]time.Duration{}, phase: "normal"}, done: make(chan struct{})}
	go func() { defer close(s.done); s.run() }()
	time.Sleep(election) // the storm goes on undisturbed
	return s
}

// fault lets the storm go on during what begin does.
func (s *stage) fault(what string, begin func()) {
	phase := fmt.Sprintf("%d: %s", len(s.phases)+1, what)
	s.phases = append(s.phases, phase)
	s.enter(phase)
	begin()
	time.Sleep(election) // the storm goes on
}

// whole waits until the cluster is.
func (s *stage) whole() {
	s.enter("between")
	for i := range s.dispatchers {
		eventually(s, "the cluster is whole again", func() bool { c := s.cluster(i); return c.Leader != "" && len(c.Servers) == 3 })
	}
}

func (s *stage) end() {
	close(s.over)
	<-s.done
}

// One round under two minutes: most of it is waiting for elections.
func TestCluster(t *testing.T) {
	netlab.Needs(t)
	binary := program.Build(t)
	t.Run("nothing is lost", func(t *testing.T) { nothingIsLost(t, binary) })
	t.Run("a dispatcher is lost for good", func(t *testing.T) { lostForGood(t, binary) })
}

// A cluster whose dispatchers are killed in turn, and whose network is cut, loses no call
// and no record, and no answer waits for an election.
func nothingIsLost(t *testing.T, binary string) {
	rounds := 1
	if soak() {
		rounds = 10
	}
	s := begin(t, binary, "")
	for range rounds {
		for i := range s.dispatchers {
			s.fault(name(i)+" killed", func() { s.kill(i) })
			s.start(s.dispatchers[i])
			s.serving(i)
			s.whole()
		}
		leader := s.leader()
		s.fault(name(leader)+", the leader, cut off", func() { s.cut(leader) })
		s.mend(leader)
		s.whole()
	}
	s.end()
	s.counted(s.storm, 0, 1, 2)
	s.quick(s.storm, s.phases)
}

// With three replicas, what a dispatcher took before it was lost for good is stored by the
// others.
func lostForGood(t *testing.T, binary string) {
	s := begin(t, binary, "replicas = 3\n")
	leader := s.leader()
	s.books.away.Store(true)
	eventually(t, "finished calls wait", func() bool { return s.waiting(leader) > 30 })
	s.fault(name(leader)+", the leader, lost", func() { s.kill(leader) })
	s.books.away.Store(false)
	s.end()
	s.counted(s.storm, (leader+1)%3, (leader+2)%3)
	s.quick(s.storm, s.phases)
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
func (w *world) counted(s *storm, alive ...int) {
	w.Helper()
	eventually(w, "all calls are stored", func() bool { return len(w.books.rows()) >= len(s.answered) })
	for _, i := range alive {
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
	for _, i := range alive {
		c := w.cluster(i)
		located, hinted, taken = located+c.Located, hinted+c.Hinted, taken+c.TakenOver
	}
	w.Logf("%d calls, %d records in %d posts; %d questions asked elsewhere, %d removes answered to nobody; since the last starts %d calls were found (%d by the map), %d taken over",
		len(s.answered), len(w.books.records), w.books.posts, s.failed, s.gone, located, hinted, taken)
	if located == 0 || hinted == 0 || taken == 0 {
		w.Error("the dispatchers did not serve each other's calls")
	}
}

func soak() bool { return os.Getenv("MEDIAPROXY_TEST") == "soak" }

// quick compares answers during faults with those without any. A fault may meet a host that
// has other things to do, so the middle one counts. The soak has forty faults, and compares
// them with answers before the first; the gate has four, and a busy host makes answers slow
// without any fault too: it takes the slower of its two phases that had none.
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
	if _, _, between, _ := s.figures("between"); !soak() {
		normal = max(normal, between)
	}
	if middle := p99s[len(p99s)/2]; middle > normal+50*time.Millisecond {
		w.Errorf("p99 of answers during faults is %v, normally %v: want at most 50 ms more", middle, normal)
	}
}
