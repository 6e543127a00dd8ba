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
			if took := time.Since(began); took > time.Second {
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
