package config

import (
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// reading is one value of a kind: what it prints as, or a part of its refusal.
type reading struct{ in, want, wrong string }

func check[T any](t *testing.T, k kind[T], tests []reading) {
	t.Helper()
	for _, tt := range tests {
		v, err := k.parse(tt.in)
		switch {
		case tt.wrong != "" && (err == nil || !strings.Contains(err.Error(), tt.wrong)):
			t.Errorf("%q: error %v, want %q in it", tt.in, err, tt.wrong)
		case tt.wrong != "":
		case err != nil:
			t.Errorf("%q: %v", tt.in, err)
		case k.print(v) != tt.want:
			t.Errorf("%q reads as %q, want %q", tt.in, k.print(v), tt.want)
		default:
			again, err := k.parse(k.print(v))
			if err != nil || k.print(again) != tt.want {
				t.Errorf("%q printed and read again: %v, %v", tt.in, again, err)
			}
		}
	}
}

func TestEndpoint(t *testing.T) {
	check(t, endpoint(netip.MustParseAddrPort("127.0.0.1:25061")), []reading{
		{"default", "127.0.0.1:25061", ""},
		{"Any", "0.0.0.0:25061", ""},
		{"any:1", "0.0.0.0:1", ""},
		{"192.0.2.1", "192.0.2.1:25061", ""},
		{"192.0.2.1:0", "192.0.2.1:0", ""},
		{"::1", "[::1]:25061", ""},
		{"[::1]", "[::1]:25061", ""},
		{"[::]:5", "[::]:5", ""},
		{"::ffff:192.0.2.1", "192.0.2.1:25061", ""},
		{"", "", "want ip[:port]"},
		{"192.0.2.1:", "", "want ip[:port]"},
		{"192.0.2.1:65536", "", "want ip[:port]"},
		{"host.example", "", "want ip[:port]"},
		{"any:any", "", "want ip[:port]"},
	})
}

func TestHosts(t *testing.T) {
	check(t, hosts, []reading{
		{"", "", ""},
		{"a.example", "a.example", ""},
		{"a b:1,\n\tc", "a, b:1, c", ""},
		{"192.0.2.1:5", "192.0.2.1:5", ""},
		{"2001:db8::1, [2001:db8::2]:7, [::3]", "2001:db8::1, [2001:db8::2]:7, [::3]", ""},
		{"a:0", "", "want host[:port]"},
		{"a:b:c", "", "want host[:port]"},
		{"[a]:1", "", "want host[:port]"},
		{"ok, http://x/", "", `"http://x/": want host[:port]`},
		{strings.Repeat("a", 254), "", "want host[:port]"},
	})
}

func TestAddresses(t *testing.T) {
	check(t, addresses, []reading{
		{"", "", ""},
		{"192.0.2.1", "192.0.2.1", ""},
		{"2001:db8::1 192.0.2.1", "2001:db8::1, 192.0.2.1", ""},
		{"192.0.2.1, ::ffff:192.0.2.2", "", "at most one"},
		{"::", "", "an address of this host"},
		{"224.0.0.1", "", "an address of this host"},
		{"192.0.2.1:5", "", "IPv4 or IPv6"},
	})
}

func TestRanges(t *testing.T) {
	check(t, ranges, []reading{
		{"", "", ""},
		{"None", "", ""},
		{"10.1.2.3/8, 192.0.2.1", "10.0.0.0/8, 192.0.2.1/32", ""},
		{"2001:db8::1/32", "2001:db8::/32", ""},
		{"::ffff:10.0.0.0/104", "10.0.0.0/8", ""},
		{"::ffff:10.0.0.0/90", "", "want a network"},
		{"10.0.0.0/33", "", "want a network"},
		{"fe80::1%eth0", "", "want a network"},
		{"10/8", "", "want a network"},
	})
}

func TestPortRange(t *testing.T) {
	check(t, portRange, []reading{
		{"40000:60000", "40000:60000", ""},
		{"1024 : 65536", "1024:65536", ""},
		{"40000", "", "want start:end"},
		{"40000-60000", "", "want start:end"},
		{"1022:2000", "", "1024 to 65536"},
		{"40000:65538", "", "1024 to 65536"},
		{"40001:50000", "", "even"},
		{"40000:40000", "", "below"},
		{"1:2:3", "", "want start:end"},
	})
	if got := (PortRange{40000, 40010}).Size(); got != 10 {
		t.Errorf("Size = %d, want 10", got)
	}
}

func TestSeconds(t *testing.T) {
	check(t, seconds(1), []reading{
		{"90", "90", ""}, {"+5", "5", ""},
		{"0", "", "from 1"}, {"-1", "", "from 1"}, {"1.5", "", "whole"}, {"", "", "whole"}, {"315360001", "", "to 315360000"},
	})
}

func TestLevel(t *testing.T) {
	check(t, logLevel, []reading{
		{"info", "INFO", ""}, {"Critical", "CRITICAL", ""}, {"10", "DEBUG", ""}, {"25", "INFO", ""},
		{"30", "WARNING", ""}, {"50", "CRITICAL", ""}, {"0", "DEBUG", ""}, {"WARN", "", "WARNING"}, {"-1", "", "want"},
	})
}

func TestWords(t *testing.T) {
	check(t, boolean, []reading{{"YES", "yes", ""}, {"on", "yes", ""}, {"1", "yes", ""}, {"False", "no", ""}, {"off", "no", ""}, {"y", "", "yes or no"}})
	check(t, words, []reading{{" a,b  c,,\nd", "a, b, c, d", ""}})
	check(t, weights, []reading{
		{"b=2 a=1", "a=1, b=2", ""}, {"2001:db8::1=0", "2001:db8::1=0", ""},
		{"a", "", "relay=weight"}, {"a=-1", "", "relay=weight"}, {"=1", "", "relay=weight"}, {"a=1,a=2", "", "one weight"},
	})
	check(t, passport, []reading{{"none", "None", ""}, {"CN:*", "CN:*", ""}, {"", "", "empty passport"}})
	check(t, choice("keep", "end"), []reading{{"End", "end", ""}, {"keep", "keep", ""}, {"x", "", "want one of keep, end"}})
	check(t, name, []reading{{"relay-1/192.0.2.1", "relay-1/192.0.2.1", ""}, {"a b", "", "one word"}, {"a=b", "", "one word"}, {strings.Repeat("a", 129), "", "128"}})
}

func TestNearest(t *testing.T) {
	candidates := []string{"stream_timeout", "idle_timeout", "name"}
	for in, want := range map[string]string{
		"stream_timeut": "stream_timeout", "STREAM_TIMEOUT": "stream_timeout", "nmae": "", "nam": "name", "labels": "", "": "",
		strings.Repeat("name", 100): "",
	} {
		if got := nearest(in, candidates); got != want {
			t.Errorf("nearest(%q) = %q, want %q", in, got, want)
		}
	}
}

func TestInterpolationIsBounded(t *testing.T) {
	var file strings.Builder
	file.WriteString("[Relay]\nlabels = %(l0)s\n")
	for i := range 9 { // each level doubles tenfold
		file.WriteString("l" + string(rune('0'+i)) + " = " + strings.Repeat("%(l"+string(rune('1'+i))+")s", 10) + "\n")
	}
	for name, last := range map[string]string{"long": strings.Repeat("x", 1000), "empty": ""} {
		_, problems := Parse("f", []byte(file.String()+"l9 = "+last+"\n"))
		if len(problems.Fatal()) != 1 {
			t.Errorf("%s: %v, want one error", name, problems)
		}
	}
}

func TestDirs(t *testing.T) {
	for _, tt := range []struct{ given, executable, local string }{
		{"/x", "/usr/bin/media-relay", "/x"},
		{"", "/usr/local/sbin/media-relay", ""},
		{"", "/opt/mp/media-relay", "/opt/mp"},
		{"", "", ""},
	} {
		if got := FindDirs(tt.given, tt.executable); got.Local != tt.local || got.System != SystemDir {
			t.Errorf("FindDirs(%q, %q) = %v, want local folder %q", tt.given, tt.executable, got, tt.local)
		}
	}
	d := Dirs{System: t.TempDir(), Local: t.TempDir()}
	if got := d.Files(); len(got) != 2 || got[0] != filepath.Join(d.System, "config.ini") || got[1] != filepath.Join(d.Local, "config.ini") {
		t.Errorf("Files = %v", got)
	}
	if got := (Dirs{System: "/a", Local: "/a/"}).Files(); len(got) != 1 {
		t.Errorf("the same folder twice is read twice: %v", got)
	}
	if err := os.Mkdir(filepath.Join(d.Local, "tls"), 0o700); err != nil {
		t.Fatal(err)
	}
	for in, want := range map[string]string{"/abs": "/abs", "tls": filepath.Join(d.Local, "tls"), "other": filepath.Join(d.System, "other")} {
		if got := d.Find(in); got != want {
			t.Errorf("Find(%q) = %q, want %q", in, got, want)
		}
	}
}

func TestDefaultFolders(t *testing.T) {
	env := func(pairs ...string) func(string) string {
		return func(name string) string {
			for i := 0; i < len(pairs); i += 2 {
				if pairs[i] == name {
					return pairs[i+1]
				}
			}
			return ""
		}
	}
	for _, tt := range []struct {
		uid            int
		env            func(string) string
		state, runtime string
		shared         bool
	}{
		{0, env("XDG_STATE_HOME", "/s"), "/var/lib/mediaproxy", "/run/mediaproxy", false},
		{0, env("STATE_DIRECTORY", "/var/lib/x:/var/lib/y", "RUNTIME_DIRECTORY", "/run/x"), "/var/lib/x", "/run/x", false},
		{7, env("STATE_DIRECTORY", "/var/lib/x", "RUNTIME_DIRECTORY", "relative"), "/var/lib/x", "/t/mediaproxy-7", true},
		{7, env("XDG_STATE_HOME", "/s", "XDG_RUNTIME_DIR", "/r"), "/s/mediaproxy", "/r/mediaproxy", false},
		{7, env("HOME", "/h", "XDG_STATE_HOME", "relative"), "/h/.local/state/mediaproxy", "/t/mediaproxy-7", true},
		{7, env(), "/t/mediaproxy-7/state", "/t/mediaproxy-7", true},
	} {
		runtime, shared := runtimeDir(tt.uid, tt.env, "/t")
		if state := stateDir(tt.uid, tt.env, "/t"); state != tt.state || runtime != tt.runtime || shared != tt.shared {
			t.Errorf("uid %d: %q, %q, %v; want %q, %q, %v", tt.uid, state, runtime, shared, tt.state, tt.runtime, tt.shared)
		}
	}
}
