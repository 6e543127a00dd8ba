package program

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"example.org/mediaproxy/internal/config"
)

var units = []string{"media-dispatcher.service", "media-relay.service", "mediaproxy.service"}

// systemd finds nothing to say about the unit files, and what they start is a command
// line that the program takes.
func TestUnits(t *testing.T) {
	analyze, err := exec.LookPath("systemd-analyze")
	if err != nil {
		t.Skip("systemd-analyze is not installed")
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	started := regexp.MustCompile(`(?m)^ExecStart=/usr/bin/(\S+)`)
	args := []string{"verify", "--man=no", "--recursive-errors=no"}
	for _, name := range units {
		text, err := os.ReadFile(filepath.Join("../../../systemd", name))
		if err != nil {
			t.Fatal(err)
		}
		if len(started.FindAll(text, -1)) != 1 {
			t.Fatalf("%s starts nothing, or something outside of /usr/bin", name)
		}
		// Programs that are not installed would be complained about.
		text = started.ReplaceAll(text, []byte("ExecStart="+self))
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, text, 0o644); err != nil {
			t.Fatal(err)
		}
		args = append(args, path)
	}
	if out, err := exec.Command(analyze, args...).CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("systemd-analyze: %v\n%s", err, out)
	}
}

func TestUnitsStartWhatThereIs(t *testing.T) {
	for _, name := range units {
		text, err := os.ReadFile(filepath.Join("../../../systemd", name))
		if err != nil {
			t.Fatal(err)
		}
		_, line, _ := strings.Cut(string(text), "ExecStart=/usr/bin/")
		line, _, _ = strings.Cut(line, "\n")
		cmd := named(strings.Fields(line))
		found, rest, err := cmd.Find(strings.Fields(line)[1:])
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if err := found.ParseFlags(rest); err != nil || len(found.Flags().Args()) > 0 {
			t.Errorf("%s: %q is not understood: %v", name, line, err)
		}
		wants := []string{"Type=notify", "WatchdogSec=", "ProtectSystem=strict", "User=mediaproxy", "StateDirectory=mediaproxy", "RuntimeDirectory=mediaproxy"}
		if name != "media-dispatcher.service" { // a relay uses the kernel
			wants = append(wants, "CapabilityBoundingSet=CAP_BPF CAP_NET_ADMIN CAP_NET_RAW\n", "AmbientCapabilities=CAP_BPF CAP_NET_ADMIN CAP_NET_RAW\n",
				"ReadWritePaths=-"+config.Default().Relay.BPFDir+"\n", "SystemCallFilter=@system-service bpf\n", "FileDescriptorStoreMax=")
		}
		for _, want := range wants {
			if !strings.Contains(string(text), "\n"+want) {
				t.Errorf("%s has no %s", name, want)
			}
		}
	}
}
