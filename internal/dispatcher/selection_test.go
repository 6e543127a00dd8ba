package dispatcher

import (
	"net/netip"
	"os"
	"strings"
	"testing"

	"example.org/mediaproxy/internal/wire/relaylink"
)

// firsts counts how often each relay is put first.
func firsts(t *testing.T, s Selector, call Call, relays []Candidate, rounds int) map[string]int {
	t.Helper()
	counts := map[string]int{}
	for range rounds {
		list := append([]Candidate(nil), relays...)
		s.Order(call, list)
		seen := map[string]bool{}
		for _, c := range list {
			seen[c.Name] = true
		}
		if len(seen) != len(relays) {
			t.Fatalf("%T made %v of %v", s, list, relays)
		}
		counts[list[0].Name]++
	}
	return counts
}

func TestSelectors(t *testing.T) {
	relays := []Candidate{
		{Name: "a", Sessions: 100, Capacity: 1000, Labels: []string{"eu"}},
		{Name: "b", Sessions: 50, Capacity: 100, Labels: []string{"us"}},
		{Name: "c", Sessions: 900, Labels: []string{"us", "big"}}, // 900 of a supposed 5000
	}
	const rounds = 6000
	for _, tt := range []struct {
		name     string
		selector Selector
		call     Call
		min, max map[string]int // how often first, of 6000
	}{
		{"random", Random{}, Call{}, map[string]int{"a": 1700, "b": 1700, "c": 1700}, nil},
		// Of two drawn: a wins 2 of 3 draws, c 1 of 3 (against b), b never.
		{"least-loaded", LeastLoaded{}, Call{}, map[string]int{"a": 3700, "c": 1700}, map[string]int{"b": 0}},
		{"weighted", Weighted{map[string]int{"a": 4, "c": 0}}, Call{}, map[string]int{"a": 4500, "b": 900}, map[string]int{"c": 0}},
		{"weighted, all zero", Weighted{map[string]int{"a": 0, "b": 0, "c": 0}}, Call{}, map[string]int{"a": 1700}, nil},
		{"labels, none", Labels{}, Call{}, map[string]int{"a": 3700}, map[string]int{"b": 0}},
		{"labels, preferred", Labels{[]string{"big", "us"}}, Call{}, map[string]int{"c": rounds}, nil},
		{"labels, the call's region", Labels{[]string{"big", "us"}}, Call{MediaRelay: "eu"}, map[string]int{"a": rounds}, nil},
		{"labels, load among equals", Labels{}, Call{MediaRelay: "us"}, map[string]int{"c": rounds / 2}, map[string]int{"a": 0}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			counts := firsts(t, tt.selector, tt.call, relays, rounds)
			for name, n := range tt.min {
				if counts[name] < n {
					t.Errorf("%s was first %d times, want at least %d", name, counts[name], n)
				}
			}
			for name, n := range tt.max {
				if counts[name] > n {
					t.Errorf("%s was first %d times, want at most %d", name, counts[name], n)
				}
			}
		})
	}
}

func TestOneRelayIsEnough(t *testing.T) {
	for _, s := range []Selector{Random{}, LeastLoaded{}, Weighted{}, Labels{}} {
		s.Order(Call{}, nil)
		s.Order(Call{}, []Candidate{{Name: "a"}})
	}
}

func TestMediaRelayIsPreferred(t *testing.T) {
	u := start(t, nil)
	u.relay("a", greeting(func(h *relaylink.RelayHello) { h.IP, h.IPs = "203.0.113.1", []string{"2001:db8::1"} }))
	b := u.relay("b", greeting(func(h *relaylink.RelayHello) { h.IP, h.IPs = "203.0.113.2", []string{"2001:db8::2"} }))
	plain := u.relay("127.0.0.2", plainFrom("127.0.0.2"))
	m := u.module()
	for i, tt := range []struct {
		wish  string
		relay *fakeRelay
	}{{"b", b}, {"203.0.113.2", b}, {"2001:db8::2", b}, {"127.0.0.2", plain}} {
		for j := range 8 { // so that chance cannot pass
			before := tt.relay.count(relaylink.Update)
			call := string(rune('a'+i)) + string(rune('a'+j))
			if got := m.ask(message{call: call, from: "f", mediaRelay: tt.wish}.String()); got != ports {
				t.Fatal(got)
			}
			if tt.relay.count(relaylink.Update) != before+1 {
				t.Errorf("media_relay %s did not go to relay %s", tt.wish, tt.relay.name)
			}
		}
	}
	if got := m.ask(message{call: "x", from: "f", mediaRelay: "192.0.2.99"}.String()); got != ports {
		t.Error(got)
	}
	if !u.logged("no active relay has this name, address or label") {
		t.Error("a wish for an unknown relay was not logged")
	}
}

func TestSuspectRelaysComeLast(t *testing.T) {
	u := start(t, nil)
	bad := u.relay("bad", handling(silent))
	u.relay("good")
	m := u.module()
	if got := m.ask(message{call: "c", from: "f", mediaRelay: "bad"}.String()); got != ports {
		t.Fatal(got)
	}
	for i := range 10 {
		if got := m.ask(message{call: string(rune('a' + i)), from: "x", mediaRelay: "bad"}.String()); got != ports {
			t.Fatal(got)
		}
	}
	if n := bad.count(relaylink.Update); n != 1 {
		t.Errorf("the silent relay let %d calls wait", n)
	}
}

func TestCandidateAddresses(t *testing.T) {
	c := Candidate{Name: "r", Addrs: []netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")}}
	for wish, want := range map[string]bool{"": false, "r": true, "R": false, "192.0.2.1": true, "::ffff:192.0.2.1": true,
		"2001:DB8:0::1": true, "192.0.2.2": false, "192.0.2.1:5": false} {
		if c.preferredBy(wish) != want {
			t.Errorf("preferredBy(%q) = %v", wish, !want)
		}
	}
}

// TestGuideIsTheCode keeps docs/extend-selection.md compiling: its example is
// nearest_test.go, word for word.
func TestGuideIsTheCode(t *testing.T) {
	guide, err := os.ReadFile("../../docs/extend-selection.md")
	if err != nil {
		t.Fatal(err)
	}
	code, err := os.ReadFile("nearest_test.go")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(guide), "```go\n"+string(code)+"```\n") {
		t.Error("the example in the guide differs from nearest_test.go")
	}
}

func TestNearest(t *testing.T) {
	addr := netip.MustParseAddr
	relays := []Candidate{
		{Name: "far", Addrs: []netip.Addr{addr("203.0.113.1"), addr("2001:db8:1::1")}},
		{Name: "near", Addrs: []netip.Addr{addr("198.51.100.1"), addr("2001:db8:2::1")}},
	}
	for caller, want := range map[string]string{"198.51.100.200": "near", "203.0.112.9": "far", "2001:db8:2:5::9": "near"} {
		if counts := firsts(t, Nearest{}, Call{Caller: addr(caller)}, relays, 50); counts[want] != 50 {
			t.Errorf("%s: %v, want %s", caller, counts, want)
		}
	}
	if counts := firsts(t, Nearest{}, Call{}, relays, 400); counts["far"] < 100 || counts["near"] < 100 {
		t.Errorf("without a caller address: %v", counts)
	}
}
