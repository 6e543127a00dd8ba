package radius

import (
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"example.org/mediaproxy/internal/config"
)

// folder is files in memory, by their paths.
type folder map[string]string

func (f folder) read(path string) ([]byte, error) {
	text, ok := f[path]
	if !ok {
		return nil, &fs.PathError{Op: "open", Path: path, Err: fs.ErrNotExist}
	}
	return []byte(text), nil
}

func (f folder) settings(additional string) (Settings, config.Problems) {
	return (&reader{read: f.read}).settings("/r/client.conf", additional)
}

// text is all problems as an operator reads them.
func text(problems config.Problems) string {
	var b strings.Builder
	for _, p := range problems {
		fmt.Fprintln(&b, p)
	}
	return b.String()
}

const tags = "ATTRIBUTE Sip-From-Tag 105 string\nATTRIBUTE Sip-To-Tag 104 string\n"

// Files in the styles that are found on SIP proxies.
func TestStyles(t *testing.T) {
	for _, c := range []struct {
		name    string
		servers []string // host:port secret origin
		want    Settings
		from    byte
	}{
		{"opensips", []string{"localhost:1813 opensipssecret servers:4"},
			Settings{Timeout: 5 * time.Second, Transmissions: 3, DeadTime: time.Minute}, 206},
		{"kamailio", []string{"radius1.example.com:1813 s1 servers:3", "radius2.example.com:1646 s2/x#y servers:5", "[2001:db8::1]:1812 #s3 servers:6"},
			Settings{Timeout: 10 * time.Second, Transmissions: 2, DeadTime: 0, Bind: netip.Addr{}}, 105},
		{"radcli", []string{"192.0.2.1:1813 first servers:1", "192.0.2.2:1814 inline radiusclient.conf:4", "[2001:db8::2]:1813 second servers:2"},
			Settings{Timeout: 10 * time.Second, Transmissions: 3, DeadTime: 30 * time.Second}, 206},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := filepath.Join("testdata", c.name)
			conf := "client.conf"
			if c.name == "radcli" {
				conf = "radiusclient.conf"
			}
			got, problems := Read(filepath.Join(dir, conf), filepath.Join("testdata", "additional"))
			if len(problems) > 0 {
				t.Fatal(text(problems))
			}
			var servers []string
			for _, s := range got.Servers {
				servers = append(servers, fmt.Sprintf("%s %s %s", s, string(s.Secret), filepath.Base(s.Origin)))
			}
			if !slices.Equal(servers, c.servers) {
				t.Errorf("servers %q, want %q", servers, c.servers)
			}
			if got.Timeout != c.want.Timeout || got.Transmissions != c.want.Transmissions || got.DeadTime != c.want.DeadTime || got.Bind != c.want.Bind {
				t.Errorf("settings %+v, want %+v", got, c.want)
			}
			for name, want := range map[string]byte{"Sip-From-Tag": c.from, "sip-user-agents": 235, "User-Name": 1} {
				if def, _ := got.Dictionary.Attribute(name); def.Number != want {
					t.Errorf("%s is %+v, want %d", name, def, want)
				}
			}
			if n, ok := got.Dictionary.StatusType("UPDATE"); n != 3 || !ok {
				t.Errorf("Update is %d, %v", n, ok)
			}
		})
	}
}

// Every mistake is found in one reading, at its place, with what would be right, and
// without any secret.
func TestMistakes(t *testing.T) {
	whole := folder{"/r/servers": "# hosts\nlocalhost topsecret\n192.0.2.1 topsecret two\n", "/r/dictionary": tags}
	head := "servers servers\ndictionary dictionary\n"
	for _, c := range []struct {
		name, conf string
		files      folder
		want       []string
	}{
		{"nothing", "", nil, []string{
			"/r/client.conf: error: it names no file with secrets: want a line `servers FILE`",
			"/r/client.conf: error: it names no server: want a line `acctserver HOST`",
			"/r/client.conf: error: it names no dictionary: want a line `dictionary FILE`"}},
		{"names alone", "acctserver\nservers\ndictionary\n", nil, []string{"no file with secrets", "names no server", "names no dictionary"}},
		{"numbers", head + "acctserver localhost\nradius_timeout 0\nradius_retries three\nradius_deadtime -1\nbindaddr eth0\n", nil, []string{
			`/r/client.conf:4: error: radius_timeout "0": want a number of seconds from 1 to 3600`,
			`/r/client.conf:5: error: radius_retries "three": want a number of transmissions from 1 to 1000`,
			`/r/client.conf:6: error: radius_deadtime "-1": want`,
			`/r/client.conf:7: error: bindaddr "eth0": want an IP address of this host, or * for any`}},
		{"servers", head + "acctserver localhost:99999, localhost:x\nacctserver [::1\nacctserver radius.example.com\nacctserver :1813\nacctserver 192.0.2.1\nacctserver a:1:\nacctserver [::1]:0:topsecret\n", nil, []string{
			"/r/client.conf:3: error: acctserver: the port of localhost is no number from 1 to 65535: want HOST:PORT",
			"/r/client.conf:3: error: acctserver: the port of localhost",
			"/r/client.conf:4: error: acctserver: want HOST or HOST:PORT, an IPv6 address in brackets",
			"/r/client.conf:5: error: acctserver radius.example.com has no secret: want a line `radius.example.com SECRET` in /r/servers",
			"/r/client.conf:6: error: acctserver: want HOST",
			"/r/servers:3: error: the secret of 192.0.2.1 has a space in it: want HOST SECRET, the secret as one word",
			"/r/client.conf:8: error: acctserver: want HOST",
			"/r/client.conf:9: error: acctserver: the port of ::1"}},
		{"families", head + "bindaddr ::1\nacctserver 127.0.0.1:1813:topsecret\n", nil, []string{
			"/r/client.conf:3: error: bindaddr ::1 cannot reach the acctserver 127.0.0.1, which has an address of the other family"}},
		{"files away", "servers /s\ndictionary d\nacctserver localhost\n", folder{}, []string{
			"/r/client.conf:1: error: servers /s (/s): there is no such file: want a file with lines `HOST SECRET`",
			"/r/client.conf:2: error: dictionary d (/r/d): there is no such file"}},
		{"dictionary", head + "acctserver localhost\n", folder{"/r/servers": "localhost x", "/r/dictionary": "ATTRIBUTE A 1\nATTRIBUTE B b string\nATTRIBUTE C 0 string\nVALUE Acct-Status-Type Update x\nVALUE A B\nVENDOR V\n$INCLUDE\n$INCLUDE none\n$INCLUDE- none\nBEGIN-VENDOR\n$INCLUDE dictionary\nBEGIN-VENDOR V\n"}, []string{
			"/r/dictionary:1: error: ATTRIBUTE has too few words: want ATTRIBUTE NAME NUMBER TYPE",
			`/r/dictionary:2: error: ATTRIBUTE B has the number "b": want 1 to 255`,
			`/r/dictionary:3: error: ATTRIBUTE C has the number "0"`,
			`/r/dictionary:4: error: VALUE Update of Acct-Status-Type has the number "x": want 0 to 4294967295`,
			"/r/dictionary:5: error: VALUE has too few words",
			"/r/dictionary:6: error: VENDOR has too few words",
			"/r/dictionary:7: error: $INCLUDE without a file",
			"/r/dictionary:8: error: $INCLUDE none (/r/none): there is no such file",
			"/r/dictionary:10: error: BEGIN-VENDOR says not what begins",
			"/r/dictionary:11: error: $INCLUDE dictionary (/r/dictionary): it includes itself: /r/dictionary, /r/dictionary",
			"/r/dictionary:12: error: BEGIN-VENDOR V has no end: want END-VENDOR V behind its last line"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			files := folder{"/r/client.conf": c.conf}
			for path, text := range whole {
				files[path] = text
			}
			if c.files != nil {
				files = c.files
				files["/r/client.conf"] = c.conf
			}
			_, problems := files.settings("")
			if len(problems) != len(c.want) {
				t.Errorf("%d problems, want %d", len(problems), len(c.want))
			}
			for i, p := range problems {
				if i < len(c.want) && !strings.Contains(p.String(), c.want[i]) {
					t.Errorf("problem %d: %q, want %q", i, p, c.want[i])
				}
			}
			if strings.Contains(text(problems), "topsecret") {
				t.Errorf("a secret is shown:\n%s", text(problems))
			}
		})
	}
}

func TestNoClientConf(t *testing.T) {
	_, problems := Read(filepath.Join(t.TempDir(), "client.conf"), "")
	if len(problems) != 1 || !strings.Contains(text(problems), "there is no such file") || !strings.Contains(text(problems), "`acctserver HOST`") {
		t.Error(text(problems))
	}
	dir := t.TempDir()
	if _, problems = Read(dir, ""); !strings.Contains(text(problems), "is a folder, want a file") {
		t.Error(text(problems))
	}
	if os.Geteuid() != 0 { // who may read everything
		return
	}
	if _, problems = Read("/dev/zero", ""); !strings.Contains(text(problems), "want a regular file") {
		t.Error(text(problems))
	}
}

// The additional dictionary may be missing; its numbers come last, and its mistakes count.
func TestAdditionalDictionary(t *testing.T) {
	files := folder{"/r/client.conf": "acctserver localhost\nservers servers\ndictionary dictionary\n", "/r/servers": "localhost x", "/r/dictionary": tags + "ATTRIBUTE Media-Info 12 string\n",
		"/more": "ATTRIBUTE Media-Info 234 string\n", "/bad": "VALUE A\n", "/loop": "$INCLUDE loop\n"}
	for _, c := range []struct {
		path   string
		number byte
		want   string
	}{
		{"/more", 234, ""}, {"", 12, ""},
		{"/away", 12, "/away: notice: there is no such file; what it would define has the built-in numbers\n"},
		{"/bad", 12, "/bad:1: error: VALUE has too few words: want VALUE ATTRIBUTE NAME NUMBER\n"},
		{"/loop", 12, "/loop:1: error: $INCLUDE loop (/loop): it includes itself: /loop, /loop\n"},
	} {
		s, problems := files.settings(c.path)
		if got := text(problems); got != c.want {
			t.Errorf("%s: %s, want %s", c.path, got, c.want)
		}
		if def, _ := s.Dictionary.Attribute("Media-Info"); def.Number != c.number {
			t.Errorf("%s: %d, want %d", c.path, def.Number, c.number)
		}
	}
}

// Nothing that prints settings prints a secret.
func TestSecretIsHidden(t *testing.T) {
	s := Settings{Servers: []Server{{Host: "h", Port: 1, Secret: "topsecret"}}}
	for _, form := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
		for _, shown := range []string{fmt.Sprintf(form, s), fmt.Sprintf(form, s.Servers[0]), fmt.Sprintf(form, s.Servers[0].Secret)} {
			if strings.Contains(shown, "topsecret") || strings.Contains(shown, "746f70") {
				t.Errorf("%s shows %s", form, shown)
			}
		}
	}
}

// Whatever is in a client.conf and its servers file: problems have their lines, and what is
// read stands in the files.
func FuzzClientConf(f *testing.F) {
	f.Add("acctserver localhost:1813\nservers servers\ndictionary dictionary\nradius_timeout 5\nbindaddr *\n", "localhost secret\n")
	f.Add("acctserver [2001:db8::1]:1646:topsecret, a:1\nservers\tservers\nradius_deadtime 0\n", "a/b c\n# d\n[::1] #x\n")
	f.Fuzz(func(t *testing.T, conf, servers string) {
		files := folder{"/r/client.conf": conf, "/r/servers": servers, "/r/dictionary": tags}
		s, problems := files.settings("")
		checkPlaces(t, files, problems)
		for _, server := range s.Servers {
			both := strings.ToLower(conf + "\n" + servers)
			if _, err := netip.ParseAddr(server.Host); err != nil && !strings.Contains(both, strings.ToLower(server.Host)) {
				t.Errorf("host %q is not in the files", server.Host)
			}
			if server.Secret == "" || !strings.Contains(conf+"\n"+servers, string(server.Secret)) || server.Port == 0 {
				t.Errorf("server %s", server)
			}
			if len(string(server.Secret)) > 7 && strings.Contains(text(problems), string(server.Secret)) && !strings.Contains(conf, string(server.Secret)) {
				t.Errorf("the secret of %s is shown in %s", server, text(problems))
			}
		}
		if problems.Err() == nil && (len(s.Servers) == 0 || s.Dictionary.File == "") {
			t.Error("settings without servers or dictionary have no problem")
		}
		if s.Dictionary != nil && (s.Timeout < time.Second || s.Transmissions < 1 || s.DeadTime < 0) {
			t.Errorf("settings %+v", s)
		}
	})
}

// checkPlaces finds problems that point outside of the files.
func checkPlaces(t *testing.T, files folder, problems config.Problems) {
	t.Helper()
	for _, p := range problems {
		text, known := files[p.File]
		if p.Text == "" || p.Line < 0 || known && p.Line > strings.Count(text, "\n")+1 || !known && p.Line > 0 {
			t.Errorf("problem %+v", p)
		}
	}
}
