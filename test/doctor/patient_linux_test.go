package doctor

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"example.org/mediaproxy/test/internal/netlab"
	"example.org/mediaproxy/test/internal/program"
)

// place is where the program is built: in a folder that every user may enter.
var place = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "doctor")
	if err != nil {
		return "", err
	}
	return filepath.Join(dir, "mediaproxy"), os.Chmod(dir, 0o755)
})

func TestMain(m *testing.M) {
	code := m.Run()
	if path, err := place(); err == nil {
		os.RemoveAll(filepath.Dir(path))
	}
	os.Exit(code)
}

// build returns the program's path.
func build(t *testing.T) string {
	t.Helper()
	path, err := place()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path); err == nil {
		return path
	}
	if out, err := exec.Command("cp", program.Build(t), path).CombinedOutput(); err != nil {
		t.Fatalf("copy the program: %v: %s", err, out)
	}
	return path
}

// patient is a host with a device and the configuration of a relay on it.
type patient struct {
	t      *testing.T
	lab    *netlab.Lab
	host   *netlab.Host
	binary string
	config string // folder
}

var relayIP = netip.MustParseAddr("198.51.100.1")

func newPatient(t *testing.T, settings ...string) *patient {
	t.Helper()
	netlab.Needs(t)
	p := &patient{t: t, lab: netlab.New(t), binary: build(t)}
	p.host = p.lab.Host("relay", relayIP)
	config, err := os.MkdirTemp(filepath.Dir(p.binary), "config")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(config) })
	if err := os.Chmod(config, 0o755); err != nil {
		t.Fatal(err)
	}
	p.config = config
	text := fmt.Sprintf("[Relay]\nrelay_ip = %s\nport_range = 40000:40100\nstate_dir = %s\n%s\n", relayIP, p.config, strings.Join(settings, "\n"))
	if err := os.WriteFile(filepath.Join(p.config, "config.ini"), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return p
}

// result is a document that the program prints.
type result struct{ Check, Device, Verdict, Found, Mend string }

// findings are the results of one run, by check and device.
type findings struct {
	t       *testing.T
	results map[string]result
}

// examine runs the doctor, behind another program if words are given for it.
func (p *patient) examine(before ...string) findings {
	p.t.Helper()
	args := append(before, p.binary, "doctor", "--json", "--config-dir", p.config)
	cmd := exec.Command(args[0], args[1:]...)
	var out, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &stderr
	err := p.host.Do(cmd.Run)
	return p.read(out.Bytes(), stderr.String(), err)
}

// read checks that the exit code is right for what was printed.
func (p *patient) read(document []byte, stderr string, err error) findings {
	p.t.Helper()
	code := 0
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		code = exit.ExitCode()
	} else if err != nil {
		p.t.Fatal(err)
	}
	var list []result
	if err := json.Unmarshal(document, &list); err != nil {
		p.t.Fatalf("exit code %d, %v: %s%s", code, err, document, stderr)
	}
	f := findings{p.t, map[string]result{}}
	want := 0
	for _, r := range list {
		f.results[strings.TrimSpace(r.Check+" "+r.Device)] = r
		if r.Verdict == "fail" {
			want = 1
		}
	}
	if code != want {
		p.t.Errorf("exit code %d, want %d: %s%s", code, want, document, stderr)
	}
	return f
}

// says fails the test unless a check ended like that, with this in what was found. It
// returns what mends it.
func (f findings) says(check, verdict, found string) string {
	f.t.Helper()
	r, ok := f.results[check]
	if !ok || r.Verdict != verdict || !strings.Contains(r.Found, found) {
		f.t.Errorf("%s: got %+v, want %s %q", check, r, verdict, found)
	}
	return r.Mend
}

// mends is says with the command.
func (f findings) mends(check, verdict, found, command string) {
	f.t.Helper()
	if got := f.says(check, verdict, found); got != command {
		f.t.Errorf("%s: mend: got %q, want %q", check, got, command)
	}
}

// obey runs the command that a finding came with.
func (p *patient) obey(command, want string) {
	p.t.Helper()
	if command != want {
		p.t.Fatalf("mend: got %q, want %q", command, want)
	}
	p.host.Output("", "sh", "-ec", command)
}

// until asks again until a check ends like that: the kernel takes its time to notice
// that a link has come or gone.
func (p *patient) until(check, verdict, found string) {
	p.t.Helper()
	for deadline := time.Now().Add(10 * time.Second); ; {
		f := p.examine()
		if r := f.results[check]; r.Verdict == verdict && strings.Contains(r.Found, found) || time.Now().After(deadline) {
			f.says(check, verdict, found)
			return
		}
	}
}
