// Package manage is the wire format of the dispatcher's management interface:
// commands on one line, answers in one of two forms.
//
//	summary CR LF
//	[{"ip": "192.0.2.1", ...}, {...}] CR LF          array: as the original answers
//
//	{"ip": "192.0.2.1", ...} CR LF                   lines: as its README says
//	{...} CR LF
//	CR LF
//
// The original knows summary, sessions, version, quit and exit and answers
// anything else with the word error. The other commands, and words after
// sessions, are ours; a mistake in them is answered with error and the reason.
// No sockets, no time; documents go through as raw JSON.
package manage

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// MaxLine bounds a command line.
const MaxLine = 4096

// ErrUnknown is the error for a command that nobody knows; its answer is the
// bare word error.
var ErrUnknown = errors.New("unknown command")

// SyntaxError is a mistake in the words of one of our commands.
type SyntaxError struct{ Text string }

func (e *SyntaxError) Error() string { return e.Text }

// Verb is the first word of a command.
type Verb string

const (
	Summary   Verb = "summary"
	Sessions  Verb = "sessions"
	Session   Verb = "session"   // session CALLID
	Explain   Verb = "explain"   // explain CALLID
	Terminate Verb = "terminate" // terminate CALLID
	Drain     Verb = "drain"     // drain RELAY [cancel]
	// Accounting asks how the back-ends do that store finished calls.
	Accounting Verb = "accounting"
	// Cluster asks how the cluster of dispatchers does.
	Cluster Verb = "cluster"
	// Stored asks for a page of the finished calls in the database.
	Stored  Verb = "stored"
	Version Verb = "version"
	Quit    Verb = "quit" // also exit
)

// Request is one command.
type Request struct {
	Verb   Verb
	CallID string // Session, Explain, Terminate
	Relay  string // Drain: name or address
	Cancel bool   // Drain: take the drain back
	Filter Filter // Sessions
	Page   Page   // Stored
}

// Page is a part of the finished calls in the database, which are numbered in the order in
// which they came.
type Page struct {
	After int64 // begin behind the call with this number
	Since int64 // leave out calls that began before, UNIX seconds
	Limit int   // look at so many; 0: as many as the dispatcher likes
}

// Filter selects, sorts and cuts the answer of sessions. The zero value is the
// plain command, which is answered as the original does.
type Filter struct {
	Lost   bool   // only calls whose relay is gone
	CallID string // equal
	From   string // part of the From URI, any case
	To     string // part of the To URI, any case
	Relay  string // name or address
	Order  string // one of Orders; "-" before it reverses
	Limit  int    // 0: all
}

// Orders are what sessions can be sorted by.
var Orders = [...]string{"start", "duration", "bytes", "call_id", "from", "to", "relay"}

// ParseRequest reads one command line without its end. Values run to the next
// space: no Call-ID, URI or name of a relay has one.
func ParseRequest(line []byte) (Request, error) {
	words := strings.Fields(string(line))
	if len(words) == 0 {
		return Request{}, ErrUnknown
	}
	req := Request{Verb: Verb(words[0])}
	args := words[1:]
	switch req.Verb {
	case "exit":
		req.Verb = Quit
		fallthrough
	case Summary, Accounting, Cluster, Version, Quit:
		if len(args) > 0 {
			return Request{}, ErrUnknown
		}
		return req, nil
	case Sessions:
		f, err := parseFilter(args)
		return Request{Verb: Sessions, Filter: f}, err
	case Stored:
		p, err := parsePage(args)
		return Request{Verb: Stored, Page: p}, err
	case Session, Explain, Terminate:
		if len(args) != 1 {
			return Request{}, &SyntaxError{fmt.Sprintf("%s needs one Call-ID, got %d words", req.Verb, len(args))}
		}
		req.CallID = args[0]
		return req, nil
	case Drain:
		if len(args) == 0 || len(args) > 2 || len(args) == 2 && args[1] != "cancel" {
			return Request{}, &SyntaxError{"drain needs a relay and, to take it back, the word cancel"}
		}
		req.Relay, req.Cancel = args[0], len(args) == 2
		return req, nil
	}
	return Request{}, ErrUnknown
}

func parseFilter(args []string) (Filter, error) {
	var f Filter
	for _, word := range args {
		if word == "lost" {
			f.Lost = true
			continue
		}
		name, value, ok := strings.Cut(word, "=")
		if !ok || value == "" {
			return Filter{}, &SyntaxError{fmt.Sprintf("%.60q is neither lost nor name=value", word)}
		}
		switch name {
		case "call_id":
			f.CallID = value
		case "from":
			f.From = value
		case "to":
			f.To = value
		case "relay":
			f.Relay = value
		case "order":
			if !knownOrder(value) {
				return Filter{}, &SyntaxError{fmt.Sprintf("order=%.40s: not one of %s", value, strings.Join(Orders[:], ", "))}
			}
			f.Order = value
		case "limit":
			n, err := strconv.Atoi(value)
			if err != nil || n < 1 {
				return Filter{}, &SyntaxError{fmt.Sprintf("limit=%.40s: not a number above 0", value)}
			}
			f.Limit = n
		default:
			return Filter{}, &SyntaxError{fmt.Sprintf("no filter %.40q: have call_id, from, to, relay, order, limit, lost", name)}
		}
	}
	return f, nil
}

func parsePage(args []string) (p Page, err error) {
	for _, word := range args {
		name, value, _ := strings.Cut(word, "=")
		n, err := strconv.ParseInt(value, 10, 64)
		if err != nil || n < 0 {
			return Page{}, &SyntaxError{fmt.Sprintf("%.60q: want after=, since= or limit= and a number", word)}
		}
		switch name {
		case "after":
			p.After = n
		case "since":
			p.Since = n
		case "limit":
			if n > 1<<20 {
				return Page{}, &SyntaxError{"limit is too large"}
			}
			p.Limit = int(n)
		default:
			return Page{}, &SyntaxError{fmt.Sprintf("%.60q: want after=, since= or limit= and a number", word)}
		}
	}
	return p, nil
}

func knownOrder(s string) bool {
	s = strings.TrimPrefix(s, "-")
	for _, o := range Orders {
		if s == o {
			return true
		}
	}
	return false
}

// AppendRequest writes a command line with its end.
func AppendRequest(dst []byte, r Request) []byte {
	dst = append(dst, r.Verb...)
	word := func(name, value string) {
		if value != "" {
			dst = append(dst, ' ')
			dst = append(dst, name...)
			dst = append(dst, value...)
		}
	}
	word("", r.CallID)
	word("", r.Relay)
	if r.Cancel {
		word("", "cancel")
	}
	if r.Filter.Lost {
		word("", "lost")
	}
	word("call_id=", r.Filter.CallID)
	word("from=", r.Filter.From)
	word("to=", r.Filter.To)
	word("relay=", r.Filter.Relay)
	word("order=", r.Filter.Order)
	number := func(name string, n int64) {
		if n > 0 {
			word(name, strconv.FormatInt(n, 10))
		}
	}
	number("limit=", int64(r.Filter.Limit))
	number("after=", r.Page.After)
	number("since=", r.Page.Since)
	number("limit=", int64(r.Page.Limit))
	return append(dst, '\r', '\n')
}
