package program

import (
	"net/netip"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"example.org/mediaproxy/cmd/mediaproxy/doctor"
)

func TestPatient(t *testing.T) {
	ip := netip.MustParseAddr("203.0.113.5")
	s := newSite(t)
	for _, c := range []struct {
		name, relay string
		problems    bool
		want        doctor.Relay
	}{
		{"all set", "relay_ip = 203.0.113.5\nport_range = 50000:65536\nfast_path = off\nbpf_dir = /b\nstate_dir = /s", false,
			doctor.Relay{Addresses: []netip.Addr{ip}, FirstPort: 50000, LastPort: 65535, FastPath: "off", BPFDir: "/b", StateDir: "/s", Descriptors: 15536 + 1000}},
		{"both families", "relay_ip = 203.0.113.5, 2001:db8::5\nstate_dir = /s", false,
			doctor.Relay{Addresses: []netip.Addr{ip, netip.MustParseAddr("2001:db8::5")}, FirstPort: 40000, LastPort: 59999, FastPath: "auto", BPFDir: "/sys/fs/bpf/mediaproxy", StateDir: "/s", Descriptors: 2*20000 + 1000}},
		{"a mistake", "relay_ip = 203.0.113.5\nport_range = 1\nstate_dir = /s", true,
			doctor.Relay{Addresses: []netip.Addr{ip}, FirstPort: 40000, LastPort: 59999, FastPath: "auto", BPFDir: "/sys/fs/bpf/mediaproxy", StateDir: "/s", Descriptors: 20000 + 1000}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if err := os.WriteFile(filepath.Join(s.config, "config.ini"), []byte("[Relay]\n"+c.relay+"\n"), 0o600); err != nil {
				t.Fatal(err)
			}
			got := patient(&options{configDir: s.config})
			if (got.Problems != nil) != c.problems {
				t.Errorf("problems: %v", got.Problems)
			}
			c.want.CheckWith = "mediaproxy check --for relay --config-dir " + s.config
			got.Problems, c.want.Problems = nil, nil
			if diff := cmp.Diff(c.want, got, cmpopts.EquateComparable(netip.Addr{})); diff != "" {
				t.Error(diff)
			}
		})
	}
}
