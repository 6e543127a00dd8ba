package badinput

import (
	"strings"
	"testing"

	"example.org/mediaproxy/test/internal/site"
)

const unreadable = "request of the SIP proxy cannot be read"

// TestRequests: what a module may never send.
func TestRequests(t *testing.T) {
	t.Parallel()
	s := newStage(t, 1)
	good := site.Message{Kind: "request", CallID: "bad", From: "a", Source: "198.51.100.7", Media: "audio:198.51.100.7:4000:sendrecv:ice=no"}.String()
	with := func(old, new string) string {
		if !strings.Contains(good, old) {
			t.Fatalf("%q is not in the request", old)
		}
		return strings.Replace(good, old, new, 1)
	}
	for _, tt := range []struct {
		name, request, logged string
	}{
		{"unknown command", "dance\r\ncall_id: x\r\n\r\n", "unknown command"},
		{"unknown command for a call that is up", "summary\r\ncall_id: up\r\nfrom_tag: a\r\n\r\n", "unknown command"},
		{"command in capitals", strings.Replace(good, "update", "UPDATE", 1), "unknown command"},
		{"binary", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", "unknown command"},
		{"HTTP", "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", "unknown command"},
		{"no headers", "update\r\n\r\n", "header call_id (offset 0): missing or empty"},
		{"no Call-ID", with("call_id: bad\r\n", ""), "header call_id (offset 0): missing or empty"},
		{"empty Call-ID", with("call_id: bad", "call_id: "), "header call_id (offset 0): missing or empty"},
		{"header name in capitals", with("call_id: bad", "Call_ID: bad"), "header call_id (offset 0): missing or empty"},
		{"no From tag", with("from_tag: a", "from_tag: "), "header from_tag (offset 0): missing or empty"},
		{"no type", with("type: request\r\n", ""), "header type (offset 0): missing or empty"},
		{"neither request nor reply", with("type: request", "type: wish"), "is neither request nor reply"},
		{"no CSeq", with("cseq: 1\r\n", ""), "header cseq (offset 0): missing or empty"},
		{"CSeq in words", with("cseq: 1", "cseq: one"), "is not a number below 2^32"},
		{"negative CSeq", with("cseq: 1", "cseq: -1"), "is not a number below 2^32"},
		{"CSeq too large", with("cseq: 1", "cseq: 4294967296"), "is not a number below 2^32"},
		{"two CSeqs of which the last counts", with("cseq: 1", "cseq: 1\r\ncseq: 2x"), "is not a number below 2^32"},
		{"no space after the colon", with("cseq: 1", "cseq:1"), "line "},
		{"header without colon", with("cseq: 1", "cseq 1"), "line "},
		{"folded header", with("cseq: 1", "user_agent: x\r\n y\r\ncseq: 1"), "white space"},
		{"remove without Call-ID", "remove\r\nfrom_tag: a\r\nto_tag: b\r\n\r\n", "header call_id (offset 0): missing or empty"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			module := s.d.Module()
			s.logs(s.d, func() {
				if got := module.Ask(tt.request); got != "error" {
					t.Errorf("%q: got %q, want error", tt.request, got)
				}
				// The same connection, at once: where the next request begins was clear.
				if _, err := site.Ports(module.Ask(good)); err != nil {
					t.Errorf("the next request on the connection: %v", err)
				}
				if got := module.Ask(site.Remove("bad", "a", "")); got != "removed" {
					t.Errorf("remove on the connection: %q", got)
				}
			}, unreadable, tt.logged)
			s.serves()
		})
	}
}

// TestOddRequests: what looks wrong and is not.
func TestOddRequests(t *testing.T) {
	t.Parallel()
	s := newStage(t, 2)
	good := site.Message{Kind: "request", CallID: "odd", From: "a", Media: "audio:198.51.100.7:4000:sendrecv"}.String()
	for _, tt := range []struct{ name, old, new string }{
		{"bytes that are not UTF-8", "Phone/1.0", "T\xe9l\xe9phone\xff\x80"},
		{"control characters", "Phone/1.0", "a\tb\x00c\x1bd"},
		{"colons in a value", "Phone/1.0", "x: y: z"},
		{"unknown header", "cseq: 1", "shoe_size: 46\r\ncseq: 1"},
		{"line feeds alone", "\r\n", "\n"},
		{"empty lines before", "update\r\n", "\r\n\r\n\r\nupdate\r\n"},
		{"no user agent and no URIs", "from_uri: alice@example.com\r\nto_uri: bob@example.com\r\n", ""},
		{"unreadable signalling address", "signaling_ip: ", "signaling_ip: {\"signaling_ip\": 7"},
		{"very long value", "Phone/1.0", strings.Repeat("x", 16000)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if !strings.Contains(good, tt.old) {
				t.Fatalf("%q is not in the request", tt.old)
			}
			module := s.d.Module()
			n := 1
			if tt.old == "\r\n" {
				n = -1
			}
			if got := module.Ask(strings.Replace(good, tt.old, tt.new, n)); !strings.HasPrefix(got, s.net+"1 ") {
				t.Errorf("got %q, want ports", got)
			}
			if got := module.Ask(site.Remove("odd", "a", "")); got != "removed" {
				t.Errorf("remove: %q", got)
			}
			s.serves()
		})
	}
}

// TestTooLong: where the next request would begin is unknown, so the connection ends.
func TestTooLong(t *testing.T) {
	t.Parallel()
	s := newStage(t, 3)
	for _, tt := range []struct{ name, request string }{
		{"a line", "update\r\nuser_agent: " + strings.Repeat("x", 17000)},
		{"a line without end", strings.Repeat("update", 4000)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			module := s.d.Module()
			s.logs(s.d, func() {
				module.Send(tt.request)
				if got := module.Receive(); got != "error" {
					t.Errorf("got %q, want error", got)
				}
			}, "request of the SIP proxy refused, connection closed", "too long")
			module.WantClosed()
			s.serves()
		})
	}
}

// TestMedia: lists of streams.
func TestMedia(t *testing.T) {
	t.Parallel()
	s := newStage(t, 4)
	const stream = "audio:198.51.100.7:4000:sendrecv:ice=no"
	many := strings.TrimSuffix(strings.Repeat(stream+",", 65), ",")
	for _, tt := range []struct{ name, media, logged string }{
		{"words", "garbage", "is not a direction"},
		{"no direction", "audio:198.51.100.7:4000", "is not a direction"},
		{"unknown direction", "audio:198.51.100.7:4000:sideways", "is not a direction"},
		{"port in words", "audio:198.51.100.7:http:sendrecv", "is not a port"},
		{"port too large", "audio:198.51.100.7:65536:sendrecv", "is not a port"},
		{"negative port", "audio:198.51.100.7:-4:sendrecv", "is not a port"},
		{"no port", "audio:198.51.100.7:sendrecv", "is not a port"},
		{"no address", "audio:4000:sendrecv", "is not an IP address"},
		{"bad address", "audio:198.51.100.256:4000:sendrecv", "is not an IP address"},
		{"host name", "audio:phone.example.com:4000:sendrecv", "is not an IP address"},
		{"address with a zone", "audio:fe80::1%eth0:4000:sendrecv", "is not an IP address"},
		{"no type", ":198.51.100.7:4000:sendrecv", "stream has no media type"},
		{"the second of two", stream + ",video:198.51.100.7:x:sendrecv", "header media (offset 40)"},
		{"too many", many, "more than"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			module := s.d.Module()
			m := site.Message{Kind: "request", CallID: "bad", From: "a", Media: tt.media}
			s.logs(s.d, func() {
				if got := module.Ask(m.String()); got != "error" {
					t.Errorf("got %q, want error", got)
				}
			}, unreadable, "header media (offset ", tt.logged)
			if got := module.Ask(site.Remove("bad", "a", "")); got != "error" {
				t.Errorf("something of it was set up: remove got %q", got)
			}
			s.serves()
		})
	}
	t.Run("an answer that does not fit its offer", func(t *testing.T) {
		module := s.d.Module()
		m := site.Message{Kind: "request", CallID: "unfit", From: "a", Media: stream}
		module.Update(m)
		m.Kind, m.To, m.Media = "reply", "b", strings.Replace(stream, "audio", "video", 1)
		s.logs(s.d, func() {
			if got := module.Ask(m.String()); got != "error" {
				t.Errorf("got %q, want error", got)
			}
		}, "answered error", "call_id=unfit", "stream 1 is audio, its answer video")
		if got := module.Ask(site.Remove("unfit", "a", "b")); got != "removed" {
			t.Errorf("remove: %q", got)
		}
		s.serves()
	})
}

// TestOperators: the management port.
func TestOperators(t *testing.T) {
	t.Parallel()
	s := newStage(t, 5)
	for _, tt := range []struct{ command, want string }{
		{"nonsense", "error"},
		{"", "error"},
		{"summary please", "error"},
		{"\x00\x01\x02", "error"},
		{"session", "error session needs one Call-ID, got 0 words"},
		{"session nobody", "error no relay has a call with this Call-ID"},
		{"explain nobody", "error no relay has a call with this Call-ID"},
		{"terminate nobody", "error no relay has a call with this Call-ID"},
		{"drain", "error drain needs a relay and, to take it back, the word cancel"},
		{"drain r9", "error no connected relay has this name or address"},
		{"sessions order=shoe", "error order=shoe: not one of "},
		{"sessions limit=-1", "error limit=-1: not a number above 0"},
		{"sessions colour=red", `error no filter "colour"`},
	} {
		t.Run(tt.command, func(t *testing.T) {
			got := s.d.Manage(s.net+"9", tt.command)
			if got != tt.want && !(strings.Contains(tt.want, " ") && strings.HasPrefix(got, tt.want)) {
				t.Errorf("got %q, want %q", got, tt.want)
			}
			s.serves()
		})
	}
	t.Run("a line without end", func(t *testing.T) {
		l := site.Dial(t, "tcp", s.net+"9:25061")
		l.Send(strings.Repeat("sessions ", 1000))
		l.WantClosed()
		s.serves()
	})
	t.Run("ctl explains itself", func(t *testing.T) {
		got, code := s.d.Ctl("session", "nobody")
		if code != 3 || !strings.Contains(got, "nobody") {
			t.Errorf("got code %d and %q, want 3 and a line about the call", code, got)
		}
		got, code = s.d.Ctl("sesions")
		if code != 2 || !strings.Contains(got, "sesions") {
			t.Errorf("got code %d and %q, want 2 and a line about the word", code, got)
		}
	})
}
