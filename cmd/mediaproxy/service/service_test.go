package service

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// The test binary is also the program that Spawn starts in the background.
func TestMain(m *testing.M) {
	switch os.Getenv("SERVICE_TEST_COPY") {
	case "":
		goleak.VerifyTestMain(m)
	case "ready":
		f, err := Background()
		if err != nil {
			os.Exit(7)
		}
		dir, _ := os.Getwd()
		sid, _, _ := syscall.RawSyscall(syscall.SYS_GETSID, 0, 0, 0)
		fmt.Fprintf(f, "folder %s, leader %v\n", dir, int(sid) == os.Getpid())
		f.Ready()
	case "fails":
		f, _ := Background()
		fmt.Fprintln(f, "two problems\nof mine")
		os.Exit(1)
	case "inherits":
		sayInherited()
	case "dies":
		os.Exit(9)
	}
}

func TestSpawn(t *testing.T) {
	for _, tt := range []struct {
		copy, text, err string
	}{
		{"ready", "folder /, leader true\n", ""},
		{"fails", "two problems\nof mine\n", ErrNotStarted.Error()},
		{"dies", "", "exit status 9"},
	} {
		t.Run(tt.copy, func(t *testing.T) {
			t.Setenv("SERVICE_TEST_COPY", tt.copy)
			var said bytes.Buffer
			err := Spawn(os.Args[:1], &said)
			if said.String() != tt.text {
				t.Errorf("said %q, want %q", said.String(), tt.text)
			}
			if tt.err == "" && err != nil || tt.err != "" && (!errors.Is(err, ErrNotStarted) || !strings.Contains(err.Error(), tt.err)) {
				t.Errorf("error %v, want %q", err, tt.err)
			}
		})
	}
}

func TestBackgroundRefusesNonsense(t *testing.T) {
	if f, err := Background(); f != nil || err != nil {
		t.Errorf("without Spawn: %v, %v", f, err)
	}
	for _, value := range []string{"x", "0", "-1"} {
		t.Setenv(readyVariable, value)
		if _, err := Background(); err == nil {
			t.Errorf("%q was taken for the number of a pipe", value)
		}
	}
}

func TestPIDFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "p.pid")
	if err := os.WriteFile(path, []byte("99999999999\nleft by a crash"), 0o644); err != nil {
		t.Fatal(err)
	}
	p, err := WritePID(path)
	if err != nil {
		t.Fatal(err)
	}
	if got, _ := os.ReadFile(path); string(got) != strconv.Itoa(os.Getpid())+"\n" {
		t.Errorf("file holds %q", got)
	}
	if _, err := WritePID(path); err == nil || !strings.Contains(err.Error(), "process "+strconv.Itoa(os.Getpid())) {
		t.Errorf("second program: %v, want the process of the first in it", err)
	}
	if err := p.Remove(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(path); !os.IsNotExist(err) {
		t.Errorf("file is still there: %v", err)
	}
	if _, err := WritePID(filepath.Join(t.TempDir(), "no", "such")); err == nil {
		t.Error("a file in no folder was written")
	}
}

func TestSignals(t *testing.T) {
	got := make(chan string, 8)
	say := func(s string) func() { return func() { got <- s } }
	asked := 0
	clock := func() time.Time { // of each TERM and INT: two at once, then one a second later
		asked++
		return time.Unix(1e9, 0).Add([]time.Duration{0, echo / 2, time.Second}[asked-1])
	}
	end := HandleSignals(Actions{Stop: say("stop"), Hurry: say("hurry"), Hup: say("hup"), Debug: say("debug"), Now: clock})
	defer end()
	for _, tt := range []struct {
		signal syscall.Signal
		want   string
	}{
		{syscall.SIGUSR1, "debug"}, {syscall.SIGHUP, "hup"}, {syscall.SIGTERM, "stop"}, {syscall.SIGINT, ""}, {syscall.SIGUSR1, "debug"}, {syscall.SIGTERM, "hurry"},
	} {
		if err := syscall.Kill(os.Getpid(), tt.signal); err != nil {
			t.Fatal(err)
		}
		if tt.want == "" {
			continue // the next action must be that of the next signal
		}
		select {
		case action := <-got:
			if action != tt.want {
				t.Errorf("%v did %s, want %s", tt.signal, action, tt.want)
			}
		case <-time.After(10 * time.Second):
			t.Fatalf("%v did nothing", tt.signal)
		}
	}
}

// notifySocket plays systemd.
func notifySocket(t *testing.T) (next func() string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "notify")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	t.Setenv("NOTIFY_SOCKET", path)
	return func() string {
		t.Helper()
		buf := make([]byte, 4096)
		if err := conn.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
			t.Fatal(err)
		}
		n, err := conn.Read(buf)
		if err != nil {
			t.Fatal(err)
		}
		return string(buf[:n])
	}
}

func TestNotify(t *testing.T) {
	next := notifySocket(t)
	for _, tt := range []struct {
		send func() error
		want string
	}{
		{func() error { return Ready("serving") }, "READY=1\nSTATUS=serving"},
		{func() error { return Status("draining") }, "STATUS=draining"},
		{Stopping, "STOPPING=1"},
	} {
		if err := tt.send(); err != nil {
			t.Error(err)
		}
		if got := next(); got != tt.want {
			t.Errorf("systemd was told %q, want %q", got, tt.want)
		}
	}
	t.Setenv("NOTIFY_SOCKET", filepath.Join(t.TempDir(), "absent"))
	if err := Ready("x"); err == nil {
		t.Error("no error when nobody listens")
	}
	t.Setenv("NOTIFY_SOCKET", "")
	if err := Ready("x"); err != nil {
		t.Errorf("without systemd: %v", err)
	}
}

func TestWatchdog(t *testing.T) {
	log := slog.New(slog.DiscardHandler)
	Watchdog(context.Background(), log, func() { t.Error("called though nobody asked") })

	next := notifySocket(t)
	t.Setenv("WATCHDOG_USEC", "30000")
	t.Setenv("WATCHDOG_PID", strconv.Itoa(os.Getpid()))
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	calls := 0
	go func() { // ends by cancel, waited for below
		defer close(done)
		Watchdog(ctx, log, func() { calls++ })
	}()
	for range 3 {
		if got := next(); got != "WATCHDOG=1" {
			t.Errorf("systemd was told %q", got)
		}
	}
	cancel()
	<-done
	if calls < 3 {
		t.Errorf("liveness was looked at %d times for 3 messages", calls)
	}
}
