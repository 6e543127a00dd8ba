// Package report holds the documents about sessions and relays that travel
// between relay, dispatcher and operators, and the vocabulary of decisions and
// reasons. It knows no sockets and no clock.
package report

// Session is the statistics document of one session. The first block of
// members is what readers of the original program's documents know; the second
// is only present between programs that speak link/2 and in finished calls.
type Session struct {
	CallID    string   `json:"call_id"`
	FromTag   string   `json:"from_tag"`
	FromURI   string   `json:"from_uri"`
	ToTag     *string  `json:"to_tag"` // null until seen
	ToURI     string   `json:"to_uri"`
	StartTime *float64 `json:"start_time"` // UNIX seconds of the first answer; null: never answered
	Duration  int64    `json:"duration"`   // whole seconds since the first answer
	CallerUA  string   `json:"caller_ua"`
	CalleeUA  string   `json:"callee_ua"`
	Username  *string  `json:"username"`
	Streams   []Stream `json:"streams"` // answered ones only, by start time

	// RecordID names a finished session for ever; empty while it lives.
	RecordID string `json:"record_id,omitempty"`
	// Reason says why a finished session ended: see the Reason constants.
	Reason string `json:"reason,omitempty"`
	// Partial is set by a dispatcher that reports a call for its relay, which is
	// lost. If the relay reports it after all, that document takes its place.
	Partial bool `json:"partial,omitempty"`
	// DialogID is the SIP proxy's name of the dialog, if it tracks one.
	DialogID string `json:"dialog_id,omitempty"`
	// Relay is the name of the relay that carries the call.
	Relay string `json:"relay,omitempty"`
}

// Stream is the statistics document of one media stream.
type Stream struct {
	MediaType     string   `json:"media_type"`
	Status        string   `json:"status"`       // see the Status constants
	TimeoutWait   int64    `json:"timeout_wait"` // seconds; 0 unless timed out
	CallerCodec   string   `json:"caller_codec"`
	CalleeCodec   string   `json:"callee_codec"`
	StartTime     int64    `json:"start_time"` // seconds after the session's start
	EndTime       int64    `json:"end_time"`
	PostDialDelay *float64 `json:"post_dial_delay"` // first media after creation, seconds
	CallerBytes   uint64   `json:"caller_bytes"`    // RTP and RTCP, IP level, received from the caller
	CalleeBytes   uint64   `json:"callee_bytes"`
	CallerPackets uint64   `json:"caller_packets"`
	CalleePackets uint64   `json:"callee_packets"`
	CallerLocal   string   `json:"caller_local"`
	CalleeLocal   string   `json:"callee_local"`
	CallerRemote  string   `json:"caller_remote"` // learned address, or "Unknown"
	CalleeRemote  string   `json:"callee_remote"`

	// Quality is present between programs that speak link/2.
	Caller *Quality `json:"caller_quality,omitempty"`
	Callee *Quality `json:"callee_quality,omitempty"`
}

// Quality is what one party's RTP was like when it reached the relay
// (RFC 3550 sections 6.4.1 and A.8).
type Quality struct {
	Lost     int64   `json:"lost"`      // packets missing from the sequence
	JitterMS float64 `json:"jitter_ms"` // interarrival jitter, milliseconds
	Refused  uint64  `json:"refused"`   // datagrams from addresses that were not learned
	Silent   float64 `json:"silent"`    // seconds since the last packet; -1: never one
	Mover    string  `json:"mover"`     // what carries this direction: tc, user-space, undecided
}

// Unknown stands for a User-Agent, codec or address that was never seen.
const Unknown = "Unknown"

// MoverUndecided stands for a direction that has no flow: each of its datagrams
// is looked at on its own.
const MoverUndecided = "undecided"

// Status values of a stream.
const (
	StatusActive   = "active"
	StatusOnHold   = "on hold"
	StatusRejected = "rejected"
	StatusClosed   = "closed"

	StatusNoTraffic     = "no-traffic timeout"
	StatusIdle          = "conntrack timeout" // the word existing readers know for idle after media
	StatusHoldTimeout   = "on hold timeout"
	StatusUnselectedICE = "unselected ICE candidate"
	StatusOneWay        = "one-way timeout"
)

// Reasons for which a session ends.
const (
	ReasonRemoved    = "removed"        // the SIP proxy said so
	ReasonTimeout    = "timeout"        // every stream timed out
	ReasonUnused     = "unselected ICE" // ICE went around the relay
	ReasonUnanswered = "never answered" // timed out before any answer
	ReasonTerminated = "terminated"     // an operator ended it
	ReasonShutdown   = "relay stopped"  // the relay was told to stop
	// ReasonNotRestored: the relay was restarted and could not take the call over.
	ReasonNotRestored = "not taken over"
	// ReasonRelayLost: its relay was lost and has not reported it.
	ReasonRelayLost = "relay lost"
)

// Relay is the summary document of one relay.
type Relay struct {
	IP           string         `json:"ip"`
	Version      string         `json:"version"`
	Status       string         `json:"status"` // active or halting
	Uptime       int64          `json:"uptime"` // seconds
	SessionCount int            `json:"session_count"`
	StreamCount  map[string]int `json:"stream_count"` // live streams by media type
	BPSRelayed   float64        `json:"bps_relayed"`
	Name         string         `json:"name,omitempty"`     // link/2 only, as are the following
	Capacity     int            `json:"capacity,omitempty"` // sessions with one stream that still fit a fresh relay
	Labels       []string       `json:"labels,omitempty"`
	OneWay       int            `json:"one_way,omitempty"` // streams in which one party is not heard
	Moved
}

// Moved is what carries a relay's media.
type Moved struct {
	Mover         string `json:"mover,omitempty"`          // of established streams: tc or user-space
	NotKernel     string `json:"not_kernel,omitempty"`     // why the kernel moves none of them
	Packets       uint64 `json:"packets,omitempty"`        // relayed since the start
	KernelPackets uint64 `json:"kernel_packets,omitempty"` // of these: moved inside the kernel
}
