package bench

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"example.org/mediaproxy/internal/report"
	"example.org/mediaproxy/internal/wire/control"
	"example.org/mediaproxy/internal/wire/relaylink"
)

// call is the number of a call. All that is said about it follows from it.
type call uint64

// mixed spreads numbers over 64 bits (the last step of SplitMix64), so that names look
// like those that phones draw.
func (c call) mixed() uint64 {
	x := (uint64(c) + 1) * 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

func (c call) id() string      { return fmt.Sprintf("%016x-%d@192.0.2.10", c.mixed(), uint64(c)) }
func (c call) fromTag() string { return fmt.Sprintf("f%015x", c.mixed()>>4) }
func (c call) toTag() string   { return fmt.Sprintf("t%015x", c.mixed()<<8>>4) }
func (c call) caller() string  { return fmt.Sprintf("sip:user%06d@example.com", c%1_000_000) }
func (c call) callee() string  { return fmt.Sprintf("sip:user%06d@example.net", c.mixed()%1_000_000) }

// dialogID is in the form of Kamailio.
func (c call) dialogID() string { return fmt.Sprintf("%d:%d", c%4096, c.mixed()&0x7fffffff) }

// parseCall reads the number out of a Call-ID.
func parseCall(id string) (call, error) {
	_, rest, _ := strings.Cut(id, "-")
	number, _, _ := strings.Cut(rest, "@")
	n, err := strconv.ParseUint(number, 10, 64)
	if err != nil || call(n).id() != id {
		return 0, fmt.Errorf("call_id %.60q is none of this run", id)
	}
	return call(n), nil
}

// expires says whether this is one of the percent that end by their relay's report.
func (c call) expires(percent int) bool { return c.mixed()>>16%100 < uint64(percent) }

// offer is the update for an INVITE, answer that for its 200.
func (c call) offer() control.Request {
	return c.update("request", "", "ExamplePhone 2.4.1", "audio:192.168.1.5:4000:sendrecv:ice=no")
}

func (c call) answer() control.Request {
	return c.update("reply", c.toTag(), "OtherPhone 11.0", "audio:198.51.100.7:16384:sendrecv:ice=no")
}

func (c call) update(kind, toTag, agent, media string) control.Request {
	return control.Request{Command: control.CommandUpdate, Headers: []control.Header{
		{Name: "type", Value: kind},
		{Name: "dialog_id", Value: c.dialogID()},
		{Name: "call_id", Value: c.id()},
		{Name: "cseq", Value: "1"},
		{Name: "from_uri", Value: c.caller()},
		{Name: "to_uri", Value: c.callee()},
		{Name: "from_tag", Value: c.fromTag()},
		{Name: "to_tag", Value: toTag},
		{Name: "user_agent", Value: agent},
		{Name: "signaling_ip", Value: "198.51.100.7"},
		{Name: "media_relay", Value: ""},
		{Name: "media", Value: media},
	}}
}

func (c call) remove() control.Request {
	return control.Request{Command: control.CommandRemove, Headers: []control.Header{
		{Name: "call_id", Value: c.id()}, {Name: "from_tag", Value: c.fromTag()}, {Name: "to_tag", Value: c.toTag()},
	}}
}

// listed is the call as its relay lists it.
func (c call) listed(owner, record string, now time.Time) relaylink.Call {
	return relaylink.Call{CallID: c.id(), FromTag: c.fromTag(), ToTag: c.toTag(), DialogID: c.dialogID(), Owner: owner,
		RecordID: record, StartTime: float64(now.Unix() - seconds), FromURI: c.caller(), ToURI: c.callee()}
}

// seconds is how old every call is said to be.
const seconds = 120

// document is what its relay knows of it.
func (c call) document(ip string, now time.Time) report.Session {
	start := float64(now.Unix() - seconds)
	delay := 1.25
	toTag := c.toTag()
	return report.Session{
		CallID: c.id(), FromTag: c.fromTag(), FromURI: c.caller(), ToTag: &toTag, ToURI: c.callee(), DialogID: c.dialogID(),
		StartTime: &start, Duration: seconds, CallerUA: "ExamplePhone 2.4.1", CalleeUA: "OtherPhone 11.0",
		Streams: []report.Stream{{
			MediaType: "audio", Status: report.StatusActive, CallerCodec: "PCMA", CalleeCodec: "PCMA", EndTime: seconds, PostDialDelay: &delay,
			CallerBytes: 200 * 50 * seconds, CalleeBytes: 200 * 50 * seconds, CallerPackets: 50 * seconds, CalleePackets: 50 * seconds,
			CallerLocal: ip + ":50000", CalleeLocal: ip + ":50002", CallerRemote: "198.51.100.7:4000", CalleeRemote: "198.51.100.7:16384",
			Caller: &report.Quality{JitterMS: 1.5, Mover: "tc"}, Callee: &report.Quality{JitterMS: 2.25, Mover: "tc"},
		}},
	}
}
