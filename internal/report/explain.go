package report

import (
	"fmt"
	"time"
)

// Explanation is the answer to "what happened to this call?".
type Explanation struct {
	Session  Session             `json:"session"`
	Streams  []StreamExplanation `json:"explained_streams"`
	Findings []Finding           `json:"findings"`
}

// StreamExplanation is one stream's state and history.
type StreamExplanation struct {
	MediaType string     `json:"media_type"`
	Status    string     `json:"status"`
	Created   float64    `json:"created"` // UNIX seconds
	Age       float64    `json:"age"`     // seconds
	Answered  bool       `json:"answered"`
	Legs      []Leg      `json:"legs"`
	Decisions []Decision `json:"decisions"`
	Forgotten uint64     `json:"forgotten,omitempty"` // decisions that no longer fit the log
}

// Leg is one party's side of one path.
type Leg struct {
	Party       string  `json:"party"` // caller, callee
	Path        string  `json:"path"`  // RTP, RTCP
	Local       string  `json:"local"`
	SDP         string  `json:"sdp,omitempty"`
	SDPRoutable bool    `json:"sdp_routable"` // media may be sent to the SDP address unheard
	Signalling  string  `json:"signalling,omitempty"`
	Direction   string  `json:"direction,omitempty"`
	Learned     string  `json:"learned,omitempty"`
	Rank        int     `json:"rank,omitempty"` // 1..4, of the learned address
	SendsTo     string  `json:"sends_to,omitempty"`
	Unreachable bool    `json:"unreachable,omitempty"` // an ICMP error came back from there
	Packets     uint64  `json:"packets"`
	Bytes       uint64  `json:"bytes"`
	Unsent      uint64  `json:"unsent"`
	Refused     uint64  `json:"refused"`
	LastMedia   float64 `json:"last_media"` // seconds ago, -1: never
	Mover       string  `json:"mover"`
	NotKernel   string  `json:"not_kernel,omitempty"` // why the kernel does not move a decided direction
	Lost        int64   `json:"lost"`
	JitterMS    float64 `json:"jitter_ms"`
}

// Finding is a likely fault with its cause and what to look at.
type Finding struct {
	What  string `json:"what"`
	Cause string `json:"cause"`
	Check string `json:"check"`
}

// silentAfter is when a direction that had media counts as silent. Phones with
// silence suppression still send comfort noise more often.
const silentAfter = 10.0

// Diagnose finds what a listener would call one-way or no audio.
func Diagnose(streams []StreamExplanation) []Finding {
	findings := []Finding{}
	for _, s := range streams {
		if s.Status == StatusRejected || s.Status == StatusOnHold || !s.Answered {
			continue
		}
		caller, callee := s.leg("caller", "RTP"), s.leg("callee", "RTP")
		if caller == nil || callee == nil {
			continue
		}
		silentCaller, silentCallee := caller.silent(), callee.silent()
		if silentCaller && silentCallee {
			findings = append(findings, Finding{
				What:  fmt.Sprintf("no %s in either direction", s.MediaType),
				Cause: fmt.Sprintf("nothing usable reaches the relay, neither from the caller (%s) nor from the callee (%s)", caller.heard(), callee.heard()),
				Check: fmt.Sprintf("whether UDP to %s and %s passes the firewalls, and whether the SIP proxy really put these addresses into the SDP", caller.Local, callee.Local),
			})
			continue
		}
		for _, d := range []struct{ from, to *Leg }{{caller, callee}, {callee, caller}} {
			if f, ok := direction(s.MediaType, d.from, d.to); ok {
				findings = append(findings, f)
			}
		}
	}
	return findings
}

// direction examines what flows from one party to the other.
func direction(mediaType string, from, to *Leg) (Finding, bool) {
	what := fmt.Sprintf("one-way %s: the %s does not hear the %s", mediaType, to.Party, from.Party)
	switch {
	case from.silent() && !from.maySend():
		return Finding{}, false // it said so in its SDP
	case from.silent() && from.Refused > 0:
		return Finding{what,
			fmt.Sprintf("%d datagrams arrived at the %s's port %s but none was admitted as the %s's", from.Refused, from.Party, from.Local, from.Party),
			"the decisions above for the reason and the source; if the address is the party's trunk or gateway, add its network to trusted_media_ranges; if the phone is behind a NAT, whether the SIP proxy passes its public address as signalling address",
		}, true
	case from.silent():
		return Finding{what,
			fmt.Sprintf("nothing reaches the relay from the %s at %s (%s)", from.Party, from.Local, from.heard()),
			fmt.Sprintf("the %s's firewall or NAT for UDP to %s, and whether the SDP it received named this address", from.Party, from.Local),
		}, true
	case to.SendsTo == "":
		return Finding{what,
			fmt.Sprintf("the %s sends, but no address is known for the %s: it has sent nothing yet and its SDP address %s is not routable from the relay", from.Party, to.Party, orNone(to.SDP)),
			fmt.Sprintf("whether the %s sends media at all; if its SDP address can be reached from the relay, add its network to routable_private_ranges", to.Party),
		}, true
	case to.Unreachable:
		return Finding{what,
			fmt.Sprintf("media goes to %s, and an ICMP error comes back: nobody listens there", to.SendsTo),
			fmt.Sprintf("whether the %s still has the call, and whether a firewall before it rejects UDP; a phone that moved must send first to %s", to.Party, to.Local),
		}, true
	case to.Learned == "" && to.silent():
		return Finding{what,
			fmt.Sprintf("media goes to the SDP address %s of the %s, from where nothing ever came", to.SendsTo, to.Party),
			fmt.Sprintf("whether that address is right and reachable; a phone behind a NAT must send first to %s", to.Local),
		}, true
	}
	return Finding{}, false
}

func orNone(s string) string {
	if s == "" {
		return "(none)"
	}
	return s
}

func (s *StreamExplanation) leg(party, path string) *Leg {
	for i := range s.Legs {
		if s.Legs[i].Party == party && s.Legs[i].Path == path {
			return &s.Legs[i]
		}
	}
	return nil
}

func (l *Leg) silent() bool { return l.LastMedia < 0 || l.LastMedia > silentAfter }
func (l *Leg) maySend() bool {
	return l.Direction == "" || l.Direction == "sendrecv" || l.Direction == "sendonly"
}

func (l *Leg) heard() string {
	if l.LastMedia < 0 {
		return "never heard"
	}
	return fmt.Sprintf("last heard %.0f s ago", l.LastMedia)
}

// Sentences tells the explanation to a human, a line each.
func (e Explanation) Sentences() []string {
	s := e.Session
	lines := []string{fmt.Sprintf("Call %s from %s to %s, %s", s.CallID, s.FromURI, s.ToURI, state(s))}
	for i, stream := range e.Streams {
		lines = append(lines, fmt.Sprintf("Stream %d: %s, %s, made %s (%.1f s ago)", i+1, stream.MediaType, stream.Status,
			time.UnixMilli(int64(stream.Created*1000)).UTC().Format(time.RFC3339), stream.Age))
		for _, l := range stream.Legs {
			lines = append(lines, "  "+l.sentence())
		}
		if len(stream.Decisions) > 0 {
			lines = append(lines, "  What was decided:")
		}
		for _, d := range stream.Decisions {
			lines = append(lines, "    "+d.sentence())
		}
		if stream.Forgotten > 0 {
			lines = append(lines, fmt.Sprintf("    (%d more decisions are forgotten)", stream.Forgotten))
		}
	}
	if len(e.Findings) == 0 {
		return append(lines, "Nothing wrong found.")
	}
	for _, f := range e.Findings {
		lines = append(lines, "Found: "+f.What, "  cause: "+f.Cause, "  check: "+f.Check)
	}
	return lines
}

func state(s Session) string {
	switch {
	case s.Reason != "":
		return "ended: " + s.Reason
	case s.StartTime == nil:
		return "not answered"
	default:
		return fmt.Sprintf("answered %d s ago", s.Duration)
	}
}

func (l *Leg) sentence() string {
	text := fmt.Sprintf("%s %s at %s:", l.Party, l.Path, l.Local)
	switch {
	case l.Learned != "":
		text += fmt.Sprintf(" sends from %s (rank %d)", l.Learned, l.Rank)
	case l.SendsTo != "":
		text += fmt.Sprintf(" not heard yet, media for it goes to %s", l.SendsTo)
	default:
		text += fmt.Sprintf(" not heard yet, SDP address %s", orNone(l.SDP))
	}
	text += fmt.Sprintf("; %d packets, %d refused, %d not relayed, %s", l.Packets, l.Refused, l.Unsent, l.heard())
	if l.Packets > 0 && l.Path == "RTP" {
		text += fmt.Sprintf("; %d lost, jitter %.1f ms", l.Lost, l.JitterMS)
	}
	switch {
	case l.Mover == MoverUndecided:
		return text + "; not decided yet"
	case l.NotKernel != "":
		return text + "; moved by " + l.Mover + ": " + l.NotKernel
	}
	return text + "; moved by " + l.Mover
}

func (d Decision) sentence() string {
	text := fmt.Sprintf("%8.3f s", d.At)
	if d.Party != "" {
		text += " " + d.Party
	}
	if d.Path != "" {
		text += " " + d.Path
	}
	if d.Source != "" {
		text += " " + d.Source
	}
	text += ": " + d.Why.Sentence()
	if d.Detail != "" {
		text += " (" + d.Detail + ")"
	}
	if d.Count > 1 {
		text += fmt.Sprintf(", %d times", d.Count)
	}
	return text
}
