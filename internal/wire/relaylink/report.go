package relaylink

import (
	"bytes"
	"fmt"
)

// ReportKind says which of the messages of a relay a Report is.
type ReportKind uint8

const (
	ReportAnswer ReportKind = iota + 1
	ReportPing
	ReportExpired
	ReportHello
	ReportReleased // link/2: another dispatcher serves the call now, or has ended it
)

// Report is one line of a relay. Its slices alias the line.
type Report struct {
	Kind ReportKind
	Seq  []byte // ReportAnswer: the number of the command
	Body []byte // the result, or JSON; empty for a plain ping
}

// ParseReport reads one line of a relay.
func ParseReport(line []byte) (Report, error) {
	word, body, spaced := bytes.Cut(line, []byte{' '})
	switch string(word) {
	case "ping":
		return Report{Kind: ReportPing, Body: body}, nil
	case "expired":
		if len(body) == 0 {
			return Report{}, &SyntaxError{Offset: len(line), Text: "expired without a session"}
		}
		return Report{Kind: ReportExpired, Body: body}, nil
	case "hello":
		if len(body) == 0 {
			return Report{}, &SyntaxError{Offset: len(line), Text: "hello without a body"}
		}
		return Report{Kind: ReportHello, Body: body}, nil
	case "released":
		if len(body) == 0 {
			return Report{}, &SyntaxError{Offset: len(line), Text: "released without a call"}
		}
		return Report{Kind: ReportReleased, Body: body}, nil
	case "":
		return Report{}, &SyntaxError{Text: "empty line"}
	}
	if !spaced {
		return Report{}, &SyntaxError{Offset: len(word), Text: fmt.Sprintf("%.40q is not a number and its answer", line)}
	}
	return Report{Kind: ReportAnswer, Seq: word, Body: body}, nil
}

// AppendReport writes the line of a report.
func AppendReport(dst []byte, r Report) []byte {
	switch r.Kind {
	case ReportAnswer:
		return AppendAnswer(dst, string(r.Seq), r.Body)
	case ReportExpired:
		return AppendExpired(dst, r.Body)
	case ReportHello:
		return AppendHello(dst, r.Body)
	case ReportReleased:
		return AppendReleased(dst, r.Body)
	}
	return AppendPing(dst, r.Body)
}

// AppendAnswer writes the answer to the command with that number. result is one
// line without its end.
func AppendAnswer(dst []byte, seq string, result []byte) []byte {
	dst = append(dst, seq...)
	dst = append(dst, ' ')
	dst = append(dst, result...)
	return append(dst, '\r', '\n')
}

// AppendExpired reports a finished call. json is one line.
func AppendExpired(dst, json []byte) []byte {
	dst = append(dst, "expired "...)
	dst = append(dst, json...)
	return append(dst, '\r', '\n')
}

// AppendReleased tells a dispatcher that a call is no longer its own. json is a Call on
// one line.
func AppendReleased(dst, json []byte) []byte {
	dst = append(dst, "released "...)
	dst = append(dst, json...)
	return append(dst, '\r', '\n')
}

// AppendPing writes a keep-alive: bare without json, as on the plain protocol,
// else with the relay's load.
func AppendPing(dst, json []byte) []byte {
	dst = append(dst, "ping"...)
	if len(json) > 0 {
		dst = append(dst, ' ')
		dst = append(dst, json...)
	}
	return append(dst, '\r', '\n')
}

// CutReason splits a negative answer into its word, error or halting, and the
// reason after it, which link/2 allows. ok is false for any other answer.
func CutReason(result []byte) (word, reason string, ok bool) {
	w, why, _ := bytes.Cut(result, []byte{' '})
	switch string(w) {
	case "error", "halting":
		return string(w), string(why), true
	}
	return "", "", false
}
