package program

import (
	"bytes"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"example.org/mediaproxy/internal/config"
	"example.org/mediaproxy/internal/pki"
)

// A runtime folder among everybody's temporary files must be one's own.
func TestIsOurs(t *testing.T) {
	dir := t.TempDir()
	good, open, link := filepath.Join(dir, "good"), filepath.Join(dir, "open"), filepath.Join(dir, "link")
	for path, mode := range map[string]os.FileMode{good: 0o700, open: 0o755} {
		if err := os.Mkdir(path, mode); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(good, link); err != nil {
		t.Fatal(err)
	}
	for path, ok := range map[string]bool{good: true, open: false, link: false, filepath.Join(dir, "absent"): false} {
		if err := isOurs(path); (err == nil) != ok {
			t.Errorf("%s: %v, want accepted: %v", filepath.Base(path), err, ok)
		}
	}
}

func TestCommonSettings(t *testing.T) {
	cfg, problems := config.Parse("f", []byte("[Dispatcher]\nlog_format = json\nlog_level = ERROR\n[Relay]\nlog_level = DEBUG\nstrict_config = yes\nstate_dir = /r\n"))
	if err := problems.Err(); err != nil {
		t.Fatal(err)
	}
	for role, want := range map[config.Role]config.Program{
		config.RoleDispatcher: {LogLevel: slog.LevelError, LogFormat: "json"},
		config.RoleRelay:      {LogLevel: slog.LevelDebug, LogFormat: "text", StrictConfig: true, StateDir: "/r"},
		config.RoleBoth:       {LogLevel: slog.LevelDebug, LogFormat: "json", StrictConfig: true, StateDir: "/r"},
	} {
		if got := commonSettings(cfg, role); got != want {
			t.Errorf("role %d: %+v, want %+v", role, got, want)
		}
	}
}

// Certificates of one's own are made only when the configuration neither names nor has any.
func TestCertificateFolder(t *testing.T) {
	for _, tt := range []struct {
		name, file string
		there      bool // certificates in the default folder
		own        bool
	}{
		{"nothing", "", false, true},
		{"default folder has them", "", true, false},
		{"named", "[TLS]\ncerts_path = tls\n", false, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h := testHost()
			h.cfg, _ = config.Parse("f", []byte(tt.file))
			h.dirs = config.Dirs{System: t.TempDir()}
			h.stateDir = filepath.Join(t.TempDir(), "state")
			tls := filepath.Join(h.dirs.System, "tls")
			if tt.there {
				if _, err := pki.Create(tls, pki.Options{}); err != nil {
					t.Fatal(err)
				}
			}
			dir, own := h.certificateFolder()
			want := tls
			if tt.own {
				want = filepath.Join(h.stateDir, "tls")
			}
			if dir != want || own != tt.own {
				t.Errorf("certificateFolder = %s, %v; want %s, %v", dir, own, want, tt.own)
			}
			if !own {
				return
			}
			for range 2 { // the second time they are there
				if err := h.ownCertificates(dir); err != nil {
					t.Fatal(err)
				}
			}
			for _, pair := range []string{pki.Dispatcher, pki.Relay} {
				if _, err := h.openCertificates(dir, pair); err != nil {
					t.Error(err)
				}
			}
		})
	}
}

// Nobody else looks after certificates that the program made for itself.
func TestOwnCertificatesAreRenewed(t *testing.T) {
	h := testHost()
	h.stateDir = t.TempDir()
	dir := filepath.Join(h.stateDir, "tls")
	old := time.Now().AddDate(-5, 0, 10) // ten days are left
	if _, err := pki.Create(dir, pki.Options{Now: func() time.Time { return old }}); err != nil {
		t.Fatal(err)
	}
	before, err := os.ReadFile(filepath.Join(dir, "relay.crt"))
	if err != nil {
		t.Fatal(err)
	}
	if err := h.ownCertificates(dir); err != nil {
		t.Fatal(err)
	}
	if after, err := os.ReadFile(filepath.Join(dir, "relay.crt")); err != nil || bytes.Equal(before, after) {
		t.Errorf("the relay's certificate is the old one (%v)", err)
	}
}

// In the background, oddities of the configuration are told at the terminal and in the log.
func TestReport(t *testing.T) {
	var log, terminal bytes.Buffer
	h := testHost()
	h.log = slog.New(slog.NewTextHandler(&log, nil))
	h.options.background, h.options.stderr = true, &terminal
	_, problems := config.Parse("f.ini", []byte("[Relay]\nnonsense = 1\nuserspace_transmit_every = 1\n"))
	h.report(problems)
	for _, want := range []string{"level=WARN", "file=f.ini line=2 section=Relay setting=nonsense", "level=INFO", "userspace_transmit_every"} {
		if !strings.Contains(log.String(), want) {
			t.Errorf("log lacks %q: %s", want, log.String())
		}
	}
	if want := "f.ini:2: warning: [Relay] nonsense: unknown setting, ignored\n"; !strings.Contains(terminal.String(), want) {
		t.Errorf("terminal has %q, want %q", terminal.String(), want)
	}
}

// Files that a cluster needs are looked at when the configuration is read, so that `check`
// finds what is wrong with them.
func TestFilesOfACluster(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	certs := filepath.Join(dir, "tls")
	if _, err := pki.Create(certs, pki.Options{}); err != nil {
		t.Fatal(err)
	}
	ca := filepath.Join(certs, pki.CAFile)
	credentials := write("good.creds", "-----BEGIN NATS USER JWT-----\nx\n------END NATS USER JWT------\n")
	other := write("other", "s3cret")
	for _, tt := range []struct {
		ca, credentials string
		want            []string
	}{
		{ca, credentials, nil},
		{other, credentials, []string{"config.ini:3: error: [Cluster] ca: ", "want certificates in PEM"}},
		{ca, other, []string{"config.ini:4: error: [Cluster] credentials: ", "want a credentials file of NATS"}},
		{filepath.Join(dir, "absent"), filepath.Join(dir, "absent too"), []string{"[Cluster] ca: open ", "[Cluster] credentials: open "}},
	} {
		write(config.FileName, "[Cluster]\nurls = tls://nats.example.com:4222\nca = "+tt.ca+"\ncredentials = "+tt.credentials+"\npassport = None\n")
		_, problems := readConfig(config.Dirs{System: dir}, config.RoleDispatcher)
		text := ""
		if err := problems.Err(); err != nil {
			text = err.Error()
		}
		if (text == "") != (tt.want == nil) || strings.Contains(text, "s3cret") {
			t.Errorf("%s, %s: %q", tt.ca, tt.credentials, text)
		}
		for _, want := range tt.want {
			if !strings.Contains(text, want) {
				t.Errorf("got %q, want %q in it", text, want)
			}
		}
	}
}
