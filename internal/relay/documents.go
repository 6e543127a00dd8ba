package relay

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"example.org/mediaproxy/internal/report"
	"example.org/mediaproxy/internal/session"
	"example.org/mediaproxy/internal/wire/relaylink"
)

// summary answers `summary`.
func (c *conn) summary() ([]byte, error) {
	doc := c.relay.Summary()
	if c.plain {
		doc = doc.Plain()
	}
	return report.Append(nil, doc)
}

// sessions answers `sessions` with the statistics of all calls.
func (c *conn) sessions(cmd relaylink.Command) ([]byte, error) {
	if !c.plain && header(cmd, relaylink.HeaderLimit) != "" {
		return c.page(cmd)
	}
	docs := nonNil(c.relay.calls.Sessions())
	if c.plain {
		return plainSessions(docs, relaylink.MaxPlainReport)
	}
	plain := header(cmd, relaylink.HeaderPlain) == "yes"
	for i := range docs {
		c.finishDocument(&docs[i], plain)
	}
	return report.Append(sized(docs), docs)
}

// finishDocument gives a document the form that was asked for.
func (c *conn) finishDocument(doc *report.Session, plain bool) {
	if plain {
		doc.Strip()
		return
	}
	*doc = c.relay.named(*doc)
}

// maxPage bounds a page, which keeps the commands behind it waiting: some 3 ms.
const maxPage = 1000

// page answers `sessions` with a part of the calls.
func (c *conn) page(cmd relaylink.Command) ([]byte, error) {
	limit, err := number(cmd, relaylink.HeaderLimit)
	if err != nil {
		return nil, err
	}
	if limit == 0 {
		return nil, errors.New("header limit: a page of nothing")
	}
	after, err := position(cmd)
	if err != nil {
		return nil, err
	}
	plain := header(cmd, relaylink.HeaderPlain) == "yes"
	line := relaylink.OpenPage(c.body[:0])
	first := true
	next := c.relay.calls.Page(after, min(limit, maxPage), func(doc *report.Session) {
		if !first {
			line = append(line, ',', ' ')
		}
		first = false
		c.finishDocument(doc, plain)
		var failed error
		if line, failed = report.AppendSession(line, doc); failed != nil {
			err = fmt.Errorf("call %s: %w", doc.CallID, failed)
		}
	})
	line = relaylink.ClosePage(line, next)
	if cap(line) <= keptBuffer {
		c.body = line
	}
	return line, err
}

// position reads the header after.
func position(cmd relaylink.Command) (uint64, error) {
	text := header(cmd, relaylink.HeaderAfter)
	if text == "" {
		return 0, nil
	}
	after, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("header after: %.40q is not the next of a page", text)
	}
	return after, nil
}

// sized is room for the documents: one of a call with one stream has about 800
// bytes, 1000 with all that link/2 adds.
func sized(docs []report.Session) []byte { return make([]byte, 0, 1000*len(docs)+2) }

// plainSessions writes the answer for a dispatcher of the original, which
// closes the link over a line above limit and then asks again for ever. It
// needs only the Call-IDs, so those are what is left when all does not fit.
func plainSessions(docs []report.Session, limit int) ([]byte, error) {
	limit -= 64 // the number of the command stands before it
	full := make([]report.Session, len(docs))
	for i := range docs {
		full[i] = docs[i].Plain()
	}
	line, err := report.Append(sized(full), full)
	if err != nil || len(line) <= limit {
		return line, err
	}
	for i := range full {
		full[i].Streams = []report.Stream{}
	}
	if line, err = report.Append(line[:0], full); err != nil || len(line) <= limit {
		return line, err
	}
	type minimal struct {
		CallID string `json:"call_id"`
	}
	least := make([]minimal, len(docs))
	for i := range docs {
		least[i].CallID = docs[i].CallID
	}
	return report.Append(line[:0], least)
}

// list answers `list`: the calls by name only, filtered, ordered and paged.
func (c *conn) list(cmd relaylink.Command) ([]byte, error) {
	limit, err := number(cmd, relaylink.HeaderLimit)
	if err != nil {
		return nil, err
	}
	offset, err := number(cmd, relaylink.HeaderOffset)
	if err != nil {
		return nil, err
	}
	calls := c.relay.calls.Calls()
	if want := header(cmd, relaylink.HeaderFilter); want != "" {
		calls = slices.DeleteFunc(slices.Clone(calls), func(call session.Call) bool {
			return !strings.Contains(call.CallID, want) && !strings.Contains(call.FromTag, want) &&
				!strings.Contains(call.ToTag, want) && !strings.Contains(call.Owner, want)
		})
	}
	if calls, err = ordered(calls, header(cmd, relaylink.HeaderOrder)); err != nil {
		return nil, err
	}
	answer := relaylink.CallList{Total: len(calls), Calls: []relaylink.Call{}}
	calls = calls[min(offset, len(calls)):]
	if header(cmd, relaylink.HeaderLimit) != "" {
		calls = calls[:min(limit, len(calls))]
	}
	for _, call := range calls {
		listed := relaylink.Call{
			CallID: report.Text(call.CallID), FromTag: report.Text(call.FromTag), ToTag: report.Text(call.ToTag),
			DialogID: report.Text(call.DialogID), Owner: call.Owner,
			RecordID: call.RecordID, FromURI: report.Text(call.FromURI), ToURI: report.Text(call.ToURI), Username: report.Text(call.Username),
		}
		if !call.Start.IsZero() {
			listed.StartTime = float64(call.Start.UnixMicro()) / 1e6
		}
		answer.Calls = append(answer.Calls, listed)
	}
	return report.Append(nil, answer)
}

// ordered sorts calls by a field, downwards after a minus. Without an order
// they come as they were created.
func ordered(calls []session.Call, order string) ([]session.Call, error) {
	field, down := strings.CutPrefix(order, "-")
	var key func(session.Call) string
	switch field {
	case "", "created":
	case "call_id":
		key = func(call session.Call) string { return call.CallID }
	case "owner":
		key = func(call session.Call) string { return call.Owner }
	default:
		return nil, fmt.Errorf("header order: %.40q is none of created, call_id, owner (with a minus: downwards)", order)
	}
	calls = slices.Clone(calls)
	if key != nil {
		slices.SortStableFunc(calls, func(a, b session.Call) int { return strings.Compare(key(a), key(b)) })
	}
	if down {
		slices.Reverse(calls)
	}
	return calls, nil
}

// number reads a header that counts something; absent is 0.
func number(cmd relaylink.Command, name string) (int, error) {
	text := header(cmd, name)
	if text == "" {
		return 0, nil
	}
	n, err := strconv.ParseUint(text, 10, 31)
	if err != nil {
		return 0, errors.New("header " + name + ": " + strconv.Quote(text) + " is not a number")
	}
	return int(n), nil
}
