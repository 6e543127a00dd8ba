package accounting

import (
	"encoding/hex"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"example.org/mediaproxy/internal/accounting/radius"
	"example.org/mediaproxy/internal/config"
	"example.org/mediaproxy/internal/report"
)

// opensips are the numbers of a site with OpenSIPS.
var opensips = numbers{update: 3, fromTag: 206, toTag: 207, codecs: 233, info: 234, agents: 235, applied: 236}

// answered is a call with two streams that ended at 1700000061.311634.
func answered() report.Session {
	start, to, user, delay := 1700000000.311634, "t", "alice", 1.0065
	return report.Session{CallID: "c1", FromTag: "f", ToTag: &to, StartTime: &start, Duration: 61, CallerUA: "UA", CalleeUA: "UB", Username: &user, Reason: report.ReasonRemoved, Relay: "r1",
		Streams: []report.Stream{
			{MediaType: "video", StartTime: 5, EndTime: 5, CallerCodec: "VP8", CallerBytes: 1, CalleeBytes: 2, CallerLocal: "203.0.113.9:50000"},
			{MediaType: "audio", EndTime: 61, CallerCodec: "G711u", CallerBytes: 1000, CalleeBytes: 2000, CallerLocal: "203.0.113.10:50004", PostDialDelay: &delay},
			{MediaType: "audio", EndTime: 60, CallerCodec: "G711a", CallerLocal: "203.0.113.11:50008"}}}
}

func shown(list radius.List) string {
	var b strings.Builder
	for _, a := range list {
		fmt.Fprintf(&b, "%d=%s ", a.Type, hex.EncodeToString(a.Value))
	}
	return strings.TrimSpace(b.String())
}

func text(s string) string { return hex.EncodeToString([]byte(s)) }

// The whole record, attribute by attribute, in the order and with the types of the original.
func TestRadiusAttributes(t *testing.T) {
	s := answered()
	got := shown(opensips.attributes(&s, time.Unix(1700000071, 500e6)))
	want := strings.Join([]string{
		"40=00000003", "1=" + text("alice"), "44=" + text("c1"), "46=0000003d", "42=000003e9", "43=000007d2", "206=" + text("f"), "207=" + text("t"), "4=cb007109",
		"235=" + text("UA+UB"), "236=" + text("audio"), "233=" + text("VP8, G711u, G711a"), "41=0000000a", "55=6553f13d"}, " ")
	if got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func TestRadiusVariants(t *testing.T) {
	now := time.Unix(1700000061, 311634000)
	long := strings.Repeat("ä", 200)
	for _, c := range []struct {
		name string
		edit func(*report.Session, *numbers)
		has  []string
		not  []string // beginnings
	}{
		{"numbers of Kamailio", func(_ *report.Session, n *numbers) { n.fromTag, n.toTag = 105, 104 }, []string{"105=" + text("f"), "104=" + text("t")}, []string{"206", "207"}},
		{"more than 32 bits", func(s *report.Session, _ *numbers) { s.Streams[0].CallerBytes = 5 << 32 }, []string{"42=000003e8 52=00000005 43=000007d2"}, []string{"53="}},
		{"gigawords of the callee", func(s *report.Session, _ *numbers) { s.Streams[0].CalleeBytes = 1<<33 + 1 }, []string{"43=000007d1 53=00000002"}, []string{"52="}},
		{"two kinds", func(s *report.Session, _ *numbers) { s.Streams[0].EndTime = 9 }, []string{"236=" + text("audio, video")}, nil},
		{"no To tag", func(s *report.Session, _ *numbers) { s.ToTag = nil }, nil, []string{"207="}},
		{"empty To tag", func(s *report.Session, _ *numbers) { *s.ToTag = "" }, nil, []string{"207="}},
		{"no user", func(s *report.Session, _ *numbers) { s.Username = nil }, []string{"1=" + text("mediaproxy@default")}, nil},
		{"empty user", func(s *report.Session, _ *numbers) { *s.Username = "" }, []string{"1=" + text("mediaproxy@default")}, nil},
		{"IPv6", func(s *report.Session, _ *numbers) { s.Streams[0].CallerLocal = "[2001:db8::1]:50000" }, []string{"95=20010db8000000000000000000000001"}, []string{"4=", "32="}},
		{"no streams", func(s *report.Session, _ *numbers) { s.Streams = nil }, []string{"32=" + text("r1"), "42=00000000"}, []string{"4=", "95=", "236=", "233="}},
		{"nothing but a call", func(s *report.Session, _ *numbers) { s.Streams, s.Relay = nil, "" }, []string{"32=" + text("mediaproxy")}, []string{"4="}},
		{"timeout", func(s *report.Session, _ *numbers) { s.Reason = report.ReasonTimeout }, []string{"234=" + text("timeout")}, nil},
		{"ICE", func(s *report.Session, _ *numbers) { s.Reason = report.ReasonUnused }, []string{"234=" + text("ICE session")}, nil},
		{"hung up", func(*report.Session, *numbers) {}, []string{"41=00000000 55=6553f13d"}, []string{"234=", "237="}},
		{"delay as number", func(_ *report.Session, n *numbers) { n.delay = 237 }, []string{"237=00000001 41="}, nil},
		{"delay as text", func(_ *report.Session, n *numbers) { n.delay, n.delayIsText = 237, true }, []string{"237=" + text("1.006") + " 41="}, nil},
		{"no delay", func(s *report.Session, n *numbers) { n.delay, s.Streams[1].PostDialDelay = 237, nil }, nil, []string{"237="}},
		{"relay's clock is ahead", func(s *report.Session, _ *numbers) { s.Duration = 100 }, []string{"46=00000064", "41=00000000 55=6553f13d"}, nil},
		{"negative duration", func(s *report.Session, _ *numbers) { s.Duration = -1 }, []string{"46=00000000"}, nil},
		{"long strings", func(s *report.Session, _ *numbers) {
			s.FromTag, *s.ToTag, *s.Username, s.CallerUA = long, long+"x", "x"+long, long
		}, []string{"206=" + text(long[:252]), "207=" + text(long[:252]), " 1=" + text("x"+long[:252]), "235=" + text(long[:252])}, nil},
		{"longest Call-ID", func(s *report.Session, _ *numbers) { s.CallID = "x" + long[:252] }, []string{"44=" + text("x"+long[:252])}, nil},
		{"long Call-ID", func(s *report.Session, _ *numbers) { s.CallID = long }, []string{"44=" + text(long[:244]+"~2e9f2db4")}, nil},
		{"another long Call-ID", func(s *report.Session, _ *numbers) { s.CallID = long + "x" }, []string{"44=" + text(long[:244]+"~")}, []string{"44=" + text(long[:244]+"~2e9f2db4")}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, n := answered(), opensips
			c.edit(&s, &n)
			got := " " + shown(n.attributes(&s, now))
			for _, want := range c.has {
				if !strings.Contains(got, want) {
					t.Errorf("no %s in %s", want, got)
				}
			}
			for _, never := range c.not {
				if strings.Contains(got, " "+never) {
					t.Errorf("%s in %s", never, got)
				}
			}
		})
	}
}

// radiusFiles writes a client's files and returns a configuration that names them.
func radiusFiles(t *testing.T, clientConf, dictionary string) *config.Config {
	t.Helper()
	dir := t.TempDir()
	for name, text := range map[string]string{"client.conf": clientConf, "servers": "127.0.0.1 topsecret\n", "dictionary": dictionary} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	c, problems := config.Parse("config.ini", []byte("[Dispatcher]\naccounting = radius\n[Radius]\nconfig_file = "+dir+"/client.conf\n"))
	if err := problems.Err(); err != nil {
		t.Fatal(err)
	}
	return c
}

const (
	goodConf       = "acctserver 127.0.0.1\nservers servers\ndictionary dictionary\n"
	goodDictionary = "ATTRIBUTE Sip-From-Tag 105 string\nATTRIBUTE Sip-To-Tag 104 string\n"
)

// What the dictionaries say is what is sent; what they lack is said before the start.
func TestRadiusNumbers(t *testing.T) {
	for _, c := range []struct {
		dictionary string
		want       numbers
		problem    string
	}{
		{goodDictionary, numbers{3, 105, 104, 233, 234, 235, 236, 0, false}, ""},
		{goodDictionary + "VALUE Acct-Status-Type Update 13\nATTRIBUTE Media-Info 90 string\nATTRIBUTE Sip-Post-Dial-Delay 91 integer\n", numbers{13, 105, 104, 233, 90, 235, 236, 91, false}, ""},
		{goodDictionary + "ATTRIBUTE Sip-Post-Dial-Delay 91 string\n", numbers{3, 105, 104, 233, 234, 235, 236, 91, true}, ""},
		{"ATTRIBUTE Sip-From-Tag 105 string\n", numbers{}, "dictionary: error: there is no attribute Sip-To-Tag: want a line `ATTRIBUTE Sip-To-Tag NUMBER string`"},
		{"ATTRIBUTE Sip-To-Tag 104 integer\nATTRIBUTE Sip-From-Tag 105 text\n", numbers{}, "dictionary:1: error: Sip-To-Tag is of type integer: want string"},
		{goodDictionary + "ATTRIBUTE Media-Codecs 1233 string\n", numbers{}, "dictionary:3: error: Media-Codecs cannot be sent, because numbers above 255 are not sent: want a number from 1 to 255"},
		{goodDictionary + "ATTRIBUTE Sip-Post-Dial-Delay 9 ipaddr\n", numbers{}, "dictionary:3: error: Sip-Post-Dial-Delay is of type ipaddr"},
	} {
		cfg := radiusFiles(t, goodConf, c.dictionary)
		r, err := newRadius(cfg)
		if c.problem == "" {
			if err != nil || r.numbers != c.want {
				t.Errorf("%q: %v, %+v; want %+v", c.dictionary, err, r, c.want)
			}
			continue
		}
		if err == nil || !strings.Contains(err.Error(), c.problem) || Check(cfg).Err() == nil {
			t.Errorf("%q: %v, want %s", c.dictionary, err, c.problem)
		}
	}
}

func TestRadiusCheck(t *testing.T) {
	away := filepath.Join(t.TempDir(), "dictionary")
	for _, c := range []struct {
		name string
		edit func(*config.Config)
		want []string
	}{
		{"good", func(*config.Config) {}, []string{"notice: [Radius] additional_dictionary: there is no such file"}}, // the additional dictionary's default
		{"not named", func(c *config.Config) { c.Dispatcher.Accounting = nil; c.Radius.ConfigFile = "/none" }, nil},
		{"no client.conf", func(c *config.Config) { c.Radius.ConfigFile = "/none" }, []string{"/none: error: [Radius] config_file: there is no such file: want the configuration of a RADIUS client"}},
		{"no server", func(c *config.Config) {
			os.WriteFile(c.Radius.ConfigFile, []byte("servers servers\ndictionary dictionary\n"), 0o600)
		}, []string{"client.conf: error: [Radius] config_file: it names no server", "notice"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			cfg := radiusFiles(t, goodConf, goodDictionary)
			cfg.Radius.AdditionalDictionary = away
			c.edit(cfg)
			problems := Check(cfg)
			if len(problems) != len(c.want) {
				t.Fatalf("%v, want %q", problems, c.want)
			}
			for i, p := range problems {
				if !strings.Contains(p.String(), c.want[i]) {
					t.Errorf("%s, want %s", p, c.want[i])
				}
			}
			_, err := Open(cfg.Dispatcher.Accounting, cfg, slog.New(slog.DiscardHandler))
			if (err == nil) != (problems.Err() == nil) {
				t.Errorf("opened with %v, checked with %v", err, problems.Err())
			}
		})
	}
	named, problems := config.Parse("config.ini", []byte("[Dispatcher]\naccounting = radius\n[Radius]\nadditional_dictionary = "+away+"\n"))
	if err := problems.Err(); err != nil {
		t.Fatal(err)
	}
	named.Radius.ConfigFile = radiusFiles(t, goodConf, goodDictionary).Radius.ConfigFile
	if problems := Check(named); len(problems) != 1 || problems[0].Severity != config.Warning {
		t.Errorf("an additional dictionary that somebody named: %v, want a warning", problems)
	}
}

// Whatever a call is called, its record is one that a server can read, with what tells it
// apart.
func FuzzRadiusRecord(f *testing.F) {
	f.Add("c1@example.com", "f", "t", "UA", "G711u", uint64(1000), int64(61), 1700000000.5)
	f.Add(strings.Repeat("ä", 200), strings.Repeat("x", 300), "", "\xff", strings.Repeat("Codec", 60), ^uint64(0), int64(-1), -1e300)
	f.Fuzz(func(t *testing.T, callID, from, to, agent, codec string, bytes uint64, duration int64, start float64) {
		s := report.Session{CallID: callID, FromTag: from, ToTag: &to, CallerUA: agent, CalleeUA: agent, Username: &from, StartTime: &start, Duration: duration, Relay: agent, Reason: report.ReasonTimeout,
			Streams: []report.Stream{{MediaType: codec, CallerCodec: codec, CallerBytes: bytes, EndTime: 1, CallerLocal: agent, PostDialDelay: &start}}}
		n := opensips
		n.delay, n.delayIsText = 237, duration%2 == 0
		size := 20
		for _, a := range n.attributes(&s, time.Unix(1700000061, 0)) {
			size += 2 + len(a.Value)
			if len(a.Value) == 0 || len(a.Value) > radius.MaxValue {
				t.Errorf("attribute %d has %d bytes", a.Type, len(a.Value))
			}
			switch a.Type {
			case radius.UserName, radius.AcctSessionID, n.fromTag, n.toTag, n.codecs, n.info, n.agents, n.applied, radius.NASIdentifier:
				if !utf8.Valid(a.Value) {
					t.Errorf("attribute %d is %q", a.Type, a.Value)
				}
			}
		}
		if size > 4096 {
			t.Errorf("a packet of %d bytes", size)
		}
		if other := callID + "x"; len(callID) > radius.MaxValue && sessionID(other) == sessionID(callID) {
			t.Errorf("%q and %q have one Acct-Session-Id", callID, other)
		}
	})
}
