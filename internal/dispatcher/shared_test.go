package dispatcher

import (
	"context"
	"errors"
	"maps"
	"strings"
	"sync"
	"testing"
	"time"

	"example.org/mediaproxy/internal/report"
	"example.org/mediaproxy/internal/wire/relaylink"
)

// fakeMap is a shared map that may be silent.
type fakeMap struct {
	mu     sync.Mutex
	relays map[string]string
	silent bool
	gets   int
}

func (m *fakeMap) Get(ctx context.Context, key string) ([]byte, error) {
	m.mu.Lock()
	m.gets++
	silent, relay := m.silent, m.relays[key]
	m.mu.Unlock()
	if silent {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	if relay == "" {
		return nil, errors.New("not there")
	}
	return []byte(relay), nil
}

func (m *fakeMap) Put(key string, value []byte) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.relays[key] = string(value)
}

func (m *fakeMap) Delete(key string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.relays, key)
}

func (m *fakeMap) has(want map[string]string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return maps.Equal(m.relays, want)
}

// The relay that the shared map names is asked alone; what it says wrongly, late or not at
// all, the others still say in time.
func TestSharedMapNamesTheRelay(t *testing.T) {
	for _, tt := range []struct {
		name   string
		named  string // by the map
		silent bool   // the map
		alone  bool   // no other relay is asked
	}{
		{"right", "b", false, true},
		{"another relay", "a", false, false},
		{"a relay that is not connected", "z", false, false},
		{"nothing", "", false, false},
		{"the map does not answer", "b", true, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			shared := &fakeMap{relays: map[string]string{"c": tt.named}, silent: tt.silent}
			u := start(t, func(c *Config) { c.Shared, c.LocateTimeout = shared, 2*time.Second })
			a, c := u.relay("a"), u.relay("c")
			u.relay("b", having(relaylink.Call{CallID: "c", FromTag: "f", ToTag: "t", Owner: "d2"}))
			began := time.Now()
			if got := u.module().ask(message{call: "c", from: "t", to: "f", noMedia: true}.String()); got != ports {
				t.Errorf("got %q", got)
			}
			if took := time.Since(began); took > 1500*time.Millisecond {
				t.Errorf("it took %v", took)
			}
			others := a.count(relaylink.Session) + c.count(relaylink.Session)
			if tt.alone != (others == 0) {
				t.Errorf("%d questions to other relays", others)
			}
			s := u.Stats()
			if s.Located != 1 || (s.Hinted == 1) != tt.alone {
				t.Errorf("%+v", s)
			}
			eventually(t, "the map has it", func() bool { return shared.has(map[string]string{"c": "b"}) })
		})
	}
}

// An offer whose answer was lost may have been made twice, on two relays. The call is where it
// was answered, whatever the shared map says.
func TestCallThatWasMadeTwice(t *testing.T) {
	shared := &fakeMap{relays: map[string]string{"c": "never"}}
	u := start(t, func(c *Config) { c.Shared, c.LocateTimeout = shared, 2*time.Second })
	session := func(toTag string) relayOption {
		doc := sessionDoc("c", "f")
		if doc.ToTag = nil; toTag != "" {
			doc.ToTag = &toTag
		}
		return handling(func(c relaylink.Command) (string, bool) {
			return docText([]report.Session{doc}), c.Name == relaylink.Session
		})
	}
	never, answered := u.relay("never", session("")), u.relay("answered", session("t"))
	if got := u.module().ask(message{call: "c", from: "f", to: "t"}.String()); got != ports {
		t.Errorf("got %q", got)
	}
	if n, m := never.count(relaylink.Update), answered.count(relaylink.Update); n != 0 || m != 1 {
		t.Errorf("%d updates where it was never answered, %d where it was", n, m)
	}
}

// A call whose relay is not connected yet, but named by the shared map, is waited for: it
// would be placed anew otherwise, and be on two relays.
func TestSharedMapNamesARelayThatComes(t *testing.T) {
	shared := &fakeMap{relays: map[string]string{"c": "b"}}
	u := start(t, func(c *Config) { c.Shared, c.SetupTimeout = shared, 10*time.Second })
	a := u.relay("a")
	m := u.module()
	m.send(message{call: "c", from: "f", to: "t"}.String())
	eventually(t, "the map is asked", func() bool { shared.mu.Lock(); defer shared.mu.Unlock(); return shared.gets == 1 })
	u.relay("b", having(relaylink.Call{CallID: "c", FromTag: "f", ToTag: "t", Owner: "d2"}))
	if got := m.receive(); got != ports {
		t.Errorf("got %q", got)
	}
	if n := a.count(relaylink.Update); n != 0 || u.Stats().Hinted != 1 {
		t.Errorf("another relay got %d updates; %+v", n, u.Stats())
	}
}

// The shared map follows a call, and is not asked for one that nobody can know.
func TestSharedMapFollowsCalls(t *testing.T) {
	shared := &fakeMap{relays: map[string]string{}}
	u := start(t, func(c *Config) { c.Shared = shared })
	r := u.relay("a")
	u.relay("127.0.0.7", plainFrom("127.0.0.7"))
	m := u.module()
	for _, call := range []string{"removed", "expired", "taken"} {
		m.ask(message{call: call, from: "f", mediaRelay: "a"}.String())
	}
	m.ask(message{call: "old", from: "f", mediaRelay: "127.0.0.7"}.String())
	if want := map[string]string{"removed": "a", "expired": "a", "taken": "a"}; !shared.has(want) || shared.gets != 0 {
		t.Errorf("the map has %v after %d questions, want %v and none", shared.relays, shared.gets, want)
	}
	m.ask(remove("removed", "f", ""))
	doc := sessionDoc("expired", "f")
	doc.RecordID, doc.Reason = "r", report.ReasonTimeout
	r.expire(doc)
	r.say(relaylink.AppendReleased(nil, []byte(`{"call_id": "taken", "from_tag": "f"}`)))
	eventually(t, "what ended is gone, what another dispatcher has is not", func() bool { return shared.has(map[string]string{"taken": "a"}) })
}

func TestClusterForOperators(t *testing.T) {
	alone := start(t, nil)
	if got := alone.manager().ask("cluster\r\n"); got != "[]" {
		t.Errorf("without a cluster: %s", got)
	}
	u := start(t, func(c *Config) {
		c.Cluster = func() report.Cluster {
			return report.Cluster{Name: "d1", Size: 3, Servers: []report.Server{{Name: "d1", Self: true}}}
		}
	})
	got := u.manager().ask("cluster\r\n")
	for _, want := range []string{`"name": "d1"`, `"size": 3`, `"self": true`, `"located": 0`} {
		if !strings.Contains(got, want) {
			t.Errorf("got %s, want %s in it", got, want)
		}
	}
}

// askOthers is a cluster of two: what one asks the other answers. nil: nobody is there.
type askOthers struct {
	other func(ctx context.Context, request []byte) []byte
}

func (a *askOthers) Ask(ctx context.Context, request []byte) ([]byte, bool) {
	if a.other == nil {
		<-ctx.Done()
		return nil, false
	}
	return a.other(ctx, request), true
}

// A dispatcher to which a call's relay is not connected has another one serve it, which has
// the relay; the call is not placed anew.
func TestPeersServeEachOther(t *testing.T) {
	toA, toB := &askOthers{}, &askOthers{}
	a := start(t, func(c *Config) { c.Peers = toB })
	b := start(t, func(c *Config) { c.Peers = toA })
	toA.other, toB.other = a.AnswerPeer, b.AnswerPeer
	spare := a.relay("spare")
	r := b.relay("r", having(relaylink.Call{CallID: "c", FromTag: "f", ToTag: "t", Owner: "d3"}))
	m := a.module()
	if got := m.ask(message{call: "c", from: "f", to: "t"}.String()); got != ports {
		t.Errorf("a re-INVITE was answered %q", got)
	}
	if n := spare.count(relaylink.Update); n != 0 || r.count(relaylink.Update) != 1 {
		t.Errorf("%d updates at another relay, %d at the call's", n, r.count(relaylink.Update))
	}
	if got := m.ask(message{call: "c", from: "t", to: "f", noMedia: true}.String()); got != ports {
		t.Errorf("a message without media was answered %q", got)
	}
	if got := m.ask(remove("c", "f", "t")); got != "removed" {
		t.Errorf("remove was answered %q", got)
	}
	if s := a.Stats(); s.Elsewhere != 3 || s.Calls != 0 || s.Removes != 1 {
		t.Errorf("who asked: %+v", s)
	}
	if s := b.Stats(); s.ForPeers != 3 || s.Calls != 0 || s.Removes != 1 {
		t.Errorf("who answered: %+v", s)
	}
	// Nobody knows it: as without others.
	if got := m.ask(remove("none", "f", "t")); got != "error" {
		t.Errorf("remove of no call was answered %q", got)
	}
	if got := m.ask(message{call: "lost", from: "f", to: "t"}.String()); got != ports || spare.count(relaylink.Update) != 1 {
		t.Errorf("a re-INVITE of a lost call was answered %q", got)
	}
	if b.AnswerPeer(t.Context(), []byte("update\r\nno colon\r\n\r\n")) != nil || b.AnswerPeer(t.Context(), []byte("frobnicate\r\n\r\n")) != nil {
		t.Error("what cannot be read was answered")
	}
}

// A call whose relay has lost its connection to its dispatcher, and not to another one, is
// served by that one and not placed anew.
func TestRelayAwayFromOneDispatcher(t *testing.T) {
	toA, toB := &askOthers{}, &askOthers{}
	a := start(t, func(c *Config) { c.Peers = toB })
	b := start(t, func(c *Config) { c.Peers = toA })
	toA.other, toB.other = a.AnswerPeer, b.AnswerPeer
	gone, spare := a.relay("r"), a.relay("spare")
	m := a.module()
	var calls []relaylink.Call
	for _, call := range []string{"updated", "removed", "answered"} {
		if got := m.ask(message{call: call, from: "f", mediaRelay: "r"}.String()); got != ports {
			t.Fatalf("got %q", got)
		}
		calls = append(calls, relaylink.Call{CallID: call, FromTag: "f", ToTag: "t", Owner: "d1"})
	}
	b.relay("r", having(calls...))
	gone.close()
	eventually(t, "the connection is gone", func() bool { return a.Stats().LostCalls == 3 })
	if got := m.ask(message{call: "updated", from: "f", to: "t"}.String()); got != ports {
		t.Errorf("a re-INVITE was answered %q", got)
	}
	if got := m.ask(message{call: "answered", reply: true, from: "f", to: "t"}.String()); got != ports {
		t.Errorf("a reply was answered %q", got)
	}
	if got := m.ask(remove("removed", "f", "t")); got != "removed" {
		t.Errorf("remove was answered %q", got)
	}
	if s := a.Stats(); s.Calls != 0 || s.Elsewhere != 3 || s.Moved != 0 || spare.count(relaylink.Update) != 0 {
		t.Errorf("%+v", s)
	}
}

// A dispatcher that has just started and hears nobody places no call anew that may be on a
// relay which is not connected yet; new calls it serves at once.
func TestJustStarted(t *testing.T) {
	u := start(t, func(c *Config) { c.Peers, c.SetupTimeout = &askOthers{}, 400*time.Millisecond })
	r := u.relay("a")
	m := u.module()
	if got := m.ask(message{call: "old", from: "f", to: "t"}.String()); got != "error" || r.count(relaylink.Update) != 0 {
		t.Errorf("got %q", got)
	}
	if got := m.ask(offer("new")); got != ports {
		t.Errorf("a new call was answered %q", got)
	}
	u.pass(longAway + time.Second)
	if got := m.ask(message{call: "old", from: "f", to: "t"}.String()); got != ports {
		t.Errorf("later: got %q", got)
	}
}
