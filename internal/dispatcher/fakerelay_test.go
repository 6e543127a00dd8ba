package dispatcher

import (
	"crypto/tls"
	"encoding/json"
	"net"
	"strconv"
	"sync"
	"testing"

	"example.org/mediaproxy/internal/report"
	"example.org/mediaproxy/internal/wire/control"
	"example.org/mediaproxy/internal/wire/relaylink"
)

// fakeRelay speaks one of the two protocols and keeps sessions without ports.
// Tests change its answers through handle.
type fakeRelay struct {
	t     testing.TB
	name  string
	plain bool
	ip    string // what it answers updates with
	conn  *tls.Conn
	done  chan struct{} // closed when the dispatcher ended the connection

	mu       sync.Mutex
	sessions []relaylink.Call
	got      []relaylink.Command
	pongs    int
	acks     []string
	hello    relaylink.DispatcherHello
	greeted  bool
	// handle, if set, may answer a command itself; ok false: the usual answer;
	// an empty answer: none.
	handle func(relaylink.Command) (answer string, ok bool)
}

type relayOption func(*fakeRelay, *relaylink.RelayHello, *net.Dialer)

func plainFrom(ip string) relayOption {
	return func(r *fakeRelay, _ *relaylink.RelayHello, d *net.Dialer) {
		r.plain = true
		d.LocalAddr = &net.TCPAddr{IP: net.ParseIP(ip)}
	}
}

func having(calls ...relaylink.Call) relayOption {
	return func(r *fakeRelay, _ *relaylink.RelayHello, _ *net.Dialer) { r.sessions = calls }
}

func greeting(edit func(*relaylink.RelayHello)) relayOption {
	return func(_ *fakeRelay, h *relaylink.RelayHello, _ *net.Dialer) { edit(h) }
}

func handling(f func(relaylink.Command) (string, bool)) relayOption {
	return func(r *fakeRelay, _ *relaylink.RelayHello, _ *net.Dialer) { r.handle = f }
}

// relay connects a relay and waits until the dispatcher knows its calls.
func (u *under) relay(name string, options ...relayOption) *fakeRelay {
	u.t.Helper()
	r := u.dialRelay(name, options...)
	eventually(u.t, "relay "+name+" is known", func() bool {
		known := false
		for _, l := range u.registry.links() {
			u.registry.change(l, func(s *relayState) { known = known || s.synced && (s.name == name) })
		}
		return known
	})
	return r
}

func (u *under) dialRelay(name string, options ...relayOption) *fakeRelay {
	u.t.Helper()
	r := &fakeRelay{t: u.t, name: name, ip: "203.0.113.9", done: make(chan struct{})}
	hello := relaylink.RelayHello{Name: name, Instance: "i-" + name, Version: "5", IP: "203.0.113.9"}
	dialer := &net.Dialer{}
	for _, o := range options {
		o(r, &hello, dialer)
	}
	alpn := []string{relaylink.ALPN}
	if r.plain {
		alpn = nil
	}
	conn, err := tls.DialWithDialer(dialer, "tcp", u.RelayAddr().String(), clientTLS(alpn...))
	if err != nil {
		u.t.Fatalf("relay %s: %v", name, err)
	}
	r.conn = conn
	if !r.plain {
		body, err := json.Marshal(hello)
		if err != nil {
			u.t.Fatal(err)
		}
		r.say(relaylink.AppendHello(nil, body))
	}
	go r.run()
	u.t.Cleanup(r.close)
	return r
}

// handleWith changes how commands are answered from now on.
func (r *fakeRelay) handleWith(f func(relaylink.Command) (string, bool)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.handle = f
}

// close breaks the connection and waits for the reader.
func (r *fakeRelay) close() {
	r.conn.NetConn().Close()
	<-r.done
}

func (r *fakeRelay) say(b []byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.conn.Write(b)
}

func (r *fakeRelay) answer(c relaylink.Command, text string) {
	r.say(relaylink.AppendAnswer(nil, c.Seq, []byte(text)))
}

func (r *fakeRelay) expire(s report.Session) { r.say(relaylink.AppendExpired(nil, []byte(docText(s)))) }

func (r *fakeRelay) run() {
	defer close(r.done)
	defer r.conn.NetConn().Close()
	in := &lineReader{conn: r.conn}
	orders := relaylink.OrderReader{Link2: !r.plain}
	for {
		line, err := in.next(relaylink.MaxCommandLine)
		if err != nil {
			return
		}
		o, done, err := orders.Line(line)
		if err != nil {
			r.t.Errorf("relay %s cannot read %q: %v", r.name, line, err)
		}
		if done {
			r.order(o)
		}
	}
}

func (r *fakeRelay) order(o relaylink.Order) {
	r.mu.Lock()
	switch o.Kind {
	case relaylink.OrderPong:
		r.pongs++
	case relaylink.OrderAck:
		r.acks = append(r.acks, string(o.Body))
	case relaylink.OrderHello:
		h, err := relaylink.ParseDispatcherHello(o.Body)
		if err != nil {
			r.t.Error(err)
		}
		r.hello, r.greeted = h, true
	case relaylink.OrderCommand:
		r.got = append(r.got, o.Command)
		handle := r.handle
		r.mu.Unlock()
		answer, ok := "", false
		if handle != nil {
			answer, ok = handle(o.Command)
		}
		if !ok {
			answer = r.usual(o.Command)
		}
		if answer != "" {
			r.answer(o.Command, answer)
		}
		return
	}
	r.mu.Unlock()
}

func get(c relaylink.Command, name string) string {
	v, _ := control.Request{Headers: c.Headers}.Get(name)
	return v
}

// usual is what a healthy relay answers.
func (r *fakeRelay) usual(c relaylink.Command) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	call, from, to := get(c, "call_id"), get(c, "from_tag"), get(c, "to_tag")
	at := -1
	for i, s := range r.sessions {
		if s.CallID == call && (s.FromTag == from || to != "" && s.FromTag == to) {
			at = i
		}
	}
	switch c.Name {
	case relaylink.Update:
		if at < 0 {
			r.sessions = append(r.sessions, relaylink.Call{CallID: call, FromTag: from, ToTag: to, Owner: "d1"})
		} else {
			r.sessions[at].Owner = "d1"
		}
		return r.ip + " 50002"
	case relaylink.Remove:
		if at < 0 {
			return "error unknown session"
		}
		doc := sessionDoc(call, r.sessions[at].FromTag)
		r.sessions = append(r.sessions[:at], r.sessions[at+1:]...)
		if !r.plain {
			doc.RecordID, doc.Reason = r.name+"/"+call, report.ReasonRemoved
		}
		return docText(doc)
	case relaylink.Summary:
		return docText(report.Relay{IP: r.ip, Version: "5", Status: "active", Uptime: 19, StreamCount: map[string]int{}})
	case relaylink.Sessions, relaylink.Session:
		docs := []report.Session{}
		for _, s := range r.sessions {
			if c.Name == relaylink.Session && s.CallID != call {
				continue
			}
			docs = append(docs, sessionDoc(s.CallID, s.FromTag))
		}
		return docText(docs)
	case relaylink.List:
		limit, err := strconv.Atoi(get(c, relaylink.HeaderLimit))
		offset, err2 := strconv.Atoi(get(c, relaylink.HeaderOffset))
		if err != nil || err2 != nil {
			return "error list without page"
		}
		page := r.sessions[min(offset, len(r.sessions)):min(offset+limit, len(r.sessions))]
		return docText(relaylink.CallList{Total: len(r.sessions), Calls: page})
	}
	return "error unknown command"
}

func (r *fakeRelay) calls() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	list := []string{}
	for _, s := range r.sessions {
		list = append(list, s.CallID)
	}
	return list
}

// count is how many commands with this name the relay got.
func (r *fakeRelay) count(name string) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := 0
	for _, c := range r.got {
		if c.Name == name {
			n++
		}
	}
	return n
}

func (r *fakeRelay) acked() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]string(nil), r.acks...)
}
