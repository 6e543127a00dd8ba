package program

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

const (
	quietDispatcher = "listen = 127.0.0.1:0\nlisten_management = 127.0.0.1:0"
	quietRelay      = "relay_ip = 127.0.0.1"
)

// In the background: the program at the terminal returns when the sockets are open, the
// copy has a PID file, refuses to run twice, and goes away in good order.
func TestBackground(t *testing.T) {
	for _, name := range []string{"media-dispatcher", "media-relay"} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t)
			s.certificates(t)
			s.write(t, quietDispatcher+"\nnonsense = 1", quietRelay+"\nnonsense = 1")
			p := start(t, nil, s.args(name)...)
			if code := p.exit(t); code != 0 {
				t.Fatalf("exit code %d, want 0", code)
			}
			if !strings.Contains(p.stderr(), "nonsense: unknown setting") {
				t.Errorf("no warning at the terminal: %q", p.stderr())
			}
			pid := s.pid(t, name)
			stopped := false
			t.Cleanup(func() {
				if !stopped {
					syscall.Kill(pid, syscall.SIGKILL)
				}
			})
			if name == "media-dispatcher" {
				conn, err := net.Dial("unix", filepath.Join(s.run, "dispatcher.sock"))
				if err != nil {
					t.Fatal("the socket is not open although the program at the terminal has returned: ", err)
				}
				conn.Close()
			}
			again := start(t, nil, s.args(name)...)
			if code := again.exit(t); code != 1 || !strings.Contains(again.stderr(), " already") || !strings.Contains(again.stderr(), "process "+strconv.Itoa(pid)) {
				t.Errorf("a second one: exit code %d, %q", code, again.stderr())
			}
			if err := syscall.Kill(pid, syscall.SIGTERM); err != nil {
				t.Fatal(err)
			}
			eventually(t, "the PID file is gone", func() bool { return !exists(filepath.Join(s.run, name+".pid")) })
			stopped = true
			if exists(filepath.Join(s.run, "dispatcher.sock")) {
				t.Error("the socket is left behind")
			}
		})
	}
}

// Every broken configuration is refused with exit code 1 and a message that says where
// and what would be right; all problems at once.
func TestBrokenConfigurations(t *testing.T) {
	tests := []struct {
		name, program     string
		dispatcher, relay string
		certificates      bool
		want              []string
	}{
		{"two values", "media-relay", "", "port_range = 1:2\nstream_timeout = soon", true,
			[]string{"2 error(s)", `config.ini:6: error: [Relay] port_range: "1:2" is not valid: want ports from 1024`, `config.ini:7: error: [Relay] stream_timeout: "soon" is not valid: want whole seconds`}},
		{"twice", "media-relay", "", "name = a\nname = b", true, []string{"config.ini:7: error: [Relay] name: set twice, first at line 6"}},
		{"percent", "media-relay", "", "name = 5%", true, []string{"config.ini:6: error: [Relay] name: a single % is not allowed; write %%"}},
		{"no section", "media-relay", "", "[Relay", true, []string{"config.ini:6: error: [Relay]: neither a [section] nor name = value"}},
		{"passport", "media-relay", "", "passport = cn:x", true, []string{"config.ini:6: error: [Relay] passport: "}},
		{"passport that ends early", "media-dispatcher", "management_passport = O:x,", "", true, []string{"config.ini:3: error: [Dispatcher] management_passport: "}},
		{"strict", "media-relay", "", "strict_config = yes\nstream_timout = 5\n[Realy]", true,
			[]string{"config.ini:7: error: [Relay] stream_timout: unknown setting, ignored; did you mean stream_timeout?", "config.ini:8: error: [Realy]: unknown section"}},
		{"on_stop", "media-relay", "", "on_stop = pause", true, []string{"[Relay] on_stop", "keep, end"}},
		{"address that is not here", "mediaproxy relay", "", "relay_ip = 192.0.2.1, 192.0.2.2", true, []string{"config.ini:6: error: [Relay] relay_ip"}},
		{"group", "media-dispatcher", quietDispatcher + "\nsocket_group = no-such-group", "", true, []string{"config.ini:5: error: [Dispatcher] socket_group: there is no group no-such-group", "groupadd"}},
		{"certificates", "media-relay", "", quietRelay, false, []string{"ca.pem", "mediaproxy certs"}},
		{"listen", "mediaproxy dispatcher", "listen = 192.0.2.77:25060", "", true, []string{"listen for relays", "192.0.2.77:25060"}},
		{"nothing but certificates missing", "media-relay", "", "log_format = json\n[TLS]\n[Database]\n[OpenSIPS]\n[DEFAULT]\nx = 1", false, []string{"ca.pem"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := newSite(t)
			if tt.certificates {
				s.certificates(t)
			}
			s.write(t, tt.dispatcher, tt.relay)
			p := start(t, nil, s.args(strings.Fields(tt.program)...)...)
			if code := p.exit(t); code != 1 {
				t.Errorf("exit code %d, want 1", code)
			}
			for _, want := range tt.want {
				if !strings.Contains(p.stderr(), want) {
					t.Errorf("it says nothing of %q", want)
				}
			}
			if p.stdout() != "" {
				t.Errorf("standard output has %q", p.stdout())
			}
		})
	}
}

// A file of the original with things that mean nothing here starts, and says what it left out.
func TestStartsWithWarnings(t *testing.T) {
	s := newSite(t)
	s.certificates(t)
	s.write(t, "accounting = database\nunknown_setting = %", quietRelay+"\nuserspace_transmit_every = 2\n[Databse]\nx = y")
	p := start(t, nil, s.args("media-relay", "--no-fork")...)
	p.says(t, "the relay idles")
	for _, want := range []string{"unknown_setting", "did you mean [Database]?", "settings without effect in this version", "userspace_transmit_every"} {
		if !strings.Contains(p.stderr(), want) {
			t.Errorf("it says nothing of %q", want)
		}
	}
	p.signal(t, syscall.SIGTERM)
	if code := p.exit(t); code != 0 {
		t.Errorf("exit code %d, want 0", code)
	}
	c := start(t, nil, "mediaproxy", "check", "--config-dir", s.config)
	if code := c.exit(t); code != 1 || !strings.Contains(c.stderr(), "2 error(s)") {
		t.Errorf("check: exit code %d, want 1 and two errors", code)
	}
}

func TestSignals(t *testing.T) {
	s := newSite(t)
	s.certificates(t)
	s.write(t, quietDispatcher, quietRelay)

	d := start(t, nil, s.args("media-dispatcher", "--no-fork", "--debug-memory")...)
	d.says(t, "dispatcher ready")
	d.signal(t, syscall.SIGUSR1)
	d.says(t, `msg="log level changed" level=DEBUG`)
	d.signal(t, syscall.SIGUSR1)
	d.says(t, `msg="log level changed" level=INFO`)
	d.signal(t, syscall.SIGHUP)
	d.says(t, "HUP does nothing to the dispatcher")
	d.signal(t, syscall.SIGINT)
	if code := d.exit(t); code != 0 {
		t.Errorf("dispatcher: exit code %d, want 0", code)
	}
	if !strings.Contains(d.stderr(), "memory at the end") {
		t.Error("no report of memory")
	}

	r := start(t, nil, s.args("mediaproxy", "relay", "--debug")...)
	r.says(t, "the relay idles")
	r.signal(t, syscall.SIGHUP) // no calls: it ends at once
	if code := r.exit(t); code != 0 {
		t.Errorf("relay after HUP: exit code %d, want 0", code)
	}
	if !strings.Contains(r.stderr(), "drain") {
		t.Error("no word of the drain")
	}
}

// What systemd hears: ready, alive, stopping. The journal is not there for a test, so
// --systemd falls back to the terminal.
func TestUnderSystemd(t *testing.T) {
	s := newSite(t)
	s.certificates(t)
	s.write(t, quietDispatcher, quietRelay)
	path := filepath.Join(t.TempDir(), "notify")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetReadDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	next := func() string {
		t.Helper()
		buf := make([]byte, 4096)
		n, err := conn.Read(buf)
		if err != nil {
			t.Fatal(err)
		}
		return string(buf[:n])
	}
	env := []string{"NOTIFY_SOCKET=" + path, "WATCHDOG_USEC=200000"}
	p := start(t, env, s.args("mediaproxy", "dispatcher", "--systemd")...)
	if got := next(); !strings.HasPrefix(got, "READY=1") {
		t.Errorf("first message %q, want READY=1", got)
	}
	if !exists(filepath.Join(s.run, "dispatcher.sock")) {
		t.Error("ready before the socket is there")
	}
	for range 2 {
		if got := next(); got != "WATCHDOG=1" {
			t.Errorf("message %q, want WATCHDOG=1", got)
		}
	}
	p.signal(t, syscall.SIGTERM)
	got := next()
	for got == "WATCHDOG=1" {
		got = next()
	}
	if got != "STOPPING=1" {
		t.Errorf("message %q, want STOPPING=1", got)
	}
	if code := p.exit(t); code != 0 {
		t.Errorf("exit code %d, want 0", code)
	}
}

// `up` needs nothing: it makes its certificates, prints where everything is, and its
// relay serves its dispatcher.
func TestUp(t *testing.T) {
	s := newSite(t)
	port := freePort(t)
	s.write(t, fmt.Sprintf("listen = 127.0.0.1:%d\nlisten_management = 127.0.0.1:0", port), "")
	socket := filepath.Join(s.run, "mp.sock")
	p := start(t, nil, append(s.args("mediaproxy", "up"), "--relay-ip", "127.0.0.1", "--port-range", "52000:52400", "--socket", socket)...)
	p.says(t, "engage_media_proxy();")
	for _, want := range []string{socket, "127.0.0.1, UDP ports 52000 to 52399: 100 streams", filepath.Join(s.state, "tls"),
		`modparam("mediaproxy", "mediaproxy_socket", "` + socket + `")`} {
		if !strings.Contains(p.stdout(), want) {
			t.Errorf("the banner says nothing of %q", want)
		}
	}
	p.says(t, "relay connected")
	ctl := start(t, nil, "mediaproxy", "ctl", "--runtime-dir", s.run, "summary", "--json")
	if code := ctl.exit(t); code != 0 || !strings.Contains(ctl.stdout(), `"127.0.0.1"`) {
		t.Errorf("ctl summary: exit code %d, %q", code, ctl.stdout())
	}
	ctl = start(t, nil, "mediaproxy", "ctl", "--runtime-dir", s.run, "accounting")
	if code := ctl.exit(t); code != 3 || !strings.Contains(ctl.stderr(), "names no back-end") {
		t.Errorf("ctl accounting: exit code %d, %q", code, ctl.stderr())
	}
	info, err := os.Stat(socket)
	if err != nil || info.Mode().Perm() != 0o660 {
		t.Errorf("socket: %v, %v; want mode 0660", info, err)
	}
	p.signal(t, syscall.SIGTERM)
	if code := p.exit(t); code != 0 {
		t.Errorf("exit code %d, want 0", code)
	}
	if exists(socket) {
		t.Error("the socket is left behind")
	}

	again := start(t, nil, append(s.args("mediaproxy", "up"), "--relay-ip", "127.0.0.1", "--port-range", "52000:52400", "--socket", socket)...)
	again.says(t, "relay connected")
	if strings.Contains(again.stderr(), "made an authority") {
		t.Error("certificates were made anew")
	}
	again.signal(t, syscall.SIGHUP) // drains the relay, which has no calls
	if code := again.exit(t); code != 0 {
		t.Errorf("after HUP: exit code %d, want 0", code)
	}
}

func TestUsage(t *testing.T) {
	s := newSite(t)
	s.write(t, "", "")
	for _, tt := range []struct {
		args []string
		code int
		want string
	}{
		{[]string{"mediaproxy", "version"}, 0, "mediaproxy 5."},
		{[]string{"mediaproxy", "--version"}, 0, "mediaproxy 5."},
		{[]string{"media-relay", "--version"}, 0, "media-relay 5."},
		{[]string{"media-dispatcher", "--vers"}, 0, "media-dispatcher 5."},
		{[]string{"media-dispatcher", "--help"}, 0, "--no-fork"},
		{[]string{"media-relay", "-h"}, 0, "--runtime-dir"},
		{[]string{"mediaproxy"}, 0, "Available Commands"},
		{[]string{"mediaproxy", "completion", "bash"}, 0, "bash completion"},
		{[]string{"mediaproxy", "rely"}, 2, "did you mean relay?"},
		{[]string{"mediaproxy", "relay", "extra"}, 2, "mediaproxy relay --help tells more"},
		{[]string{"mediaproxy", "relay", "--bogus"}, 2, "unknown flag: --bogus"},
		{[]string{"media-relay", "--de"}, 2, "unknown flag: --de"},
		{[]string{"media-relay", "--config"}, 2, "needs an argument"},
		{[]string{"mediaproxy", "ctl"}, 2, "a command is needed"},
		{[]string{"mediaproxy", "bench"}, 2, "what is to be measured?"},
		{[]string{"mediaproxy", "bench", "dispatcher", "--relays", "0"}, 2, "--relays 0: want 1 to 10000"},
		{[]string{"mediaproxy", "bench", "dispatcher", "--calls", "10"}, 2, "--calls 10: want 64 to"},
		{[]string{"mediaproxy", "bench", "dispatcher", "--rate", "NaN"}, 2, "--rate NaN: want 1 to 1000000"},
		{[]string{"mediaproxy", "bench", "dispatcher", "--rate", "fast"}, 2, "--rate"},
		{[]string{"mediaproxy", "bench", "dispatcher", "--duration", "5ms"}, 2, "want 1s or more"},
		{[]string{"mediaproxy", "bench", "dispatcher", "--accounting", "database"}, 2, "want none or webhook"},
		{[]string{"mediaproxy", "bench", "dispatcher", "--socket", "/nowhere"}, 2, "give all three or none"},
		{[]string{"mediaproxy", "bench", "dispatcher", "--socket", "/nowhere", "--connect", "127.0.0.1:1", "--certs", "/nowhere"}, 1, "there is no such file"},
		{[]string{"mediaproxy", "bench", "dispatcher", "--help"}, 0, "--connections"},
		{[]string{"mediaproxy", "dispatcher", "--alone"}, 1, "name the folder of the configuration with --config-dir"},
		{[]string{"mediaproxy", "doctor", "extra"}, 2, "mediaproxy doctor --help tells more"},
		{[]string{"mediaproxy", "doctor", "--help"}, 0, "Exit codes: 0 nothing failed"},
		{[]string{"mediaproxy", "check", "--for", "edge", "--config-dir", s.config}, 2, "want dispatcher or relay"},
		{[]string{"mediaproxy", "check", "--config-dir", s.config}, 0, "nothing is wrong with"},
		{[]string{"mediaproxy", "check", "--effective", "--config-dir", s.config}, 0, "port_range = 40000:60000"},
		{[]string{"mediaproxy", "check", "--sample"}, 0, ";port_range = 40000:60000"},
		{s.args("mediaproxy", "up", "--relay-ip", "nowhere"), 2, "want an IPv4 or IPv6 address"},
		{s.args("mediaproxy", "up", "--port-range", "5"), 2, "want start:end"},
	} {
		t.Run(strings.Join(tt.args, " "), func(t *testing.T) {
			p := start(t, nil, tt.args...)
			code := p.exit(t)
			out := p.stdout() + p.stderr()
			if code != tt.code || !strings.Contains(out, tt.want) {
				t.Errorf("exit code %d, want %d, and %q in %q", code, tt.code, tt.want, out)
			}
			if code == 2 && strings.Count(out, "\n") > 2 {
				t.Errorf("more than a line and a hint: %q", out)
			}
		})
	}
}
