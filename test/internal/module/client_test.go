package module

import (
	"net/netip"
	"strings"
	"testing"

	"example.org/mediaproxy/internal/wire/control"
)

func TestAppendUpdate(t *testing.T) {
	u := control.Update{
		Kind: control.KindRequest, DialogID: "13116830126763", CallID: "3c26@192.0.2.10", CSeq: 1, FromURI: "alice@example.com", ToURI: "bob@example.com",
		FromTag: "k2u5x", UserAgent: "Phone/1.0", Signaling: control.Signaling{IP: netip.MustParseAddr("198.51.100.7")}, HasMedia: true,
		Media: []control.Media{
			{Type: "audio", Addr: netip.MustParseAddr("192.168.1.5"), Port: 4000, Direction: "sendrecv"},
			{Type: "video", Addr: netip.MustParseAddr("2001:db8::5"), Port: 4002, Direction: "sendonly", ICE: true},
		},
	}
	want := strings.Join([]string{"update", "type: request", "dialog_id: 13116830126763", "call_id: 3c26@192.0.2.10", "cseq: 1",
		"from_uri: alice@example.com", "to_uri: bob@example.com", "from_tag: k2u5x", "to_tag: ", "user_agent: Phone/1.0", "signaling_ip: 198.51.100.7", "media_relay: ",
		"media: audio:192.168.1.5:4000:sendrecv:ice=no,video:2001:db8::5:4002:sendonly:ice=yes", "", ""}, "\r\n")
	if got := string(AppendUpdate(nil, u)); got != want {
		t.Errorf("got %q\nwant %q", got, want)
	}
	req, n, err := control.Parse([]byte(want), control.MaxLine)
	if err != nil || n != len(want) {
		t.Fatalf("the parser took %d of %d bytes: %v", n, len(want), err)
	}
	if read, err := control.DecodeUpdate(req.Headers); err != nil || read.CallID != u.CallID || len(read.Media) != 2 || read.ToTag != "" {
		t.Errorf("the parser read %+v, %v", read, err)
	}
}

func TestAppendRemove(t *testing.T) {
	want := "remove\r\ncall_id: c\r\nfrom_tag: f\r\nto_tag: \r\n\r\n"
	if got := string(AppendRemove(nil, control.Remove{CallID: "c", FromTag: "f"})); got != want {
		t.Errorf("got %q\nwant %q", got, want)
	}
}
