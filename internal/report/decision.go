package report

// Why is the reason of a decision about a datagram, a leg or a stream. The same
// word stands in explanations, metrics and logs.
type Why string

// Decisions that give a leg its address.
const (
	LearnedSDP     Why = "learned-sdp"       // the address and port of the party's SDP
	LearnedKnownIP Why = "learned-known-ip"  // the IP of the SDP or of the signalling
	LearnedTrusted Why = "learned-trusted"   // a network in trusted_media_ranges
	LearnedNearby  Why = "learned-nearby"    // the same /24 or /56 as a known IP, after consistent packets
	LearnedOther   Why = "learned-elsewhere" // anywhere else, after consistent packets
	LearnedFirst   Why = "learned-first"     // address_learning = first-packet
	MovedSameIP    Why = "moved-same-ip"     // another port of the learned IP, after silence
	MovedKnown     Why = "moved-known"       // an address of better or equal standing, after silence
	MovedStream    Why = "moved-same-stream" // same SSRC and sequence from elsewhere, after silence
	Replaced       Why = "replaced-better"   // a better address than the learned one
)

// Decisions that refuse a datagram.
const (
	IgnoredBeforeSDP    Why = "ignored-before-sdp"
	IgnoredNotAnswered  Why = "ignored-not-answered"
	IgnoredWaiting      Why = "ignored-waiting"      // a known address still has time to appear
	IgnoredCollecting   Why = "ignored-collecting"   // not enough consistent packets yet
	IgnoredInconsistent Why = "ignored-inconsistent" // not RTP or UDPTL in sequence
	IgnoredDirection    Why = "ignored-direction"    // the SDP says this party sends nothing
	IgnoredInUse        Why = "ignored-in-use"       // the learned address is alive
	IgnoredOtherStream  Why = "ignored-other-stream" // the learned one is silent, but this is another stream
	IgnoredMoves        Why = "ignored-too-many-moves"
	IgnoredStrict       Why = "ignored-strict"   // address_learning = strict
	IgnoredUnusable     Why = "ignored-unusable" // multicast, foreign loopback, the relay itself
	IgnoredObsolete     Why = "ignored-obsolete" // the address of before the SDP changed
)

// Events of a stream.
const (
	Offered        Why = "offered"
	Answered       Why = "answered"
	Held           Why = "held"
	Resumed        Why = "resumed"
	ReopenedSDP    Why = "reopened-sdp"
	ReopenedSignal Why = "reopened-signalling"
	ReopenedTag    Why = "reopened-tag"
	NoDestination  Why = "no-destination" // accepted, but the other party has no address yet
	Queued         Why = "queued"         // a connectivity check that waits for a destination
	QueueFull      Why = "queue-full"
	EarlyReuse     Why = "early-port-reuse"
	Unreachable    Why = "unreachable" // an ICMP error came back from where media is sent
	Restored       Why = "restored"
	Ended          Why = "ended"
)

var sentences = map[Why]string{
	LearnedSDP:     "media goes to this address: it is the one in the SDP",
	LearnedKnownIP: "media goes to this address: its IP is known from the SDP or the signalling",
	LearnedTrusted: "media goes to this address: it lies in trusted_media_ranges",
	LearnedNearby:  "media goes to this address: it is in the same network as a known IP and sent consistent media",
	LearnedOther:   "media goes to this address, which neither SDP nor signalling mention: it sent consistent media and nobody better did",
	LearnedFirst:   "media goes to this address: it sent the first datagram (address_learning = first-packet)",
	MovedSameIP:    "media follows the party to another port of the same IP, after silence from the old one",
	MovedKnown:     "media follows the party to another known address, after silence from the old one",
	MovedStream:    "media follows the party to a new network: the same RTP stream went on from there after silence",
	Replaced:       "this address replaces the learned one: it has a better standing",

	IgnoredBeforeSDP:    "dropped: this party has not said in an SDP where it is",
	IgnoredNotAnswered:  "dropped: the call is not answered yet and the address is not known from SDP or signalling",
	IgnoredWaiting:      "dropped for now: the address is not known from SDP or signalling, and a known one may still appear",
	IgnoredCollecting:   "dropped for now: too few consistent packets from this unknown address",
	IgnoredInconsistent: "dropped: neither RTP nor UDPTL in sequence, from an unknown address",
	IgnoredDirection:    "dropped: by its SDP this party sends nothing now",
	IgnoredInUse:        "dropped: the party's learned address is alive",
	IgnoredOtherStream:  "dropped: the learned address is silent, but this is not its RTP stream",
	IgnoredMoves:        "dropped: the party's address moved five times within a minute",
	IgnoredStrict:       "dropped: address_learning = strict admits only addresses known from SDP or signalling",
	IgnoredUnusable:     "dropped: media is never sent to such an address",
	IgnoredObsolete:     "dropped: the address of before the SDP changed",

	Offered:        "offered",
	Answered:       "answered",
	Held:           "put on hold",
	Resumed:        "taken off hold",
	ReopenedSDP:    "the SDP names another address: learning starts anew",
	ReopenedSignal: "the signalling comes from another IP: addresses are ranked anew",
	ReopenedTag:    "another phone answered: learning starts anew",
	NoDestination:  "not relayed: no address is known for the other party",
	Queued:         "kept until an address is known for the other party",
	QueueFull:      "dropped: too many connectivity checks wait for an address of the other party",
	EarlyReuse:     "the port was used by another call less than port_rest_time ago",
	Unreachable:    "nobody listens there: the host or a firewall answers media with an ICMP error",
	Restored:       "taken over by the next process of this relay",
	Ended:          "ended",
}

// Sentence says the decision in words.
func (w Why) Sentence() string {
	if s, ok := sentences[w]; ok {
		return s
	}
	return string(w)
}

// Refused says whether the decision dropped a datagram that may be an attack.
func (w Why) Refused() bool { return len(w) > 8 && w[:8] == "ignored-" }

// Decision is one line of a stream's decision log. Equal decisions that follow
// one another are one line with a count.
type Decision struct {
	At     float64 `json:"at"`              // seconds after the stream was made
	Party  string  `json:"party,omitempty"` // caller, callee
	Path   string  `json:"path,omitempty"`  // RTP, RTCP
	Why    Why     `json:"why"`
	Source string  `json:"source,omitempty"` // ip:port, the latest of the counted ones
	Detail string  `json:"detail,omitempty"`
	Count  uint64  `json:"count,omitempty"` // absent: once
}
