package service

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// A stand-in for systemd takes a socket with its name and hands it to the next
// process, which must find the same socket.
func TestDescriptorsOutliveTheProcess(t *testing.T) {
	path := filepath.Join(t.TempDir(), "notify")
	systemd, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer systemd.Close()
	t.Setenv("NOTIFY_SOCKET", path)
	conn, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	file, err := conn.File()
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if err := Keep("media-1", int(file.Fd())); err != nil {
		t.Fatal(err)
	}
	if state, fds := receive(t, systemd); state != "FDSTOREREMOVE=1\nFDNAME=media-1" || len(fds) != 0 {
		t.Errorf("first message %q with %d descriptors", state, len(fds))
	}
	state, fds := receive(t, systemd)
	if state != "FDSTORE=1\nFDPOLL=0\nFDNAME=media-1" || len(fds) != 1 {
		t.Fatalf("message %q with %d descriptors", state, len(fds))
	}
	kept := os.NewFile(uintptr(fds[0]), "kept")
	defer kept.Close()
	out := startWith(t, kept, "media-1")
	if want := fmt.Sprintf("media-1 %s\n", conn.LocalAddr()); out != want {
		t.Errorf("the next process found %q, want %q", out, want)
	}
	if err := Release("media-1"); err != nil {
		t.Fatal(err)
	}
	if state, _ := receive(t, systemd); state != "FDSTOREREMOVE=1\nFDNAME=media-1" {
		t.Errorf("message %q", state)
	}
}

func TestNothingIsKeptWithoutSystemd(t *testing.T) {
	t.Setenv("NOTIFY_SOCKET", "")
	if err := Keep("a", 0); err != nil {
		t.Error(err)
	}
	if fds := Inherited(); len(fds) != 0 {
		t.Errorf("inherited %v", fds)
	}
}

func receive(t *testing.T, c *net.UnixConn) (string, []int) {
	t.Helper()
	b, oob := make([]byte, 4096), make([]byte, 256)
	n, m, _, _, err := c.ReadMsgUnix(b, oob)
	if err != nil {
		t.Fatal(err)
	}
	messages, err := syscall.ParseSocketControlMessage(oob[:m])
	if err != nil {
		t.Fatal(err)
	}
	var fds []int
	for _, message := range messages {
		rights, err := syscall.ParseUnixRights(&message)
		if err != nil {
			t.Fatal(err)
		}
		fds = append(fds, rights...)
	}
	return string(b[:n]), fds
}

// startWith runs this test binary as systemd would start it with a kept descriptor.
// LISTEN_PID has to be its own number, which a shell knows that becomes it.
func startWith(t *testing.T, f *os.File, name string) string {
	t.Helper()
	cmd := exec.Command("sh", "-c", `LISTEN_PID=$$ exec "$0"`, os.Args[0])
	cmd.Env = append(os.Environ(), "SERVICE_TEST_COPY=inherits", "LISTEN_FDS=1", "LISTEN_FDNAMES="+name)
	cmd.ExtraFiles = []*os.File{f}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return string(out)
}

// sayInherited is what the started binary does.
func sayInherited() {
	for name, fd := range Inherited() {
		conn, err := net.FilePacketConn(os.NewFile(uintptr(fd), name))
		if err != nil {
			fmt.Println(err)
			continue
		}
		fmt.Println(strings.TrimSpace(name), conn.LocalAddr())
	}
}
