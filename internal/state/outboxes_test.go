package state

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"testing"
)

// office is one dispatcher's part of a trio: its own outbox and those of the cluster.
type office struct {
	local *Outbox
	all   *Outboxes
}

func newOffice(t *testing.T, c *Cluster) office {
	local := open(t, Config{Dir: t.TempDir()})
	return office{local, c.Outboxes(local)}
}

// collect receives until stop is called.
func (o office) collect(t *testing.T, receiver string, handle func(Record) error) (ids func() []string, stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var mu sync.Mutex
	var got []string
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = o.all.Receive(ctx, receiver, Handler{One: func(_ context.Context, r Record) error {
			mu.Lock()
			defer mu.Unlock()
			if err := handle(r); err != nil {
				return err
			}
			got = append(got, r.ID)
			return nil
		}})
	}()
	stop = func() { cancel(); <-done }
	t.Cleanup(stop)
	return func() []string {
		mu.Lock()
		defer mu.Unlock()
		return slices.Sorted(slices.Values(got))
	}, stop
}

func fine(Record) error { return nil }

// What a dispatcher kept in the cluster is stored by the others when it is lost, also what
// it had begun; each record once.
func TestLostDispatchersOutbox(t *testing.T) {
	g := newTrio(t, 3)
	var offices [3]office
	for i := range offices {
		offices[i] = newOffice(t, g.members[i])
	}
	var want []string
	for i := range 30 {
		id := fmt.Sprintf("r%02d", i)
		want = append(want, id)
		eventually(t, "it is kept", func() bool { return offices[0].all.Add(t.Context(), id, []byte("data"), "a", "b") == nil })
	}
	if n, err := offices[0].local.Receivers(t.Context()); err != nil || len(n) != 0 {
		t.Errorf("this dispatcher's own disk has %v, %v", n, err)
	}
	seen, err := offices[2].all.Receivers(t.Context())
	if err != nil || !maps.Equal(seen, map[string]uint64{"a": 30, "b": 30}) {
		t.Errorf("another one sees %v, %v", seen, err)
	}
	began := make(chan struct{}, 100)
	_, stop := offices[0].collect(t, "a", func(Record) error { began <- struct{}{}; return errors.New("not now") })
	<-began // the first record is with the dispatcher that is lost
	stop()
	g.leave(0)
	ids, _ := offices[1].collect(t, "a", fine)
	more, _ := offices[2].collect(t, "a", fine)
	eventually(t, "the others have all", func() bool { return len(ids())+len(more()) >= len(want) })
	if got := slices.Sorted(slices.Values(append(ids(), more()...))); !slices.Equal(got, want) {
		t.Errorf("got %v", got)
	}
	eventually(t, "nothing waits", func() bool { q, err := offices[1].all.Queue(t.Context(), "a"); return err == nil && q.Waiting == 0 })
	if q, err := offices[1].all.Queue(t.Context(), "b"); err != nil || q.Waiting != 30 || q.Oldest.IsZero() {
		t.Errorf("for b waits %+v, %v", q, err)
	}
}

// What waits on the own disk from before is received too, and a dispatcher that keeps its
// records to itself does not care whether there is a cluster.
func TestOwnDiskWithoutCluster(t *testing.T) {
	at := addresses(t, 3)
	for _, replicas := range []int{1, 3} {
		c, err := Join(ClusterConfig{Name: "alone", Replicas: replicas, Dir: t.TempDir(), Listen: at[0], Peers: at, TLS: newAuthority(t).config(t)}, open(t, Config{Dir: t.TempDir()}).log)
		if err != nil {
			t.Fatal(err)
		}
		o := newOffice(t, c)
		add(t, o.local, "before", "a")
		err = o.all.Add(t.Context(), "now", []byte("data"), "a")
		if replicas == 1 && err != nil || replicas == 3 && !errors.Is(err, ErrNoMajority) {
			t.Errorf("%d replicas: %v", replicas, err)
		}
		want := map[int][]string{1: {"before", "now"}, 3: {"before"}}[replicas]
		if q, err := o.all.Queue(t.Context(), "a"); replicas == 1 && (err != nil || q.Waiting != 2) || replicas == 3 && !errors.Is(err, ErrNoMajority) {
			t.Errorf("%d replicas: queue %+v, %v", replicas, q, err)
		}
		if n, err := o.all.Receivers(t.Context()); err != nil || n["a"] != uint64(len(want)) {
			t.Errorf("%d replicas: %v waits, %v", replicas, n, err)
		}
		ids, stop := o.collect(t, "a", fine)
		eventually(t, "it is received", func() bool { return slices.Equal(ids(), want) })
		stop()
		c.Close()
	}
}
