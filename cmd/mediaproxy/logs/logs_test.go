package logs

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"log/syslog"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/coreos/go-systemd/v22/journal"
	"github.com/google/go-cmp/cmp"
)

func TestTerminal(t *testing.T) {
	for _, asJSON := range []bool{false, true} {
		var out bytes.Buffer
		var level slog.LevelVar
		log, err := Open(Options{JSON: asJSON, Level: &level, Stderr: &out})
		if err != nil {
			t.Fatal(err)
		}
		log.Debug("unheard")
		level.Set(slog.LevelDebug)
		log.Debug("heard", "call_id", "a b")
		got := out.String()
		if strings.Contains(got, "unheard") || strings.Count(got, "\n") != 1 {
			t.Errorf("json %v: %q, want one record", asJSON, got)
		}
		if !asJSON && !strings.Contains(got, `level=DEBUG msg=heard call_id="a b"`) {
			t.Errorf("text record is %q", got)
		}
		if record := map[string]any{}; asJSON && (json.Unmarshal(out.Bytes(), &record) != nil || record["call_id"] != "a b") {
			t.Errorf("JSON record is %q", got)
		}
	}
}

func TestJournalFields(t *testing.T) {
	type sent struct {
		message  string
		priority journal.Priority
		fields   map[string]string
	}
	var got []sent
	var level slog.LevelVar
	h := journalHandler{
		line:   newLine(&level),
		fields: map[string]string{"SYSLOG_IDENTIFIER": "media-relay"},
		send: func(m string, p journal.Priority, f map[string]string) error {
			got = append(got, sent{m, p, f})
			return nil
		},
	}
	log := slog.New(h)
	call := log.With("call_id", "1@a")
	call.Info("stream learned", "leg-name", "caller", "1st", 7, "message", "no override")
	log.WithGroup("g").Warn("grouped", "call_id", "x")
	log.Log(context.Background(), slog.LevelError+4, "critical")
	log.Debug("unheard")

	want := []sent{
		{`stream learned call_id=1@a leg-name=caller 1st=7 message="no override"`, journal.PriInfo,
			map[string]string{"SYSLOG_IDENTIFIER": "media-relay", "CALL_ID": "1@a", "LEG_NAME": "caller", "ST": "7"}},
		{"grouped g.call_id=x", journal.PriWarning, map[string]string{"SYSLOG_IDENTIFIER": "media-relay"}},
		{"critical", journal.PriCrit, map[string]string{"SYSLOG_IDENTIFIER": "media-relay"}},
	}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(sent{})); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

// A record reaches syslog as soon as there is one, with its level and program.
func TestSyslog(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	var level slog.LevelVar
	h := newSyslog(Options{Program: "media-relay", Level: &level})
	h.conn.dial = func(program string) (*syslog.Writer, error) {
		return syslog.Dial("unixgram", path, syslog.LOG_DAEMON, program)
	}
	if err := h.connect(); !errors.Is(err, errNoSyslog) {
		t.Errorf("connect without a syslog = %v", err)
	}
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	slog.New(h).With("call_id", "1@a").Error("relay is gone", "ip", "192.0.2.1")
	buf := make([]byte, 4096)
	if err := conn.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	n, err := conn.Read(buf)
	if err != nil {
		t.Fatal(err)
	}
	got := string(buf[:n])
	// <27> is facility daemon (3 × 8) and severity error (3).
	if !strings.HasPrefix(got, "<27>") || !strings.Contains(got, "media-relay[") || !strings.Contains(got, "relay is gone call_id=1@a ip=192.0.2.1") {
		t.Errorf("syslog got %q", got)
	}
	h.conn.w.Close()
}
