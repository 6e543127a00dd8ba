package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"example.org/mediaproxy/internal/pki"
)

// The program as it is built and linked, under each of its names.
func TestBuiltProgram(t *testing.T) {
	if testing.Short() {
		t.Skip("builds the program")
	}
	bin, site := t.TempDir(), t.TempDir()
	program := filepath.Join(bin, "mediaproxy")
	build := exec.Command("go", "build", "-trimpath", "-o", program, ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	for _, name := range []string{"media-dispatcher", "media-relay"} {
		if err := os.Symlink("mediaproxy", filepath.Join(bin, name)); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"mediaproxy", "media-dispatcher", "media-relay"} {
		out, err := exec.Command(filepath.Join(bin, name), "--version").Output()
		if err != nil || !strings.HasPrefix(string(out), name+" ") {
			t.Errorf("%s --version = %q, %v", name, out, err)
		}
	}

	// The configuration lies beside the link, as that of the original beside its script.
	if _, err := pki.Create(filepath.Join(bin, "tls"), pki.Options{}); err != nil {
		t.Fatal(err)
	}
	config := fmt.Sprintf("[Dispatcher]\nlisten = 127.0.0.1:0\nlisten_management = 127.0.0.1:0\nstate_dir = %s\n", site)
	if err := os.WriteFile(filepath.Join(bin, "config.ini"), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	start := exec.Command("./media-dispatcher", "--runtime-dir", site)
	start.Dir = bin // a relative name, and the copy in the background leaves this folder
	if out, err := start.CombinedOutput(); err != nil {
		t.Fatalf("media-dispatcher: %v\n%s", err, out)
	}
	text, err := os.ReadFile(filepath.Join(site, "media-dispatcher.pid"))
	if err != nil {
		t.Fatal(err)
	}
	var pid int
	if _, err := fmt.Sscan(string(text), &pid); err != nil || pid <= 1 {
		t.Fatalf("PID file holds %q", text)
	}
	conn, err := net.Dial("unix", filepath.Join(site, "dispatcher.sock"))
	if err != nil {
		t.Error("the socket is not open: ", err)
	} else {
		conn.Close()
	}
	if err := syscall.Kill(pid, syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		if _, err := os.Lstat(filepath.Join(site, "media-dispatcher.pid")); errors.Is(err, os.ErrNotExist) {
			break
		}
		if time.Now().After(deadline) {
			syscall.Kill(pid, syscall.SIGKILL)
			t.Fatal("the dispatcher does not stop")
		}
	}
}
