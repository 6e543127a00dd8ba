package interop

import (
	"fmt"
	"strings"
	"testing"
)

// flows are calls as Kamailio's module puts them, one line for each request:
//
//	what  CSeq  from>to  media                                  the relay's ports
//
// What is `request`, or the status of the answer: answers below 200 have no To tag
// here. The tags say who sent the request: a is the caller, b the callee. C and D stand
// for the addresses of the two. A relay whose ports are all free has the caller's at
// 16000, the callee's at 16002, those of a second stream at 16004 and 16006.
var flows = []struct{ name, steps string }{
	{"audio", `
		request 1 a>-  audio:C:17900:sendrecv:ice=no     16002
		200     1 a>b  audio:D:17910:sendrecv:ice=no     16000`},
	{"audio and video", `
		request 1 a>-  audio:C:17900:sendrecv:ice=no,video:C:17902:sendrecv:ice=no   16002 16006
		200     1 a>b  audio:D:17910:sendrecv:ice=no,video:D:17912:sendrecv:ice=no   16000 16004`},
	{"video added", `
		request 1 a>-  audio:C:17900:sendrecv:ice=no     16002
		200     1 a>b  audio:D:17910:sendrecv:ice=no     16000
		request 2 a>b  audio:C:17900:sendrecv:ice=no,video:C:17902:sendrecv:ice=no   16002 16006
		200     2 a>b  audio:D:17910:sendrecv:ice=no,video:D:17912:sendrecv:ice=no   16000 16004`},
	{"video rejected", `
		request 1 a>-  audio:C:17900:sendrecv:ice=no,video:C:17902:sendrecv:ice=no   16002 16006
		200     1 a>b  audio:D:17910:sendrecv:ice=no,video:D:0:sendrecv:ice=no       16000 0`},
	{"early media", `
		request 1 a>-  audio:C:17900:sendrecv:ice=no     16002
		183     1 a>-  audio:D:17910:sendrecv:ice=no     16000
		200     1 a>b  audio:D:17910:sendrecv:ice=no     16000`},
	{"answer without SDP after early media", `
		request 1 a>-  audio:C:17900:sendrecv:ice=no     16002
		183     1 a>-  audio:D:17910:sendrecv:ice=no     16000
		200     1 a>b  -                                 16000`},
	{"fork, another callee answers", `
		request 1 a>-  audio:C:17900:sendrecv:ice=no     16002
		183     1 a>-  audio:D:17920:sendrecv:ice=no     16000
		200     1 a>b  audio:D:17910:sendrecv:ice=no     16000`},
	{"late offer", `
		200     1 a>b  audio:D:17910:sendrecv:ice=no     16000
		request 1 a>b  audio:C:17900:sendrecv:ice=no     16002`},
	{"hold by direction", `
		request 1 a>-  audio:C:17900:sendrecv:ice=no     16002
		200     1 a>b  audio:D:17910:sendrecv:ice=no     16000
		request 2 a>b  audio:C:17900:sendonly:ice=no     16002
		200     2 a>b  audio:D:17910:recvonly:ice=no     16000
		request 3 a>b  audio:C:17900:sendrecv:ice=no     16002
		200     3 a>b  audio:D:17910:sendrecv:ice=no     16000`},
	{"hold by address", `
		request 1 a>-  audio:C:17900:sendrecv:ice=no        16002
		200     1 a>b  audio:D:17910:sendrecv:ice=no        16000
		request 2 a>b  audio:0.0.0.0:17900:inactive:ice=no  16002
		200     2 a>b  audio:D:17910:inactive:ice=no        16000
		request 3 a>b  audio:C:17900:sendrecv:ice=no        16002
		200     3 a>b  audio:D:17910:sendrecv:ice=no        16000`},
	{"re-INVITE of the callee, whose CSeq begins at 1", `
		request 1 a>-  audio:C:17900:sendrecv:ice=no     16002
		200     1 a>b  audio:D:17910:sendrecv:ice=no     16000
		request 1 b>a  audio:D:17910:sendrecv:ice=no     16000
		200     1 b>a  audio:C:17900:sendrecv:ice=no     16002`},
	{"T.38 of the callee", `
		request 1 a>-  audio:C:17900:sendrecv:ice=no     16002
		200     1 a>b  audio:D:17910:sendrecv:ice=no     16000
		request 1 b>a  image:D:17910:sendrecv:ice=no     16004
		200     1 b>a  image:C:17900:sendrecv:ice=no     16006`},
	{"ICE", `
		request 1 a>-  audio:C:17900:sendrecv:ice=yes    16002
		200     1 a>b  audio:D:17910:sendrecv:ice=yes    16000`},
	{"busy", `
		request 1 a>-  audio:C:17900:sendrecv:ice=no     16002`},
	{"cancelled after early media", `
		request 1 a>-  audio:C:17900:sendrecv:ice=no     16002
		183     1 a>-  audio:D:17910:sendrecv:ice=no     16000`},
}

// step is one line of a flow.
type step struct {
	callID, dialog string
	reply          bool
	cseq           string
	from, to       string
	media          string
	ports          string // "16002 16006"
}

const (
	callerIP = "198.51.100.7"
	calleeIP = "198.51.100.8"
)

// parse reads the steps of a flow. engaged calls have a dialog id.
func parse(t *testing.T, callID, steps string, engaged bool) []step {
	t.Helper()
	var out []step
	for line := range strings.Lines(strings.TrimSpace(steps)) {
		words := strings.Fields(line)
		if len(words) < 5 {
			t.Fatalf("flow line %q", line)
		}
		from, to, _ := strings.Cut(words[2], ">")
		s := step{callID: callID, reply: words[0] != "request", cseq: words[1], from: from + "-tag", ports: strings.Join(words[4:], " ")}
		if to != "-" {
			s.to = to + "-tag"
		}
		if engaged {
			s.dialog = "2775:10836"
		}
		if words[3] != "-" {
			s.media = strings.NewReplacer(":C:", ":"+callerIP+":", ":D:", ":"+calleeIP+":").Replace(words[3])
		}
		out = append(out, s)
	}
	return out
}

// headers are those of the module, in its order, each as a line. The empty ones have
// their space.
func (s step) headers() []string {
	kind, agent, source := "request", "Caller/1.0", callerIP
	if s.reply {
		kind = "reply"
	}
	if s.reply == strings.HasPrefix(s.from, "a") {
		agent, source = "Callee/1.0", calleeIP
	}
	fromURI, toURI := "caller@127.0.0.1:15070", "callee@127.0.0.1:15060"
	if strings.HasPrefix(s.from, "b") {
		fromURI, toURI = toURI, fromURI
	}
	lines := []string{"type: " + kind, "dialog_id: " + s.dialog, "call_id: " + s.callID, "cseq: " + s.cseq, "from_uri: " + fromURI, "to_uri: " + toURI,
		"from_tag: " + s.from, "to_tag: " + s.to, "user_agent: " + agent, "signaling_ip: " + source, "media_relay: "}
	if s.media != "" {
		lines = append(lines, "media: "+s.media)
	}
	return lines
}

// module is the request on the UNIX socket.
func (s step) module() string { return request("update", s.headers()) }

// link is the same on its way to an old relay: empty headers are left out, nothing else
// is touched.
func (s step) link(seq int) string {
	return request(fmt.Sprintf("update %d", seq), filled(s.headers()))
}

func request(command string, headers []string) string {
	return strings.Join(append([]string{command}, headers...), "\r\n") + "\r\n\r\n"
}

func filled(headers []string) []string {
	var out []string
	for _, h := range headers {
		if !strings.HasSuffix(h, ": ") {
			out = append(out, h)
		}
	}
	return out
}

func removal(callID, from, to string) []string {
	return []string{"call_id: " + callID, "from_tag: " + from, "to_tag: " + to}
}
