package relay

import (
	"errors"
	"fmt"
	"io"
	"log/slog"

	"example.org/mediaproxy/internal/wire/relaylink"
)

// readSize holds a burst of commands or the longest line with its end.
const readSize = 64 << 10

// read takes the dispatcher's lines and executes its commands one after the
// other, so answers leave in the order of the commands. Their answers are
// flushed once per chunk that was read.
func (c *conn) read() error {
	orders := relaylink.OrderReader{Link2: !c.plain}
	buf := make([]byte, readSize)
	filled := 0
	for {
		n, err := c.nc.Read(buf[filled:])
		filled += n
		used, lineErr := c.lines(&orders, buf[:filled])
		c.out.flush()
		if lineErr != nil {
			return lineErr
		}
		filled = copy(buf, buf[used:filled])
		if errors.Is(err, io.EOF) {
			return errors.New("closed by the dispatcher")
		}
		if err != nil {
			return fmt.Errorf("read from dispatcher: %w", err)
		}
	}
}

// lines handles the whole lines of b and returns how much of it they are.
func (c *conn) lines(orders *relaylink.OrderReader, b []byte) (used int, err error) {
	for {
		line, n, err := relaylink.SplitLine(b[used:], relaylink.MaxCommandLine)
		if errors.Is(err, relaylink.ErrIncomplete) {
			return used, nil
		}
		if err != nil {
			return used, fmt.Errorf("line from dispatcher: %w (limit %d bytes)", err, relaylink.MaxCommandLine)
		}
		used += n
		order, done, err := orders.Line(line)
		var syntax *relaylink.SyntaxError
		switch {
		case errors.As(err, &syntax):
			c.relay.count.badLines.Add(1)
			c.relay.complain(c.log, slog.LevelWarn, "line from dispatcher skipped", "error", err)
		case err != nil:
			return used, fmt.Errorf("command from dispatcher: %w", err)
		case done:
			if err := c.order(order); err != nil {
				return used, err
			}
		}
	}
}

func (c *conn) order(o relaylink.Order) error {
	switch o.Kind {
	case relaylink.OrderPong:
		c.pong()
	case relaylink.OrderHello:
		return c.hello(o.Body)
	case relaylink.OrderAck:
		c.acknowledge(string(o.Body))
	case relaylink.OrderCommand:
		if !c.stood() {
			return fmt.Errorf("%w before its first command", errNoHello)
		}
		return c.command(o.Command)
	}
	return nil
}

// acknowledge forgets a record and refills the window once half of it is free.
func (c *conn) acknowledge(id string) {
	if _, left := c.relay.acknowledged(id); left == window/2 {
		c.relay.deliver(c)
	}
}
