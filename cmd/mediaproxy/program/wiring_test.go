package program

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"example.org/mediaproxy/internal/config"
	"example.org/mediaproxy/internal/dispatcher"
	"example.org/mediaproxy/internal/media"
)

func TestCompleteOptions(t *testing.T) {
	for _, tt := range []struct{ in, want string }{
		{"", ""},
		{"--config /x", "--config-dir /x"},
		{"--conf=/x --run --debug", "--config-dir=/x --runtime-dir --debug"}, // --debug is the folder's name
		{"--debug --debug-m --no", "--debug --debug-memory --no-fork"},
		{"--deb", "--deb"},
		{"--system --nothing", "--systemd --nothing"},
		{"-h -- --conf", "-h -- --conf"},
		{"--config-dir --run --run y", "--config-dir --run --runtime-dir y"},
	} {
		c := classics[0]
		cmd := c.command([]string{c.name})
		got := completeOptions(cmd.Flags(), strings.Fields(tt.in))
		if diff := cmp.Diff(strings.Fields(tt.want), got); diff != "" && len(got) > 0 {
			t.Errorf("%q: -want +got:\n%s", tt.in, diff)
		}
	}
}

// Every setting about media reaches the room that obeys it.
func TestMediaConfig(t *testing.T) {
	c, problems := config.Parse("f", []byte(`[Relay]
advertised_ip = 198.51.100.1
port_range = 50000:65536
port_rest_time = 0
stream_timeout = 1
idle_timeout = 2
one_way_timeout = 3
on_hold_timeout = 4
address_learning = strict
trusted_media_ranges = 192.0.2.0/24
routable_private_ranges = 10.0.0.0/8
auto_detect_interfaces = yes
`))
	if err := problems.Err(); err != nil {
		t.Fatal(err)
	}
	local := netip.MustParseAddr("127.0.0.1")
	got := mediaConfig(c.Relay, []netip.Addr{local})
	if got.Detect != nil {
		t.Error("advertised_ip does not switch auto_detect_interfaces off")
	}
	want := media.Config{
		Locals: []netip.Addr{local}, Advertised: []netip.Addr{netip.MustParseAddr("198.51.100.1")},
		FirstPort: 50000, EndPort: 0, PortRest: 1, Learning: media.Strict,
		TrustedRanges: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}, RoutableRanges: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")},
		StreamTimeout: time.Second, IdleTimeout: 2 * time.Second, OneWayTimeout: 3 * time.Second, HoldTimeout: 4 * time.Second,
	}
	same := cmp.Comparer(func(a, b netip.Addr) bool { return a == b })
	samePrefix := cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })
	if diff := cmp.Diff(want, got, same, samePrefix, cmp.FilterPath(func(p cmp.Path) bool {
		return p.String() == "Detect" || p.String() == "Pick"
	}, cmp.Ignore())); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	c.Relay.AdvertisedIP, c.Relay.AddressLearning = nil, "first-packet"
	if got := mediaConfig(c.Relay, nil); got.Detect == nil || got.Learning != media.FirstPacket {
		t.Errorf("detection or learning is lost: %+v", got)
	}
}

func TestSelector(t *testing.T) {
	for name, want := range map[string]dispatcher.Selector{
		"least-loaded": dispatcher.LeastLoaded{}, "random": dispatcher.Random{},
		"weighted": dispatcher.Weighted{Weights: map[string]int{"a": 2}}, "labels": dispatcher.Labels{Preferred: []string{"eu"}},
	} {
		got := selector(config.Dispatcher{RelaySelection: name, RelayWeights: map[string]int{"a": 2}, RelayLabels: []string{"eu"}})
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: -want +got:\n%s", name, diff)
		}
	}
}

func TestConnectTo(t *testing.T) {
	for in, want := range map[string]string{"0.0.0.0:1": "127.0.0.1:1", "[::]:2": "[::1]:2", "192.0.2.1:3": "192.0.2.1:3"} {
		if got := connectTo(netip.MustParseAddrPort(in)); got != want {
			t.Errorf("connectTo(%s) = %s, want %s", in, got, want)
		}
	}
}

func TestLookupGroup(t *testing.T) {
	if gid, err := lookupGroup("root"); err == nil && gid != 0 {
		t.Errorf("group root is %d", gid)
	}
	if _, err := lookupGroup("no-such-group"); err == nil || !strings.Contains(err.Error(), "groupadd") {
		t.Errorf("unknown group: %v, want the line to type", err)
	}
	if !mayGive(0) && mayGive(-1) {
		t.Error("a group that this process is not in may be given")
	}
}
