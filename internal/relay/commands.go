package relay

import (
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"slices"
	"strings"

	"example.org/mediaproxy/internal/report"
	"example.org/mediaproxy/internal/session"
	"example.org/mediaproxy/internal/wire/control"
	"example.org/mediaproxy/internal/wire/relaylink"
)

// refusal is a negative answer: the word for every dispatcher, and the reason
// for those that can read one.
type refusal struct {
	word   string
	reason string
}

func (r *refusal) Error() string { return r.word + ": " + r.reason }

func refuse(err error) *refusal { return &refusal{control.ReplyError, err.Error()} }

var (
	errUnknownCommand = errors.New("unknown command")
	errDraining       = errors.New("this relay takes no new calls, it is draining")
)

// command executes one command and queues its answer. Only a broken connection
// is an error.
func (c *conn) command(cmd relaylink.Command) error {
	if cmd.Name == relaylink.Remove || cmd.Name == relaylink.Terminate {
		c.relay.ending.Add(1)
		defer func() {
			c.relay.ending.Add(-1)
			if c.relay.Draining() {
				c.relay.wake() // it may have been the last call
			}
		}()
	}
	body, err := c.guarded(cmd)
	if err != nil {
		body = c.negative(cmd, err)
	}
	answer := relaylink.AppendAnswer(slices.Grow(c.answer[:0], len(cmd.Seq)+len(body)+3), cmd.Seq, body)
	if cap(answer) <= keptBuffer {
		c.answer = answer
	}
	if err := c.out.add(answer); err != nil {
		return err
	}
	if c.told != "" {
		c.relay.calls.Acknowledged(c.told)
		c.told = ""
	}
	// terminate ends calls whose reports follow its answer.
	c.relay.deliverPending()
	return nil
}

// guarded turns a panic into a failed command: a bug met by one call must not
// end the others.
func (c *conn) guarded(cmd relaylink.Command) (body []byte, err error) {
	defer func() {
		if bug := recover(); bug != nil {
			c.relay.count.panics.Add(1)
			c.log.Error("a bug was met while handling a command; other calls go on, please report it",
				"command", cmd.Name, "call_id", header(cmd, relaylink.HeaderCallID), "panic", bug, "stack", string(debug.Stack()))
			body, err = nil, errors.New("internal error, see the relay's log")
		}
	}()
	return c.execute(cmd)
}

func (c *conn) execute(cmd relaylink.Command) ([]byte, error) {
	switch cmd.Name {
	case relaylink.Update:
		return c.update(cmd)
	case relaylink.Remove:
		return c.remove(cmd)
	case relaylink.Summary:
		return c.summary()
	case relaylink.Sessions:
		return c.sessions(cmd)
	}
	if c.plain {
		return nil, errUnknownCommand
	}
	switch cmd.Name {
	case relaylink.List:
		return c.list(cmd)
	case relaylink.Session:
		callID, fromTag, err := which(cmd)
		if err != nil {
			return nil, err
		}
		return report.Append(nil, nonNil(c.relay.calls.Session(callID, fromTag)))
	case relaylink.Explain:
		callID, fromTag, err := which(cmd)
		if err != nil {
			return nil, err
		}
		return report.Append(nil, nonNil(c.relay.calls.Explain(callID, fromTag)))
	case relaylink.Terminate:
		return c.terminate(cmd)
	case relaylink.Drain:
		return c.drain(cmd)
	}
	return nil, errUnknownCommand
}

// negative logs a failed command and says it in the dispatcher's protocol.
func (c *conn) negative(cmd relaylink.Command, err error) []byte {
	r := &refusal{}
	if !errors.As(err, &r) {
		r = refuse(err)
	}
	level := slog.LevelWarn
	switch {
	case r.word == control.ReplyHalting:
		c.relay.count.halted.Add(1)
		level = slog.LevelDebug
	case errors.Is(err, session.ErrUnknown):
		// Ordinary: a remove after a time-out, or a message for another relay.
		c.relay.count.unknown.Add(1)
		level = slog.LevelDebug
	default:
		c.relay.count.failed.Add(1)
	}
	c.relay.complain(c.log, level, "command refused", "command", cmd.Name, "seq", cmd.Seq,
		"call_id", header(cmd, relaylink.HeaderCallID), "answer", r.word, "reason", r.reason)
	if c.plain {
		return []byte(r.word)
	}
	return []byte(r.word + " " + oneLine(r.reason))
}

func (c *conn) update(cmd relaylink.Command) ([]byte, error) {
	c.relay.count.updates.Add(1)
	u, err := control.DecodeUpdate(cmd.Headers)
	if err != nil {
		return nil, err
	}
	if !c.plain {
		u.RecordID = header(cmd, relaylink.HeaderRecord)
	}
	answer, err := c.relay.admit(u, c.ownerName())
	if err != nil {
		return nil, err
	}
	if !answer.IP.IsValid() || len(answer.Ports) == 0 {
		// The original answers `None` here, which the modules would write into
		// the SDP as an address.
		return nil, errors.New("the update leads to no stream")
	}
	c.log.Debug("update", "call_id", u.CallID, "ports", answer.Ports)
	return answer.Append(nil), nil
}

func (c *conn) remove(cmd relaylink.Command) ([]byte, error) {
	c.relay.count.removes.Add(1)
	r, err := control.DecodeRemove(cmd.Headers)
	if err != nil {
		return nil, err
	}
	ended, err := c.relay.calls.Remove(r)
	if err != nil {
		return nil, err
	}
	doc := ended.Report
	c.relay.release(session.Call{CallID: doc.CallID, FromTag: doc.FromTag, Owner: ended.Owner}, c.ownerName())
	if c.plain {
		c.told = doc.RecordID
		return report.Append(nil, doc.Plain())
	}
	doc = c.relay.named(doc)
	// Kept like any finished call: the answer may get lost with the link.
	c.relay.keep(doc, c.ownerName(), c)
	return report.Append(nil, doc)
}

func (c *conn) terminate(cmd relaylink.Command) ([]byte, error) {
	callID, fromTag, err := which(cmd)
	if err != nil {
		return nil, err
	}
	ended := c.relay.calls.Terminate(callID, fromTag)
	c.relay.finished(ended)
	c.log.Info("call terminated by an operator", "call_id", callID, "sessions", len(ended))
	return fmt.Appendf(nil, `{"terminated": %d}`, len(ended)), nil
}

func (c *conn) drain(cmd relaylink.Command) ([]byte, error) {
	switch cancel := header(cmd, relaylink.HeaderCancel); cancel {
	case "", "no":
		c.relay.setDraining(true, false)
	case "yes":
		c.relay.setDraining(false, false)
	default:
		return nil, fmt.Errorf("header cancel: %.20q is neither yes nor no", cancel)
	}
	return fmt.Appendf(nil, `{"status": %q}`, c.relay.status()), nil
}

func (c *conn) ownerName() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.owner
}

// which reads the headers that select calls.
func which(cmd relaylink.Command) (callID, fromTag string, err error) {
	callID = header(cmd, relaylink.HeaderCallID)
	if callID == "" {
		return "", "", errors.New("header call_id is missing or empty")
	}
	return callID, header(cmd, relaylink.HeaderFromTag), nil
}

// header returns the value of a header, the last one if there are several.
func header(cmd relaylink.Command, name string) (value string) {
	value, _ = control.Request{Headers: cmd.Headers}.Get(name)
	return value
}

// oneLine keeps a reason from ending its line early.
func oneLine(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' {
			return ' '
		}
		return r
	}, s)
}

// nonNil makes an empty answer [] and not null.
func nonNil[T any](list []T) []T {
	if list == nil {
		return []T{}
	}
	return list
}
