package relaylink

import (
	"bytes"
	"fmt"

	"example.org/mediaproxy/internal/wire/control"
)

// The commands of the plain protocol and, after them, those of link/2.
const (
	Update   = "update"
	Remove   = "remove"
	Summary  = "summary"
	Sessions = "sessions"

	List      = "list"
	Session   = "session"
	Explain   = "explain"
	Terminate = "terminate"
	Drain     = "drain"
)

// Headers of the commands of link/2.
const (
	HeaderCallID  = "call_id"
	HeaderFromTag = "from_tag"
	HeaderFilter  = "filter"
	HeaderOrder   = "order"
	HeaderLimit   = "limit"
	HeaderOffset  = "offset"
	HeaderAfter   = "after" // of sessions: the next of the page before
	HeaderCancel  = "cancel"
	HeaderRecord  = "record_id" // of update: what the report of a call that it makes is called
	HeaderPlain   = "plain"     // of sessions: yes = without what only link/2 carries
)

const (
	// maxHeaders bounds what a relay keeps of one command.
	maxHeaders = 256
	// maxCommandBytes bounds all lines of one command together.
	maxCommandBytes = 4 * MaxCommandLine
)

// Command is what a dispatcher asks of a relay. Seq comes back with the answer.
type Command struct {
	Name    string
	Seq     string
	Headers []control.Header
}

// AppendCommand writes a command with its headers and the empty line.
func AppendCommand(dst []byte, c Command) []byte {
	dst = append(dst, c.Name...)
	dst = append(dst, ' ')
	dst = append(dst, c.Seq...)
	dst = append(dst, '\r', '\n')
	dst = control.AppendHeaders(dst, c.Headers)
	return append(dst, '\r', '\n')
}

// AppendPong answers a ping.
func AppendPong(dst []byte) []byte { return append(dst, "pong\r\n"...) }

// AppendAck acknowledges a finished call.
func AppendAck(dst []byte, recordID string) []byte {
	dst = append(dst, "ack "...)
	dst = append(dst, recordID...)
	return append(dst, '\r', '\n')
}

// AppendHello writes the greeting of either side. json is one line.
func AppendHello(dst, json []byte) []byte {
	dst = append(dst, "hello "...)
	dst = append(dst, json...)
	return append(dst, '\r', '\n')
}

// OrderKind says which of the messages of a dispatcher an Order is.
type OrderKind uint8

const (
	OrderCommand OrderKind = iota + 1
	OrderPong
	OrderHello // link/2
	OrderAck   // link/2
)

// Order is one message of a dispatcher.
type Order struct {
	Kind    OrderKind
	Command Command // OrderCommand
	Body    []byte  // OrderHello: JSON; OrderAck: the record id. Aliases the line
}

// OrderReader puts the lines of a dispatcher together to orders. The zero value
// reads the plain protocol.
type OrderReader struct {
	Link2 bool

	open    bool // inside a command: headers follow
	command Command
	size    int
}

// Line takes the next line. done is true when it completes an order. A
// *SyntaxError means that this line was skipped and reading may go on, also
// within a command; ErrTooLong ends the link.
func (r *OrderReader) Line(line []byte) (order Order, done bool, err error) {
	if order, ok := r.bare(line); ok {
		return order, true, nil
	}
	if !r.open {
		return Order{}, false, r.start(line)
	}
	if len(line) == 0 {
		order = Order{Kind: OrderCommand, Command: r.command}
		r.open, r.command, r.size = false, Command{}, 0
		return order, true, nil
	}
	return Order{}, false, r.header(line)
}

// bare recognises the messages without headers. pong may come between the
// headers of a command.
func (r *OrderReader) bare(line []byte) (Order, bool) {
	if string(line) == "pong" {
		return Order{Kind: OrderPong}, true
	}
	if !r.Link2 || r.open {
		return Order{}, false
	}
	if body, ok := bytes.CutPrefix(line, []byte("hello ")); ok {
		return Order{Kind: OrderHello, Body: body}, true
	}
	if body, ok := bytes.CutPrefix(line, []byte("ack ")); ok {
		return Order{Kind: OrderAck, Body: body}, true
	}
	return Order{}, false
}

// bareWords begin messages without headers on link/2. With anything but one space
// behind them they are no message at all, above all no command of that name.
var bareWords = map[string]bool{"hello": true, "ack": true}

func (r *OrderReader) start(line []byte) error {
	if len(line) == 0 {
		return nil
	}
	words := bytes.Fields(line)
	if len(words) != 2 || r.Link2 && bareWords[string(words[0])] {
		return &SyntaxError{Text: fmt.Sprintf("%.40q is not a command and its number", line)}
	}
	r.open, r.size = true, len(line)
	r.command = Command{Name: string(words[0]), Seq: string(words[1])}
	return nil
}

func (r *OrderReader) header(line []byte) error {
	r.size += len(line)
	if r.size > maxCommandBytes || len(r.command.Headers) >= maxHeaders {
		return ErrTooLong
	}
	name, value, ok := bytes.Cut(line, []byte(": "))
	if !ok || len(name) == 0 {
		return &SyntaxError{Text: fmt.Sprintf("header %.40q has no name, colon and space", line)}
	}
	if len(value) == 0 { // as if it were not there, as on the module's socket
		return nil
	}
	r.command.Headers = append(r.command.Headers, control.Header{Name: string(name), Value: string(value)})
	return nil
}
