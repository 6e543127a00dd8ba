package dispatcher

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"

	"example.org/mediaproxy/internal/report"
	"example.org/mediaproxy/internal/wire/control"
	"example.org/mediaproxy/internal/wire/manage"
	"example.org/mediaproxy/internal/wire/relaylink"
)

// What operators can do. The management words, and whatever else offers these
// functions, are thin forms of them. None of them delays a set-up: they only
// wait for relays, each for the relay timeout at most.

var (
	// ErrNoCall means that no relay has the call.
	ErrNoCall = errors.New("no relay has a call with this Call-ID")
	// ErrNoRelay means that no relay has that name or address.
	ErrNoRelay = errors.New("no connected relay has this name or address")
	// ErrOldRelay means that the relay does not know the command.
	ErrOldRelay = errors.New("relay speaks the plain protocol, which has no such command")
)

// RelaySummary is one connected relay's answer to summary.
type RelaySummary struct {
	Name string
	IP   netip.Addr // where it connects from
	Err  error      // why there is no document
	Doc  report.Relay
	Raw  json.RawMessage // Doc as the relay wrote it
}

// Summary asks all relays how they are.
func (d *Dispatcher) Summary() []RelaySummary {
	return askAll(d, func(l *link) (RelaySummary, bool) {
		s := RelaySummary{Name: l.relay.name, IP: l.ip}
		var body []byte
		if body, s.Err = l.query(relaylink.Summary, nil); s.Err == nil {
			s.Err = json.Unmarshal(body, &s.Doc)
			s.Raw = body
		}
		if s.Err == nil && !l.plain {
			d.registry.change(l, func(r *relayState) { r.halting = s.Doc.Status == "halting" })
		}
		return s, true
	})
}

// askAll runs a query on all relays at once and returns what they gave, in the
// order of their names.
func askAll[T any](d *Dispatcher, query func(*link) (T, bool)) []T {
	links := d.registry.links()
	results := make([]T, len(links))
	good := make([]bool, len(links))
	var asking sync.WaitGroup
	for i, l := range links {
		asking.Go(func() {
			defer d.recovered("query", "", nil)
			results[i], good[i] = query(l)
		})
	}
	asking.Wait()
	list := results[:0]
	for i, ok := range good {
		if ok {
			list = append(list, results[i])
		}
	}
	return list
}

// Sessions returns the sessions of all relays that answer, in full. With
// f.Lost it returns what is remembered of calls whose relay is not connected.
func (d *Dispatcher) Sessions(f manage.Filter) []report.Session {
	var list []report.Session
	if f.Lost {
		list = d.lost()
	} else {
		list = slices.Concat(askAll(d, func(l *link) ([]report.Session, bool) {
			if f.Relay != "" && !l.named(f.Relay) {
				return nil, false
			}
			if f.CallID != "" && !l.plain {
				return l.sessions(relaylink.Session, callHeaders(f.CallID, ""))
			}
			return l.sessions(relaylink.Sessions, nil)
		})...)
	}
	return applyFilter(list, f)
}

func (l *link) named(what string) bool {
	c := Candidate{Name: l.relay.name, Addrs: append([]netip.Addr{l.ip}, l.hello.Addrs()...)}
	return c.preferredBy(what)
}

// sessions asks this relay for sessions and puts its name on them.
func (l *link) sessions(command string, hs []control.Header) ([]report.Session, bool) {
	var list []report.Session
	var err error
	if command == relaylink.Sessions && !l.plain {
		list, err = l.paged()
	} else {
		var body []byte
		if body, err = l.query(command, hs); err == nil {
			if err = json.Unmarshal(body, &list); err != nil {
				err = fmt.Errorf("answer to %s: %w", command, err)
			}
		}
	}
	if err != nil {
		l.log.Warn("relay left out of an answer to an operator", "error", err)
		return nil, false
	}
	for i := range list {
		list[i].Relay = l.relay.name
		if list[i].Streams == nil {
			list[i].Streams = []report.Stream{}
		}
	}
	return list, true
}

// lost returns the calls whose relay is not connected. Their statistics are
// there, not here.
func (d *Dispatcher) lost() []report.Session {
	t := d.calls
	t.mu.Lock()
	defer t.mu.Unlock()
	list := []report.Session{}
	for _, head := range t.byID {
		for c := head; c != nil; c = c.next {
			if !c.lostLocked() {
				continue
			}
			s := report.Session{CallID: report.Text(c.id), FromTag: report.Text(c.fromTag), DialogID: c.dialogID,
				Relay: c.relay.name, Streams: []report.Stream{}}
			if c.toTag != "" {
				to := report.Text(c.toTag)
				s.ToTag = &to
			}
			list = append(list, s)
		}
	}
	slices.SortFunc(list, func(a, b report.Session) int {
		return cmp.Or(cmp.Compare(a.CallID, b.CallID), cmp.Compare(a.FromTag, b.FromTag))
	})
	return list
}

// Session returns the sessions with this Call-ID in full.
func (d *Dispatcher) Session(callID string) ([]report.Session, error) {
	list := d.Sessions(manage.Filter{CallID: callID})
	if len(list) == 0 {
		return nil, ErrNoCall
	}
	return list, nil
}

// Explain returns the explanations of the sessions with this Call-ID, as their
// relays wrote them (each a report.Explanation).
func (d *Dispatcher) Explain(callID string) ([]json.RawMessage, error) {
	old := false
	list := slices.Concat(askAll(d, func(l *link) ([]json.RawMessage, bool) {
		if l.plain {
			return nil, false
		}
		body, err := l.query(relaylink.Explain, callHeaders(callID, ""))
		var docs []json.RawMessage
		if err == nil {
			err = json.Unmarshal(body, &docs)
		}
		if err != nil {
			l.log.Warn("relay left out of an answer to an operator", "error", err)
		}
		return docs, err == nil
	})...)
	if len(list) > 0 {
		return list, nil
	}
	for _, c := range d.calls.named(callID) {
		old = old || c.plain
	}
	if old {
		return nil, fmt.Errorf("the call's %w", ErrOldRelay)
	}
	return nil, ErrNoCall
}

// named returns the relays of the calls with this Call-ID.
func (t *callTable) named(callID string) []*relayState {
	t.mu.Lock()
	defer t.mu.Unlock()
	var list []*relayState
	for c := t.byID[report.Text(callID)]; c != nil; c = c.next {
		if c.relay != nil && c.expired.IsZero() {
			list = append(list, c.relay)
		}
	}
	return list
}

// Terminate ends all sessions with this Call-ID, wherever they are, and returns
// how many they were. They come out of the Finished hook as terminated.
func (d *Dispatcher) Terminate(callID string) (int, error) {
	total := 0
	for _, n := range askAll(d, func(l *link) (int, bool) {
		if l.plain {
			return d.terminatePlain(l, callID), true
		}
		body, err := l.query(relaylink.Terminate, callHeaders(callID, ""))
		var answer struct {
			Terminated int `json:"terminated"`
		}
		if err == nil {
			err = json.Unmarshal(body, &answer)
		}
		if err != nil {
			l.log.Warn("terminate was not answered", "call_id", callID, "error", err)
		}
		return answer.Terminated, err == nil
	}) {
		total += n
	}
	if total == 0 {
		return 0, ErrNoCall
	}
	d.log.Info("call terminated by an operator", "call_id", callID, "sessions", total)
	return total, nil
}

// terminatePlain ends the sessions that an old relay has, as the SIP proxy
// would, and reports them as if the relay had expired them.
func (d *Dispatcher) terminatePlain(l *link, callID string) int {
	mine := d.calls.of(l.relay, func(c *callState) bool {
		return c.expired.IsZero() && report.Text(c.id) == report.Text(callID)
	})
	n := 0
	for _, c := range mine {
		body, err := l.query(relaylink.Remove, callHeaders(c.id, c.fromTag))
		if err != nil {
			continue
		}
		var s report.Session
		if err := json.Unmarshal(body, &s); err != nil {
			l.log.Error("answer to remove cannot be read", "call_id", callID, "error", err)
			continue
		}
		s.Reason = report.ReasonTerminated
		l.expired(s)
		n++
	}
	return n
}

// Drain makes a relay take no new calls, or, with cancel, take them again. It
// returns the relay's status then.
func (d *Dispatcher) Drain(relay string, cancel bool) (status string, err error) {
	r := d.registry.find(relay)
	if r == nil {
		return "", ErrNoRelay
	}
	l, _, _ := d.registry.current(r)
	if l == nil {
		return "", ErrNoRelay
	}
	if l.plain {
		return "", fmt.Errorf("%w: send HUP to it instead", ErrOldRelay)
	}
	var hs []control.Header
	if cancel {
		hs = []control.Header{{Name: relaylink.HeaderCancel, Value: "yes"}}
	}
	body, err := l.query(relaylink.Drain, hs)
	if err != nil {
		return "", err
	}
	var answer struct {
		Status string `json:"status"`
	}
	if err := json.Unmarshal(body, &answer); err != nil {
		return "", fmt.Errorf("answer to drain: %w", err)
	}
	d.registry.change(l, func(r *relayState) { r.halting = answer.Status == "halting" })
	l.log.Info("drain asked for by an operator", "cancel", cancel, "status", answer.Status)
	return answer.Status, nil
}

// Version is what the version word answers.
func (d *Dispatcher) Version() string { return d.cfg.Version }

// applyFilter selects, sorts and cuts a list of sessions.
func applyFilter(list []report.Session, f manage.Filter) []report.Session {
	has := func(uri, part string) bool {
		return part == "" || strings.Contains(strings.ToLower(uri), strings.ToLower(part))
	}
	list = slices.DeleteFunc(list, func(s report.Session) bool {
		return f.CallID != "" && s.CallID != report.Text(f.CallID) || !has(s.FromURI, f.From) || !has(s.ToURI, f.To)
	})
	if f.Order != "" {
		by, down := strings.CutPrefix(f.Order, "-")
		slices.SortStableFunc(list, func(a, b report.Session) int {
			if down {
				a, b = b, a
			}
			return compareBy(by, a, b)
		})
	}
	if f.Limit > 0 && len(list) > f.Limit {
		list = list[:f.Limit]
	}
	return list
}

func compareBy(order string, a, b report.Session) int {
	switch order {
	case "duration":
		return cmp.Compare(a.Duration, b.Duration)
	case "bytes":
		return cmp.Compare(bytesOf(a), bytesOf(b))
	case "call_id":
		return cmp.Compare(a.CallID, b.CallID)
	case "from":
		return cmp.Compare(a.FromURI, b.FromURI)
	case "to":
		return cmp.Compare(a.ToURI, b.ToURI)
	case "relay":
		return cmp.Compare(a.Relay, b.Relay)
	}
	return cmp.Compare(startOf(a), startOf(b))
}

// startOf puts calls that were never answered last.
func startOf(s report.Session) float64 {
	if s.StartTime == nil {
		return 1 << 62
	}
	return *s.StartTime
}

func bytesOf(s report.Session) (n uint64) {
	for _, stream := range s.Streams {
		n += stream.CallerBytes + stream.CalleeBytes
	}
	return n
}
