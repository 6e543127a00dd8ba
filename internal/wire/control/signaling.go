package control

import (
	"encoding/json"
	"net/netip"
	"strings"
)

// ParseSignaling reads the value of a signaling_ip header, which has three
// forms: an address; two addresses with an underscore between, the caller's and
// the next hop's; or a JSON object with signaling_ip, destination_ip and
// username. What cannot be read stays zero: the addresses are hints.
func ParseSignaling(s string) Signaling {
	if strings.HasPrefix(strings.TrimLeft(s, " \t"), "{") {
		var members map[string]json.RawMessage
		if json.Unmarshal([]byte(s), &members) == nil {
			return Signaling{
				IP:            looseAddr(member(members, "signaling_ip")),
				DestinationIP: looseAddr(member(members, "destination_ip")),
				Username:      member(members, "username"),
			}
		}
	}
	if caller, next, ok := strings.Cut(s, "_"); ok && !strings.Contains(next, "_") {
		return Signaling{IP: looseAddr(caller), DestinationIP: looseAddr(next)}
	}
	return Signaling{IP: looseAddr(s)}
}

func member(m map[string]json.RawMessage, name string) string {
	var s string
	if json.Unmarshal(m[name], &s) != nil {
		return ""
	}
	return s
}

func looseAddr(s string) netip.Addr {
	a, _ := parseAddr(strings.TrimSpace(s))
	return a
}

// String writes the shortest of the three forms that says everything.
func (s Signaling) String() string {
	switch {
	case s.Username == "" && !s.DestinationIP.IsValid():
		return addrText(s.IP)
	case s.Username == "" && s.IP.IsValid():
		return addrText(s.IP) + "_" + addrText(s.DestinationIP)
	}
	doc := struct {
		IP       string `json:"signaling_ip,omitempty"`
		Next     string `json:"destination_ip,omitempty"`
		Username string `json:"username,omitempty"`
	}{addrText(s.IP), addrText(s.DestinationIP), s.Username}
	b, err := json.Marshal(doc)
	if err != nil {
		panic("control: strings do not marshal: " + err.Error())
	}
	return string(b)
}

func addrText(a netip.Addr) string {
	if !a.IsValid() {
		return ""
	}
	return a.String()
}
