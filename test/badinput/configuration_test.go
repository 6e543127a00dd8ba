package badinput

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"example.org/mediaproxy/test/internal/site"
)

// TestConfigurations: what stops a program says so with file and line, before anything
// is opened; `check` says the same.
func TestConfigurations(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, text string
		program    string
		want       []string
	}{
		{"odd ports", "[Relay]\nport_range = 50001:50010\n", "relay", []string{"config.ini:2: error: [Relay] port_range: \"50001:50010\" is not valid: want two even numbers"}},
		{"ports the wrong way round", "[Relay]\nport_range = 60000:50000\n", "relay", []string{"want a start below the end"}},
		{"address", "[Relay]\nrelay_ip = 10.0.0.300\n", "relay", []string{"config.ini:2: error: [Relay] relay_ip: \"10.0.0.300\" is not valid: want an IPv4 or IPv6 address"}},
		{"seconds", "[Relay]\nstream_timeout = soon\n", "relay", []string{"want whole seconds"}},
		{"policy", "[Relay]\naddress_learning = trusting\n", "relay", []string{"want one of guarded, strict, first-packet"}},
		{"network", "[Relay]\nroutable_private_ranges = 10.0.0.0/33\n", "relay", []string{"want a network as in 10.0.0.0/8"}},
		{"dispatcher's port", "[Relay]\ndispatchers = 127.0.0.1:99999\n", "relay", []string{"want host[:port]"}},
		{"passport", "[Relay]\npassport = cn:x\n", "relay", []string{"is not one of O OU CN C L ST EMAIL"}},
		{"listener", "[Dispatcher]\nlisten = everywhere\n", "dispatcher", []string{"config.ini:2: error: [Dispatcher] listen: \"everywhere\" is not valid"}},
		{"selection", "[Dispatcher]\nrelay_selection = fastest\n", "dispatcher", []string{"relay_selection: \"fastest\" is not valid"}},
		{"management format", "[Dispatcher]\nmanagement_format = xml\n", "dispatcher", []string{"want one of array, lines"}},
		{"a name twice", "[Relay]\nname = a\nname = b\n", "relay", []string{"config.ini:3: error: [Relay] name: set twice, first at line 2"}},
		{"a section twice", "[Relay]\nname = a\n[Relay]\nname = b\n", "relay", []string{"config.ini:3: error: [Relay]: section is already there at line 1"}},
		{"no section", "name = a\n", "relay", []string{"config.ini:1: error: setting before the first [section]"}},
		{"no setting", "[Relay]\nthis is no setting\n", "relay", []string{"config.ini:2: error: [Relay]: neither a [section] nor name = value"}},
		{"binary", "\xff\xfe[\x00R\x00\n", "relay", []string{"config.ini:1: error:"}},
		{"a lone percent sign", "[Relay]\npassport = CN:100% sure\n", "relay", []string{"config.ini:2: error: [Relay] passport"}},
		{"unknown where that is an error", "[Relay]\nstrict_config = yes\nstream_timout = 9\n", "relay", []string{"config.ini:3: error: [Relay] stream_timout: unknown setting, ignored; did you mean stream_timeout?"}},
		{"all at once", "[Relay]\nport_range = 1:2\nlog_level = loud\nrelay_ip = x\n", "relay", []string{"has 3 error(s)", "config.ini:2:", "config.ini:3:", "config.ini:4:"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			if err := os.WriteFile(filepath.Join(dir, "config.ini"), []byte(tt.text), 0o600); err != nil {
				t.Fatal(err)
			}
			for _, c := range [][]string{{tt.program, "--config-dir", dir, "--runtime-dir", dir}, {"check", "--config-dir", dir}} {
				out, code := site.Run(t, c...)
				if code != 1 {
					t.Errorf("%s: got code %d, want 1\n%s", c[0], code, out)
				}
				for _, want := range tt.want {
					if !strings.Contains(out, want) {
						t.Errorf("%s: got\n%s\nwant %q in it", c[0], out, want)
					}
				}
			}
		})
	}
}

// TestHost: what is right in itself and wrong on this host stops a program too.
func TestHost(t *testing.T) {
	t.Parallel()
	s := site.New(t, site.Options{})
	for _, tt := range []struct {
		name, program, want string
		lines               []string
	}{
		{"group", "dispatcher", "config.ini:5: error: [Dispatcher] socket_group: there is no group no-such-group on this host; type: groupadd --system no-such-group",
			[]string{"[Dispatcher]", "socket_group = no-such-group"}},
		{"listener's address", "dispatcher", "listen for relays: listen tcp 192.0.2.200:25060: bind: cannot assign requested address",
			[]string{"[Dispatcher]", "listen = 192.0.2.200"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := s.Folder(tt.program, append(tt.lines, "state_dir = "+s.Certs+"-state")...)
			out, code := site.Run(t, tt.program, "--config-dir", dir, "--runtime-dir", dir)
			if code != 1 || !strings.Contains(out, tt.want) {
				t.Errorf("got code %d and\n%s\nwant 1 and %q", code, out, tt.want)
			}
		})
	}
}

// TestOddConfigurations: what the original ignores is a warning, and the program runs.
func TestOddConfigurations(t *testing.T) {
	t.Parallel()
	s := site.New(t, site.Options{})
	s.DispatcherAt("127.18.20.9")
	r := s.RelayAt("r1", "127.18.20.1", "127.18.20.9", "stream_timout = 90", "userspace_transmit_every = 1", "[Rely]", "name = x", "[ThorNetwork]", "domain = None")
	for _, want := range [][]string{
		{"level=WARN", "unknown setting, ignored; did you mean stream_timeout?", "section=Relay", "setting=stream_timout"},
		{"level=WARN", "unknown section, its settings are ignored; did you mean [Relay]?", "section=Rely"},
	} {
		if !r.Log.Has(want...) {
			t.Errorf("no line with %q in\n%s", want, r.Log)
		}
	}
}

// TestChangedWhileRunning: a file that was broken under a running program breaks
// nothing, and HUP to the dispatcher does not have it read.
func TestChangedWhileRunning(t *testing.T) {
	t.Parallel()
	s := newStage(t, 12)
	for _, p := range []*site.Process{s.d, s.r} {
		if err := os.WriteFile(filepath.Join(p.Dir, "config.ini"), []byte("[[[\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s.logs(s.d, func() { s.d.Signal(syscall.SIGHUP) }, "HUP does nothing to the dispatcher in this version")
	s.serves()
}

// TestSecondStart: a port or a socket that is taken, by the very same program.
func TestSecondStart(t *testing.T) {
	t.Parallel()
	s := newStage(t, 13)
	out, code := site.Run(t, "dispatcher", "--config-dir", s.d.Dir, "--runtime-dir", s.d.Dir)
	if code != 1 || !strings.Contains(out, "dispatcher.sock") {
		t.Errorf("got code %d and\n%s\nwant 1 and a line about the socket", code, out)
	}
	s.serves()
}
