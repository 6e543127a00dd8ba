package relay

import (
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
)

// fakeResolver answers from two tables. A name that is missing does not exist;
// an error in the tables is returned as it is.
type fakeResolver struct {
	mu    sync.Mutex
	srv   map[string][]*net.SRV
	hosts map[string][]netip.Addr
	fail  map[string]error // by name, for both kinds of question
	asked int
}

func (f *fakeResolver) LookupSRV(_ context.Context, service, proto, name string) (string, []*net.SRV, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.asked++
	full := "_" + service + "._" + proto + "." + name
	if err := f.fail[full]; err != nil {
		return "", nil, err
	}
	if s, ok := f.srv[full]; ok {
		return full, slices.Clone(s), nil
	}
	return "", nil, &net.DNSError{Err: "no such host", Name: full, IsNotFound: true}
}

func (f *fakeResolver) LookupNetIP(_ context.Context, _, host string) ([]netip.Addr, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.asked++
	if err := f.fail[host]; err != nil {
		return nil, err
	}
	if a, ok := f.hosts[host]; ok {
		return slices.Clone(a), nil
	}
	return nil, &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}
}

func (f *fakeResolver) set(change func(*fakeResolver)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change(f)
}

func places(texts ...string) []netip.AddrPort {
	var out []netip.AddrPort
	for _, s := range texts {
		out = append(out, netip.MustParseAddrPort(s))
	}
	return out
}

func TestParseTarget(t *testing.T) {
	for _, c := range []struct {
		text     string
		addr     string
		name     string
		port     uint16
		explicit bool
		problem  string
	}{
		{text: "192.0.2.1", addr: "192.0.2.1", port: 25060},
		{text: "192.0.2.1:25070", addr: "192.0.2.1", port: 25070, explicit: true},
		{text: "2001:db8::1", addr: "2001:db8::1", port: 25060},
		{text: "[2001:db8::1]", addr: "2001:db8::1", port: 25060},
		{text: "[2001:db8::1]:9", addr: "2001:db8::1", port: 9, explicit: true},
		{text: "::ffff:192.0.2.1", addr: "192.0.2.1", port: 25060},
		{text: "proxy.example.com", name: "proxy.example.com", port: 25060},
		{text: "proxy.example.com.:1", name: "proxy.example.com", port: 1, explicit: true},
		{text: "proxy:0", problem: `port "0"`},
		{text: "proxy:65536", problem: `port "65536"`},
		{text: "proxy:sip", problem: `port "sip"`},
		{text: ":25060", problem: "neither an address nor a host name"},
		{text: "", problem: "neither an address nor a host name"},
		{text: "a b", problem: "neither an address nor a host name"},
		{text: "[2001:db8::zz]:9", problem: "neither an address nor a host name"},
	} {
		got, err := parseTarget(c.text)
		if c.problem != "" {
			if err == nil || !strings.Contains(err.Error(), c.problem) {
				t.Errorf("%q: got %v, want an error with %q", c.text, err, c.problem)
			}
			continue
		}
		want := target{text: c.text, name: c.name, port: c.port, explicit: c.explicit}
		if c.addr != "" {
			want.addr = netip.MustParseAddr(c.addr)
		}
		if err != nil || got != want {
			t.Errorf("%q: got %+v, %v, want %+v", c.text, got, err, want)
		}
	}
}

func FuzzParseTarget(f *testing.F) {
	for _, s := range []string{"a:1", "[::1]:2", "::1", "x.", "[[::1]]", "1.2.3.4:5"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		got, err := parseTarget(text)
		if err != nil {
			return
		}
		if got.addr.IsValid() == (got.name != "") {
			t.Fatalf("%q: %+v is not exactly one of address and name", text, got)
		}
		if got.port == 0 || len(got.name) > len(text) {
			t.Fatalf("%q: impossible %+v", text, got)
		}
	})
}

func TestLookup(t *testing.T) {
	slow := &net.DNSError{Err: "i/o timeout", IsTimeout: true, IsTemporary: true}
	r := &fakeResolver{
		srv: map[string][]*net.SRV{
			"_sip._udp.two.example": {
				{Target: "b.example.", Port: 7002, Priority: 20},
				{Target: "a.example.", Port: 7001, Priority: 10},
			},
			"_sip._udp.none.example":   {{Target: ".", Port: 5}},
			"_sip._udp.broken.example": {{Target: "slow.example.", Port: 5}},
			"_sip._udp.half.example": {
				{Target: "slow.example.", Port: 5, Priority: 1}, {Target: "a.example.", Port: 6, Priority: 2}},
		},
		hosts: map[string][]netip.Addr{
			"a.example":    {netip.MustParseAddr("192.0.2.10"), netip.MustParseAddr("192.0.2.9")},
			"b.example":    {netip.MustParseAddr("2001:db8::b"), netip.MustParseAddr("::ffff:192.0.2.11")},
			"none.example": {netip.MustParseAddr("192.0.2.12")},
			"two.example":  {netip.MustParseAddr("192.0.2.13")},
		},
		fail: map[string]error{"slow.example": slow, "_sip._udp.slow.example": slow},
	}
	for _, c := range []struct {
		text     string
		keepPort bool
		want     []netip.AddrPort
		gone     bool
		failed   bool
	}{
		{text: "192.0.2.1:3", want: places("192.0.2.1:3")},
		{text: "a.example", want: places("192.0.2.9:25060", "192.0.2.10:25060")},
		{text: "b.example:8", want: places("192.0.2.11:8", "[2001:db8::b]:8")},
		{text: "two.example", want: places("192.0.2.9:7001", "192.0.2.10:7001", "192.0.2.11:7002", "[2001:db8::b]:7002")},
		{text: "two.example", keepPort: true, want: places("192.0.2.9:25060", "192.0.2.10:25060", "192.0.2.11:25060", "[2001:db8::b]:25060")},
		{text: "two.example:9", want: places("192.0.2.9:9", "192.0.2.10:9", "192.0.2.11:9", "[2001:db8::b]:9")},
		{text: "none.example", want: places("192.0.2.12:25060")},
		{text: "half.example", want: places("192.0.2.9:6", "192.0.2.10:6")},
		{text: "missing.example", gone: true},
		{text: "slow.example", failed: true},
		{text: "broken.example", failed: true},
	} {
		target, err := parseTarget(c.text)
		if err != nil {
			t.Fatal(err)
		}
		got, err := lookup(t.Context(), r, target, c.keepPort)
		if gone, failed := errors.Is(err, errGone), err != nil && !errors.Is(err, errGone); gone != c.gone || failed != c.failed {
			t.Errorf("%s: got error %v, want gone %v, failed %v", c.text, err, c.gone, c.failed)
		}
		if !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s: got %v, want %v", c.text, got, c.want)
		}
	}
}

func TestOrderSRVFollowsPriorityAndWeight(t *testing.T) {
	records := []*net.SRV{
		{Target: "late.", Priority: 2, Weight: 100},
		{Target: "often.", Priority: 1, Weight: 90},
		{Target: "seldom.", Priority: 1, Weight: 10},
		{Target: "never.", Priority: 1, Weight: 0},
		{Target: ".", Priority: 0},
	}
	random := rand.New(rand.NewPCG(1, 2))
	first := map[string]int{}
	for range 2000 {
		got := orderSRV(records, random.IntN)
		if len(got) != 4 || got[3].Target != "late." {
			t.Fatalf("got %v, want four with the worse priority last", got)
		}
		first[got[0].Target]++
	}
	if first["often."] < 1700 || first["seldom."] < 120 || first["seldom."] > 280 || first["never."] > 60 {
		t.Errorf("first places %v do not follow weights 90, 10, 0", first)
	}
}

func TestChoiceStaysUntilItMustMove(t *testing.T) {
	var c choice
	a, b, d := places("192.0.2.1:1")[0], places("192.0.2.2:1")[0], places("192.0.2.3:1")[0]
	c.found([]netip.AddrPort{a, b})
	c.found([]netip.AddrPort{b, a})
	if c.current != a {
		t.Fatalf("got %v, want %v: a rotated answer moved the link", c.current, a)
	}
	if !c.unreachable(a) || c.current != b {
		t.Fatalf("got %v, want the next place %v", c.current, b)
	}
	if c.unreachable(b) || c.current != b {
		t.Fatalf("got %v, want to stay at %v after a full round", c.current, b)
	}
	if !c.unreachable(b) || c.current != a {
		t.Fatalf("got %v, want %v in the next round", c.current, a)
	}
	c.reached(a)
	if len(c.tried) != 0 {
		t.Errorf("a success left %v as tried", c.tried)
	}
	c.found([]netip.AddrPort{d})
	if c.current != d {
		t.Errorf("got %v, want the only place %v", c.current, d)
	}
	if c.unreachable(d) || c.unreachable(a) {
		t.Error("moved although there is only one place")
	}
}
