package radius

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"example.org/mediaproxy/internal/accounting"
	"example.org/mediaproxy/internal/config"
	"example.org/mediaproxy/internal/report"
	"example.org/mediaproxy/test/internal/servers"
	"example.org/mediaproxy/test/internal/site"
)

func TestMain(m *testing.M) { os.Exit(site.Main(m, 4)) }

// backend opens the back-end with a client.conf.
func backend(t *testing.T, clientConf string) accounting.Backend {
	t.Helper()
	c := config.Default()
	c.Dispatcher.Accounting = []string{"radius"}
	c.Radius = config.Radius{ConfigFile: clientConf, AdditionalDictionary: filepath.Join(t.TempDir(), "none")}
	opened, err := accounting.Open(c.Dispatcher.Accounting, c, slog.New(slog.NewTextHandler(t.Output(), nil)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { opened["radius"].Close() })
	return opened["radius"]
}

// call is one that ended a moment ago.
func call(id string) report.Session {
	start, to, user, delay := float64(time.Now().Unix()-61), "to-"+id, "alice@example.com", 2.5
	return report.Session{CallID: id, FromTag: "from-" + id, ToTag: &to, StartTime: &start, Duration: 61, CallerUA: "Phone/1.0", CalleeUA: "Other/2.0", Username: &user,
		RecordID: id, Reason: report.ReasonTimeout, Relay: "r1", Streams: []report.Stream{{MediaType: "audio", EndTime: 61, CallerCodec: "G711u", CallerBytes: 1000, CalleeBytes: 2000,
			CallerLocal: "203.0.113.9:50000", PostDialDelay: &delay}}}
}

func store(b accounting.Backend, s report.Session) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	return b.Store(ctx, accounting.Record{ID: s.RecordID, Session: s, Tries: 1})
}

// one is the only record, without what depends on the moment.
func one(t *testing.T, s *servers.FreeRADIUS) map[string]string {
	t.Helper()
	records := s.Records(t)
	if len(records) != 1 {
		t.Fatalf("%d records: %v", len(records), records)
	}
	delete(records[0], "Timestamp")
	return records[0]
}

// A record with everything is read by the server as it was meant.
func TestWholeRecord(t *testing.T) {
	s := servers.StartFreeRADIUS(t, servers.RadiusOptions{})
	if err := store(backend(t, servers.ClientConf(t, "", s.Addr)), call("c1")); err != nil {
		t.Fatal(err)
	}
	got := one(t, s)
	for _, changing := range []string{"Acct-Delay-Time", "Event-Timestamp"} {
		if got[changing] == "" {
			t.Errorf("no %s", changing)
		}
		delete(got, changing)
	}
	want := map[string]string{"Acct-Status-Type": "Interim-Update", "User-Name": "alice@example.com", "Acct-Session-Id": "c1", "Acct-Session-Time": "61",
		"Acct-Input-Octets": "1000", "Acct-Output-Octets": "2000", "Sip-From-Tag": "from-c1", "Sip-To-Tag": "to-c1", "NAS-IP-Address": "203.0.113.9",
		"Sip-User-Agents": "Phone/1.0+Other/2.0", "Sip-Applications": "audio", "Media-Codecs": "G711u", "Media-Info": "timeout", "Sip-Post-Dial-Delay": "2"}
	for name, value := range want {
		if got[name] != value {
			t.Errorf("%s is %q, want %q", name, got[name], value)
		}
		delete(got, name)
	}
	if len(got) > 0 {
		t.Errorf("the server knows more: %v", got)
	}
}

// What the original lost: many octets, long names in other scripts, no To tag.
func TestHardRecords(t *testing.T) {
	s := servers.StartFreeRADIUS(t, servers.RadiusOptions{})
	b := backend(t, servers.ClientConf(t, "", s.Addr))
	long := strings.Repeat("ö", 200)
	c := call(long)
	c.Streams[0].CallerBytes, c.Streams[0].CalleeBytes = 5<<32+7, 1<<40
	c.ToTag, c.CallerUA, c.Streams[0].CallerLocal = nil, long, "[2001:db8::9]:50000"
	if err := store(b, c); err != nil {
		t.Fatal(err)
	}
	got := one(t, s)
	for name, want := range map[string]string{"Acct-Input-Octets": "7", "Acct-Input-Gigawords": "5", "Acct-Output-Octets": "0", "Acct-Output-Gigawords": "256",
		"Sip-From-Tag": "from-" + long[:248], "Sip-To-Tag": "", "Sip-User-Agents": long[:252], "NAS-IPv6-Address": "2001:db8::9", "NAS-IP-Address": ""} {
		if got[name] != want {
			t.Errorf("%s is %q, want %q", name, got[name], want)
		}
	}
	if id := got["Acct-Session-Id"]; !strings.HasPrefix(id, long[:244]+"~") || len(id) != 253 {
		t.Errorf("Acct-Session-Id is %q", id)
	}
}

// A server that is silent gets the record when it is back, one that is gone too.
func TestAwayAndBack(t *testing.T) {
	s := servers.StartFreeRADIUS(t, servers.RadiusOptions{})
	b := backend(t, servers.ClientConf(t, "", s.Addr))
	s.Stop(t)
	if err := store(b, call("c1")); err == nil || !strings.Contains(err.Error(), "connection refused") {
		t.Errorf("stopped: %v", err)
	}
	s.Start(t)
	if err := store(b, call("c1")); err != nil {
		t.Errorf("back: %v", err)
	}
	s.Freeze(t)
	if err := store(b, call("c2")); err == nil || !strings.Contains(err.Error(), "no answer from RADIUS server "+s.Addr.String()+" to 2 transmissions") {
		t.Errorf("frozen: %v", err)
	}
	s.Thaw(t)
	if err := store(b, call("c3")); err != nil {
		t.Errorf("thawed: %v", err)
	}
	ids := map[string]int{}
	for _, r := range s.Records(t) {
		ids[r["Acct-Session-Id"]]++
	}
	// What a frozen server finds in its socket it takes later, each transmission for itself:
	// that is the doubt that RADIUS leaves.
	if ids["c1"] != 1 || ids["c2"] > 2 || ids["c3"] != 1 {
		t.Errorf("records %v", ids)
	}
}

func TestFailOver(t *testing.T) {
	gone, alive := servers.StartFreeRADIUS(t, servers.RadiusOptions{}), servers.StartFreeRADIUS(t, servers.RadiusOptions{})
	frozen := servers.StartFreeRADIUS(t, servers.RadiusOptions{})
	gone.Stop(t)
	frozen.Freeze(t)
	b := backend(t, servers.ClientConf(t, "", gone.Addr, frozen.Addr, alive.Addr))
	began := time.Now()
	for i := range 10 {
		if err := store(b, call(fmt.Sprint("c", i))); err != nil {
			t.Fatal(err)
		}
	}
	if d := time.Since(began); d > 12*time.Second {
		t.Errorf("10 records took %v: the silent server was asked for each", d)
	}
	if n := len(alive.Records(t)); n != 10 {
		t.Errorf("%d records", n)
	}
}

// A wrong secret is silence; the error says where to look, and shows none.
func TestWrongSecret(t *testing.T) {
	s := servers.StartFreeRADIUS(t, servers.RadiusOptions{Secret: "another"})
	conf := servers.ClientConf(t, "", s.Addr)
	err := store(backend(t, conf), call("c1"))
	if err == nil {
		t.Fatal("stored")
	}
	for _, want := range []string{s.Addr.String(), "2 transmissions", "its secret is another than that in " + filepath.Join(filepath.Dir(conf), "servers") + ":1", "127.0.0.1 is not in its list of clients"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%v says nothing of %q", err, want)
		}
	}
	if strings.Contains(err.Error(), "testing") {
		t.Errorf("the secret is shown: %v", err)
	}
	if n := len(s.Records(t)); n != 0 {
		t.Errorf("%d records", n)
	}
	if log := s.Log(); !strings.Contains(log, "Shared secret is incorrect") {
		t.Errorf("the server's log says nothing: %s", log)
	}
}

func TestIPv6(t *testing.T) {
	s := servers.StartFreeRADIUS(t, servers.RadiusOptions{Addr: netip.MustParseAddr("::1")})
	if err := store(backend(t, servers.ClientConf(t, "bindaddr ::1\n", s.Addr)), call("c1")); err != nil {
		t.Fatal(err)
	}
	one(t, s)
}

// The dictionary for Kamailio that FreeRADIUS ships serves as ours.
func TestDictionaryOfTheServer(t *testing.T) {
	s := servers.StartFreeRADIUS(t, servers.RadiusOptions{Dictionary: "ATTRIBUTE Sip-To-Tag 104 string\nATTRIBUTE Sip-From-Tag 105 string\n"})
	conf := servers.ClientConf(t, "dictionary /usr/share/freeradius/dictionary.openser\n", s.Addr)
	if err := store(backend(t, conf), call("c1")); err != nil {
		t.Fatal(err)
	}
	if got := one(t, s); got["Sip-From-Tag"] != "from-c1" || got["Sip-To-Tag"] != "to-c1" || got["Acct-Session-Time"] != "61" {
		t.Errorf("record %v", got)
	}
}

// A call of a whole site ends up at the server, also when the server was away as it ended.
func TestCallOfASite(t *testing.T) {
	const dispatcherIP, relayIP = "127.20.2.9", "127.20.2.1"
	s := servers.StartFreeRADIUS(t, servers.RadiusOptions{})
	site1 := site.New(t, site.Options{})
	d := site1.DispatcherAt(dispatcherIP, "accounting = radius", "[Radius]", "config_file = "+servers.ClientConf(t, "", s.Addr))
	site1.RelayAt("r1", relayIP, dispatcherIP, "fast_path = off")
	s.Stop(t)
	m := d.Module()
	caller, callee := netip.MustParseAddrPort("127.0.0.1:4000"), netip.MustParseAddrPort("127.0.0.1:4002")
	m.Update(site.Message{Kind: "request", CallID: "c1@site", From: "a", CSeq: 1, Media: site.Audio(caller)})
	m.Update(site.Message{Kind: "reply", CallID: "c1@site", From: "a", To: "b", CSeq: 1, Media: site.Audio(callee)})
	if answer := m.Ask(site.Remove("c1@site", "a", "b")); answer != "removed" {
		t.Fatalf("remove: %q", answer)
	}
	d.Log.Await(t, "record not stored", "connection refused")
	out, code := d.Ctl("accounting", "--json")
	var status []report.Backend
	if code != 0 || json.Unmarshal([]byte(out), &status) != nil || len(status) != 1 || status[0].Waiting != 1 || !strings.Contains(status[0].LastError, "connection refused") {
		t.Errorf("ctl accounting: %s", out)
	}
	s.Start(t)
	site.Eventually(t, "the record is there", func() bool { return len(s.Records(t)) > 0 })
	got := one(t, s)
	for name, want := range map[string]string{"Acct-Session-Id": "c1@site", "User-Name": "mediaproxy@default", "NAS-IP-Address": relayIP, "Sip-From-Tag": "a", "Sip-To-Tag": "b",
		"Sip-User-Agents": "Phone/1.0+Phone/1.0"} {
		if got[name] != want {
			t.Errorf("%s is %q, want %q", name, got[name], want)
		}
	}
	if strings.Contains(d.Log.String(), "testing") {
		t.Error("the log shows the secret")
	}
}

// A dispatcher whose RADIUS files are not right does not start, and says all that is wrong;
// check says the same.
func TestBrokenFiles(t *testing.T) {
	s := site.New(t, site.Options{})
	missing := filepath.Join(t.TempDir(), "client.conf")
	conf := servers.ClientConf(t, "bindaddr eth0\nradius_timeout soon\n", netip.MustParseAddrPort("127.0.0.1:1813"))
	for _, c := range []struct {
		file string
		want []string
	}{
		{missing, []string{missing + ": error: [Radius] config_file: there is no such file", "`acctserver HOST`", "`servers FILE`", "`dictionary FILE`"}},
		{conf, []string{"2 error(s)", conf + `:6: error: bindaddr "eth0"`, conf + `:7: error: radius_timeout "soon"`}},
	} {
		dir := s.Folder("broken", "[Dispatcher]", "accounting = radius", "[Radius]", "config_file = "+c.file)
		for _, command := range [][]string{{"check", "--config-dir", dir, "--for", "dispatcher"}, {"dispatcher", "--config-dir", dir, "--runtime-dir", dir}} {
			out, code := site.Run(t, command...)
			if code == 0 {
				t.Errorf("%s accepts %s", command[0], c.file)
			}
			for _, want := range c.want {
				if !strings.Contains(out, want) {
					t.Errorf("%s says nothing of %q:\n%s", command[0], want, out)
				}
			}
		}
	}
	good := s.Folder("good", "[Dispatcher]", "accounting = radius", "[Radius]", "config_file = "+servers.ClientConf(t, "", netip.MustParseAddrPort("127.0.0.1:1813")))
	if out, code := site.Run(t, "check", "--config-dir", good); code != 0 || !strings.Contains(out, "there is no such file; what it would define has the built-in numbers") {
		t.Errorf("check of good files: %d, %s", code, out)
	}
}
