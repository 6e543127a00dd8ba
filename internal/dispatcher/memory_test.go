package dispatcher

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"
	"unsafe"

	"example.org/mediaproxy/internal/wire/control"
	"example.org/mediaproxy/internal/wire/relaylink"
)

// A call keeps what it needs of its requests, not the requests.
func TestCallsKeepNoRequests(t *testing.T) {
	request := []byte(strings.Repeat("x", 4096) + "call-id from-tag to-tag 12:34 sip:a@x sip:b@x user")
	text := string(request)
	words := strings.Fields(text[4096:])
	u := control.Update{Kind: control.KindRequest, CallID: words[0], FromTag: words[1], FromURI: words[4], ToURI: words[5], HasMedia: true}
	u.Signaling.Username = words[6]
	table := newCallTable(nil)
	e, state := table.enter(u, true)
	if state != callNew {
		t.Fatalf("state %d, want a new call", state)
	}
	u.ToTag, u.DialogID = words[2], words[3]
	table.confirm(e.callState, &link{relay: &relayState{}}, u, time.Now())
	c := e.callState
	first, last := uintptr(unsafe.Pointer(unsafe.StringData(text))), uintptr(unsafe.Pointer(unsafe.StringData(text)))+uintptr(len(text))
	for i, kept := range []string{c.id, c.fromTag, c.toTag, c.dialogID, c.fromURI, c.toURI, c.username} {
		if kept != words[i] {
			t.Errorf("%q is kept as %q", words[i], kept)
		}
		if at := uintptr(unsafe.Pointer(unsafe.StringData(kept))); at >= first && at < last {
			t.Errorf("%q keeps the whole request", kept)
		}
	}
	tag := unsafe.StringData(c.toTag)
	table.confirm(c, &link{relay: c.relay}, u, time.Now())
	if unsafe.StringData(c.toTag) != tag {
		t.Error("what is known already is copied again")
	}
}

// The list of each relay has those calls that are attributed to it.
func TestCallsOfRelays(t *testing.T) {
	draw := rand.New(rand.NewPCG(1, 2))
	table := newCallTable(nil)
	relays := []*relayState{nil, {name: "a"}, {name: "b"}, {name: "c"}}
	for range 3000 {
		id := fmt.Sprint(draw.IntN(40))
		table.mu.Lock()
		c := table.byID[id]
		switch {
		case c == nil:
			table.addLocked(&callState{id: id, fromTag: "f"})
		case draw.IntN(4) == 0:
			table.deleteLocked(c)
		default:
			c.setRelayLocked(relays[draw.IntN(len(relays))])
		}
		table.mu.Unlock()
		for _, r := range relays[1:] {
			want := map[*callState]bool{}
			for _, c := range table.snapshot(func(c *callState) bool { return c.relay == r }) {
				want[c] = true
			}
			got := table.of(r, func(*callState) bool { return true })
			for _, c := range got {
				if !want[c] {
					t.Fatalf("call %s is in the list of %s, and of %v", c.id, r.name, c.relay)
				}
				delete(want, c)
			}
			if len(want) > 0 || int(r.calls.Load()) != len(got) {
				t.Fatalf("%d calls are not in the list of %s, which has %d of %d", len(want), r.name, len(got), r.calls.Load())
			}
		}
	}
}

// With hundreds of relays a call leaves no more to the garbage collector than with one.
func TestChoosingLeavesNothing(t *testing.T) {
	d := &Dispatcher{cfg: Config{Selector: LeastLoaded{}}, registry: newRegistry(), calls: newCallTable(nil)}
	for i := range 500 {
		l := &link{hello: relaylink.RelayHello{Name: fmt.Sprintf("r%d", i), Instance: "i"}}
		d.registry.attach(l, nil)
	}
	s := &setup{d: d, u: control.Update{CallID: "c", FromTag: "f"}}
	if n := testing.AllocsPerRun(200, func() {
		if r, others, _ := s.choose(nil); r == nil || !others {
			t.Errorf("chosen %v, others %v", r, others)
		}
	}); n > 4 { // a pool under the race detector forgets a part
		t.Errorf("%v allocations for a choice", n)
	}
}
