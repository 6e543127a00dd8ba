package relaylink

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"unicode/utf8"
)

// RelayHello is a relay's greeting, its first line on link/2.
type RelayHello struct {
	Name     string   `json:"name"`
	Instance string   `json:"instance"` // random, made when the process started
	Version  string   `json:"version"`
	Features []string `json:"features"`
	IP       string   `json:"ip"`  // the first of its addresses
	IPs      []string `json:"ips"` // all it relays on
	Capacity int      `json:"capacity"`
	Labels   []string `json:"labels"`
	Draining bool     `json:"draining"`
	Load     Load     `json:"load"`
}

// DispatcherHello answers it.
type DispatcherHello struct {
	Name     string   `json:"name"`
	Instance string   `json:"instance"`
	Version  string   `json:"version"`
	Features []string `json:"features"`
	// Refused says why the dispatcher closes the link now; empty: it does not.
	Refused string `json:"refused,omitempty"`
}

// FeatureReleased of a dispatcher: it wants to hear of calls that another one took over.
const FeatureReleased = "released"

// Load is how busy a relay is; it rides in hello and in every ping.
type Load struct {
	Sessions  int     `json:"sessions"`
	Streams   int     `json:"streams"`
	BPS       float64 `json:"bps"`
	PortsFree int     `json:"ports_free"`
	// OwnPackets are those that the relay's process moves itself, a second: its
	// processors have to be left to them.
	OwnPackets float64 `json:"own_packets,omitempty"`
	// Draining repeats the flag of the greeting, so that a drain that began or
	// was cancelled later is known; absent means unchanged.
	Draining *bool `json:"draining,omitempty"`
}

// CallList answers list.
type CallList struct {
	Total int    `json:"total"`
	Calls []Call `json:"calls"`
}

// Call is one call of a relay, as list names it.
type Call struct {
	CallID   string `json:"call_id"`
	FromTag  string `json:"from_tag"`
	ToTag    string `json:"to_tag"`
	DialogID string `json:"dialog_id"`
	Owner    string `json:"owner"` // name of the dispatcher that served it last

	// For the record of a call whose relay is lost before it reports it.
	RecordID  string  `json:"record_id,omitempty"`
	StartTime float64 `json:"start_time,omitempty"` // UNIX seconds of the first answer; 0: none yet
	FromURI   string  `json:"from_uri,omitempty"`
	ToURI     string  `json:"to_uri,omitempty"`
	Username  string  `json:"username,omitempty"`
}

// maxName keeps names printable on one line of a log.
const maxName = 255

// ParseRelayHello reads and checks a relay's greeting.
func ParseRelayHello(body []byte) (RelayHello, error) {
	var h RelayHello
	if err := json.Unmarshal(body, &h); err != nil {
		return h, fmt.Errorf("hello of the relay: %w", err)
	}
	if err := checkName("name", h.Name); err != nil {
		return h, err
	}
	return h, checkName("instance", h.Instance)
}

// ParseDispatcherHello reads and checks a dispatcher's greeting.
func ParseDispatcherHello(body []byte) (DispatcherHello, error) {
	var h DispatcherHello
	if err := json.Unmarshal(body, &h); err != nil {
		return h, fmt.Errorf("hello of the dispatcher: %w", err)
	}
	return h, checkName("name", h.Name)
}

func checkName(what, s string) error {
	if s == "" || len(s) > maxName || !utf8.ValidString(s) {
		return fmt.Errorf("hello: %s must have 1 to %d bytes of UTF-8, has %d", what, maxName, len(s))
	}
	for _, r := range s {
		if r < ' ' || r == 0x7f {
			return fmt.Errorf("hello: %s %q has control characters", what, s)
		}
	}
	return nil
}

// Addrs returns the readable addresses of the greeting, each once.
func (h RelayHello) Addrs() []netip.Addr {
	var list []netip.Addr
next:
	for _, s := range append([]string{h.IP}, h.IPs...) {
		a, err := netip.ParseAddr(s)
		if err != nil {
			continue
		}
		a = a.Unmap()
		for _, have := range list {
			if have == a {
				continue next
			}
		}
		list = append(list, a)
	}
	return list
}

// ParseLoad reads the body of a ping on link/2.
func ParseLoad(body []byte) (Load, error) {
	var l Load
	if err := json.Unmarshal(body, &l); err != nil {
		return l, fmt.Errorf("ping of the relay: %w", err)
	}
	return l, nil
}
