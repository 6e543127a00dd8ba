package report

import (
	"strings"
	"testing"
)

func leg(party string, change func(*Leg)) Leg {
	l := Leg{Party: party, Path: "RTP", Local: "203.0.113.9:40000", SDP: "192.168.1.5:4000", Direction: "sendrecv", Learned: "198.51.100.7:9000", Rank: 2,
		SendsTo: "198.51.100.7:9000", Packets: 500, LastMedia: 0.02, Mover: "user-space"}
	if change != nil {
		change(&l)
	}
	return l
}

func never(l *Leg) { l.Learned, l.Rank, l.SendsTo, l.Packets, l.LastMedia = "", 0, "", 0, -1 }

func TestDiagnose(t *testing.T) {
	for _, c := range []struct {
		name           string
		caller, callee Leg
		status         string
		want           string // part of what, cause and check, in this order; empty: nothing found
	}{
		{"healthy", leg("caller", nil), leg("callee", nil), StatusActive, ""},
		{"on hold", leg("caller", never), leg("callee", never), StatusOnHold, ""},
		{"nobody is heard", leg("caller", never), leg("callee", never), StatusActive, "no audio in either direction|nothing usable reaches the relay|firewalls"},
		{"a callee that is never heard", leg("caller", nil), leg("callee", never), StatusActive, "the caller does not hear the callee|nothing reaches the relay from the callee|firewall or NAT"},
		{"a callee behind a NAT that never sends", leg("caller", nil), leg("callee", func(l *Leg) { never(l); l.Direction = "recvonly" }), StatusActive,
			"the callee does not hear the caller|its SDP address 192.168.1.5:4000 is not routable|routable_private_ranges"},
		{"a caller that is refused", leg("caller", func(l *Leg) { never(l); l.Refused = 77 }), leg("callee", nil), StatusActive,
			"the callee does not hear the caller|77 datagrams arrived|trusted_media_ranges"},
		{"a caller that stopped", leg("caller", func(l *Leg) { l.LastMedia = 42 }), leg("callee", nil), StatusActive, "the callee does not hear the caller|last heard 42 s ago|"},
		{"media to a closed port", leg("caller", nil), leg("callee", func(l *Leg) { l.Unreachable = true }), StatusActive,
			"the callee does not hear the caller|an ICMP error comes back|whether the callee still has the call"},
		{"media into the void", leg("caller", nil), leg("callee", func(l *Leg) { never(l); l.SendsTo = l.SDP; l.Direction = "recvonly" }), StatusActive,
			"the callee does not hear the caller|from where nothing ever came|must send first"},
	} {
		t.Run(c.name, func(t *testing.T) {
			e := Explanation{Session: Session{CallID: "c"}, Streams: []StreamExplanation{{MediaType: "audio", Status: c.status, Answered: true, Legs: []Leg{c.caller, c.callee}}}}
			e.Findings = Diagnose(e.Streams)
			text := strings.Join(e.Sentences(), "\n")
			if c.want == "" {
				if len(e.Findings) != 0 || !strings.Contains(text, "Nothing wrong found.") {
					t.Errorf("found %+v", e.Findings)
				}
				return
			}
			want := strings.Split(c.want, "|")
			found := false
			for _, f := range e.Findings {
				found = found || strings.Contains(f.What, want[0]) && strings.Contains(f.Cause, want[1]) && strings.Contains(f.Check, want[2])
				if !strings.Contains(text, f.Cause) {
					t.Error("the sentences leave the cause out")
				}
			}
			if !found {
				t.Errorf("got %+v\nwant %s", e.Findings, c.want)
			}
		})
	}
}

func TestLegsSayWhatMovesThem(t *testing.T) {
	for _, c := range []struct{ mover, notKernel, want string }{
		{"tc", "", "; moved by tc"},
		{"user-space", "a party is on this host", "; moved by user-space: a party is on this host"},
		{"user-space", "", "; moved by user-space"},
		{MoverUndecided, "", "; not decided yet"},
	} {
		l := leg("caller", func(l *Leg) { l.Mover, l.NotKernel = c.mover, c.notKernel })
		text := strings.Join(Explanation{Streams: []StreamExplanation{{Legs: []Leg{l}}}}.Sentences(), "\n")
		if !strings.Contains(text, c.want+"\n") {
			t.Errorf("%q is not in\n%s", c.want, text)
		}
	}
}

func TestDecisionsHaveSentences(t *testing.T) {
	for why, sentence := range sentences {
		if sentence == "" || why.Sentence() != sentence {
			t.Errorf("%s: %q", why, why.Sentence())
		}
		if why.Refused() != strings.HasPrefix(string(why), "ignored-") {
			t.Errorf("%s: refused %v", why, why.Refused())
		}
	}
	e := Explanation{Session: Session{CallID: "c"}, Streams: []StreamExplanation{{MediaType: "audio", Status: StatusActive,
		Decisions: []Decision{{At: 1.25, Party: "caller", Path: "RTP", Why: IgnoredInUse, Source: "192.0.2.66:6000", Count: 40}}}}}
	text := strings.Join(e.Sentences(), "\n")
	for _, want := range []string{"1.250 s caller RTP 192.0.2.66:6000: dropped: the party's learned address is alive, 40 times", "not answered"} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is not in\n%s", want, text)
		}
	}
}
