package control

import "net/netip"

// Kind says whether an update was caused by a SIP request or a SIP reply.
type Kind uint8

const (
	KindRequest Kind = iota + 1
	KindReply
)

// Update is the decoded form of an `update` command: one SIP message with the
// streams of its SDP. Strings hold bytes as they came; they need not be UTF-8.
type Update struct {
	Kind       Kind
	CallID     string
	FromTag    string
	ToTag      string // empty: none, and for every answer below 200
	FromURI    string
	ToURI      string
	UserAgent  string
	CSeq       uint32
	DialogID   string // as the SIP proxy's module printed it, empty without dialog
	Signaling  Signaling
	MediaRelay string // preferred relay, name or address; empty: none
	RecordID   string // of the report that a call made by this update will get; only between programs that speak link/2

	// HasMedia is false when the SIP message had no SDP (or an unreadable
	// one). Media may be empty only then.
	HasMedia bool
	Media    []Media
}

// Signaling is the decoded `signaling_ip` header. Zero values: not given.
type Signaling struct {
	IP            netip.Addr // who sent the SIP message
	DestinationIP netip.Addr // where the request goes next, if the script said so
	Username      string     // for accounting
}

// Media is one stream of an SDP as the module describes it.
type Media struct {
	Type      string     // first word of the m= line: audio, video, image, ...
	Addr      netip.Addr // effective connection address, may be unspecified
	Port      uint16     // 0: stream refused or removed
	Direction string     // sendrecv, sendonly, recvonly, inactive; spelled as in the SDP
	ICE       bool
}

// Remove is the decoded form of a `remove` command.
type Remove struct {
	CallID  string
	FromTag string
	ToTag   string
}
