package lab

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"example.org/mediaproxy/internal/report"
	peers "example.org/mediaproxy/test/internal/servers"
	"example.org/mediaproxy/test/servers"
)

// audioBytes is the size of a packet of the phones: 20 ms of G.711 over RTP, UDP and IPv4.
const audioBytes = 160 + 12 + 8 + 20

// TestRecords makes a call whose record goes to an SQL database and to a RADIUS server, and
// compares what is there with what the phones have sent.
func TestRecords(t *testing.T) {
	needs(t)
	sqlite := filepath.Join(t.TempDir(), "calls.db")
	for _, c := range []struct {
		name string
		open func(*testing.T) (uri string, info func() string)
	}{
		{"sqlite", func(t *testing.T) (string, func() string) {
			return "sqlite:" + sqlite, func() string {
				out, err := exec.Command("sqlite3", sqlite, "SELECT info FROM media_sessions").CombinedOutput()
				if err != nil {
					t.Fatalf("sqlite3: %v: %s", err, out)
				}
				return string(out)
			}
		}},
		{"mariadb", func(t *testing.T) (string, func() string) {
			s := servers.MariaDB(t)
			s.Do("CREATE DATABASE calls", "CREATE USER mp@'127.0.0.1' IDENTIFIED BY 'secret'", "GRANT CREATE, SELECT, INSERT, UPDATE ON calls.* TO mp@'127.0.0.1'")
			return fmt.Sprintf("mysql://mp:secret@127.0.0.1:%d/calls", s.Port), func() string { return info(t, s, "calls.media_sessions") }
		}},
		{"postgresql", func(t *testing.T) (string, func() string) {
			s := servers.Postgres(t)
			s.Do("CREATE ROLE mp LOGIN PASSWORD 'secret'", "GRANT CREATE ON SCHEMA public TO mp")
			return fmt.Sprintf("postgres://mp:secret@127.0.0.1:%d/postgres", s.Port), func() string { return info(t, s, "media_sessions") }
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			radius := peers.StartFreeRADIUS(t, peers.RadiusOptions{})
			uri, stored := c.open(t)
			file := filepath.Join(t.TempDir(), "accounting.ini")
			sections := fmt.Sprintf("[Database]\ndburi = %s\n\n[Radius]\nconfig_file = %s\n", uri, peers.ClientConf(t, "", radius.Addr))
			if err := os.WriteFile(file, []byte(sections), 0o600); err != nil {
				t.Fatal(err)
			}
			env := []string{"LAB_HOST_NET=yes", "LAB_ACCOUNTING=database, radius", "LAB_ACCOUNTING_CONFIG=" + file}
			list, out, code := runLab(t.Context(), t, env, "-k", "-f", "off", "audio")
			folder := regexp.MustCompile(`work folder: (\S+)`).FindStringSubmatch(out)
			if folder == nil {
				t.Fatalf("run.sh ended with %d:\n%s", code, out)
			}
			defer os.RemoveAll(folder[1])
			if code != 0 || len(list) == 0 || list[len(list)-1].word != "PASS" {
				t.Fatalf("run.sh ended with %d:\n%s", code, out)
			}
			sent := phonesSent(t, filepath.Join(folder[1], "audio", "media.json"))
			var s report.Session
			if text := stored(); json.Unmarshal([]byte(text), &s) != nil || strings.Count(text, `"call_id"`) != 1 {
				t.Fatalf("stored is %q", text)
			}
			compareRecord(t, s, sent)
			compareRadius(t, s, radius.Records(t))
		})
	}
}

func info(t *testing.T, s *servers.Server, table string) (text string) {
	t.Helper()
	if err := s.Admin.QueryRowContext(t.Context(), "SELECT info FROM "+table).Scan(&text); err != nil {
		t.Fatal(err)
	}
	return text
}

// phonesSent is what the judge has seen the phones send.
func phonesSent(t *testing.T, path string) map[string]uint64 {
	t.Helper()
	text, err := os.ReadFile(path)
	var media struct{ Sent map[string]uint64 }
	if err == nil {
		err = json.Unmarshal(text, &media)
	}
	if err != nil || media.Sent["uac"] < 30 || media.Sent["uas"] < 30 {
		t.Fatalf("%s: %v: %s", path, err, text)
	}
	return media.Sent
}

func compareRecord(t *testing.T, s report.Session, sent map[string]uint64) {
	t.Helper()
	if len(s.Streams) != 1 {
		t.Fatalf("%+v", s)
	}
	got := s.Streams[0]
	// The judge counts until the BYE; what a phone sends while that is on its way counts too.
	few := func(relay, phone uint64) bool { return relay >= phone && relay <= phone+5 }
	if !few(got.CallerPackets, sent["uac"]) || !few(got.CalleePackets, sent["uas"]) || got.CallerBytes != got.CallerPackets*audioBytes || got.CalleeBytes != got.CalleePackets*audioBytes {
		t.Errorf("%d and %d packets, %d and %d bytes; the phones sent %v packets of %d bytes", got.CallerPackets, got.CalleePackets, got.CallerBytes, got.CalleeBytes, sent, audioBytes)
	}
	// 60 packets of 20 ms, and what the signalling takes.
	if got.MediaType != "audio" || got.Status != report.StatusClosed || got.CallerCodec != "G711a" || got.CalleeCodec != "G711a" || s.Duration < 1 || s.Duration > 4 || got.EndTime != s.Duration {
		t.Errorf("duration %d, stream %+v", s.Duration, got)
	}
	if s.Reason != report.ReasonRemoved || s.ToTag == nil || s.RecordID == "" || s.StartTime == nil || !strings.Contains(s.FromURI, "@") || !strings.Contains(s.ToURI, "@") || s.DialogID == "" {
		t.Errorf("record %+v", s)
	}
}

// compareRadius compares both records of the call.
func compareRadius(t *testing.T, s report.Session, records []map[string]string) {
	t.Helper()
	if len(records) != 1 {
		t.Fatalf("RADIUS records %v", records)
	}
	stream := s.Streams[0]
	for name, want := range map[string]string{
		"Acct-Session-Id": s.CallID, "Sip-From-Tag": s.FromTag, "Sip-To-Tag": *s.ToTag, "Acct-Session-Time": strconv.FormatInt(s.Duration, 10),
		"Acct-Input-Octets": strconv.FormatUint(stream.CallerBytes, 10), "Acct-Output-Octets": strconv.FormatUint(stream.CalleeBytes, 10),
		"Sip-Applications": "audio", "Media-Codecs": stream.CallerCodec, "NAS-IP-Address": "127.0.0.1", "Sip-User-Agents": s.CallerUA + "+" + s.CalleeUA,
	} {
		if got := records[0][name]; got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
}
