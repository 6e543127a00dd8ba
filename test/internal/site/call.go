package site

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"example.org/mediaproxy/internal/wire/control"
)

// Message is one update as a module sends it.
type Message struct {
	Kind     string // request or reply
	CallID   string
	From, To string // tags
	CSeq     int
	Dialog   string
	Source   string // signaling_ip
	Relay    string // media_relay
	Media    string
}

// String is the request, with the headers in the order of the modules.
func (m Message) String() string {
	lines := []string{"update", "type: " + m.Kind, "dialog_id: " + m.Dialog, "call_id: " + m.CallID, fmt.Sprintf("cseq: %d", max(m.CSeq, 1)),
		"from_uri: alice@example.com", "to_uri: bob@example.com", "from_tag: " + m.From, "to_tag: " + m.To, "user_agent: Phone/1.0",
		"signaling_ip: " + m.Source, "media_relay: " + m.Relay}
	if m.Media != "" {
		lines = append(lines, "media: "+m.Media)
	}
	return strings.Join(lines, "\r\n") + "\r\n\r\n"
}

// Remove is the request that ends a call.
func Remove(callID, from, to string) string {
	return fmt.Sprintf("remove\r\ncall_id: %s\r\nfrom_tag: %s\r\nto_tag: %s\r\n\r\n", callID, from, to)
}

// Audio is the media header for one audio stream.
func Audio(a netip.AddrPort) string {
	return fmt.Sprintf("audio:%s:%d:sendrecv:ice=no", a.Addr(), a.Port())
}

// Update sends a message and returns where its streams' media is to go.
func (l *Line) Update(m Message) []netip.AddrPort {
	l.t.Helper()
	line := l.Ask(m.String())
	ports, err := Ports(line)
	if err != nil {
		l.t.Fatalf("%s of %s: got %q: %v", m.Kind, m.CallID, line, err)
	}
	return ports
}

// Ports reads an answer to update.
func Ports(line string) ([]netip.AddrPort, error) {
	answer, err := control.ParseAnswer([]byte(line))
	if err != nil {
		return nil, err
	}
	ports := make([]netip.AddrPort, len(answer.Ports))
	for i, p := range answer.Ports {
		ports[i] = netip.AddrPortFrom(answer.IP, p)
	}
	return ports, nil
}

// Exchange sends a payload from one phone to where it was told, and has it arrive at
// the other from the port that this one sends to.
func Exchange(t testing.TB, from *Phone, fromTo netip.AddrPort, to *Phone, toTo netip.AddrPort, payload []byte) {
	t.Helper()
	from.Send(fromTo, payload)
	if source := to.Await(payload); source != toTo {
		t.Fatalf("phone %v heard %v, want the port it sends to, %v", to.Addr, source, toTo)
	}
}
