package fallback

import (
	"context"
	"fmt"
	"sync"
)

// flow is what happens in a call. moved checks how it is moved now.
type flow struct {
	name   string
	caller func(*world) *place
	run    func(c *call, ctx context.Context, moved func() error) error
}

func here(w *world) *place   { return &w.here }
func behind(w *world) *place { return &w.behind }

var flows = []flow{
	{"two-way audio", here, (*call).audio},
	{"hold and resume from another port", here, (*call).holdAndResume},
	{"a lost binding", behind, (*call).lostBinding},
	{"video added", here, (*call).videoAdded},
}

// Phases. The ends between them are not judged packet by packet.
const (
	begin = iota
	first
	between
	second
	end
)

func (c *call) establish(ctx context.Context) error {
	if err := c.exchange("sendrecv", "sendrecv"); err != nil {
		return err
	}
	c.speak()
	return c.talk(ctx, begin)
}

func (c *call) audio(ctx context.Context, moved func() error) error {
	if err := c.establish(ctx); err != nil {
		return err
	}
	if err := moved(); err != nil {
		return err
	}
	if err := c.talk(ctx, first); err != nil {
		return err
	}
	if err := c.settle(ctx, first, end); err != nil {
		return err
	}
	c.pause()
	return c.counted(ctx)
}

// counted compares the relay's counters with the phones': whoever moved a packet, it is
// counted once.
func (c *call) counted(ctx context.Context) error {
	legs, err := c.legs()
	if err != nil {
		return err
	}
	for i, l := range legs {
		if l.Path != "RTP" {
			continue
		}
		var sent uint64
		for _, n := range c.streams[0].phones[i%2].Counts().Sent {
			sent += n
		}
		if l.Packets != sent || l.Unsent != 0 || l.Refused != 0 || l.Lost != 0 {
			return fmt.Errorf("the %s sent %d packets, the relay counts %+v", l.Party, sent, l)
		}
	}
	return ctx.Err()
}

func (c *call) holdAndResume(ctx context.Context, moved func() error) error {
	if err := c.establish(ctx); err != nil {
		return err
	}
	if err := c.exchange("sendonly", "recvonly"); err != nil {
		return err
	}
	c.pause()
	caller := c.streams[0].phones[0]
	caller.NewSource()
	if err := caller.Move(c.places[0].host, c.places[0].ip); err != nil {
		return err
	}
	if err := c.exchange("sendrecv", "sendrecv"); err != nil {
		return err
	}
	c.speak()
	if err := c.talk(ctx, first); err != nil {
		return err
	}
	if err := moved(); err != nil {
		return err
	}
	if err := c.talk(ctx, second); err != nil {
		return err
	}
	return c.settle(ctx, second, end)
}

// lostBinding is a caller whose router forgets it: its media goes on from another port.
func (c *call) lostBinding(ctx context.Context, moved func() error) error {
	if err := c.establish(ctx); err != nil {
		return err
	}
	if err := moved(); err != nil {
		return err
	}
	if err := c.talk(ctx, first); err != nil {
		return err
	}
	s := c.streams[0]
	if err := c.places[0].router.ForgetBinding(s.phones[0].Addr(), s.to[0]); err != nil {
		return err
	}
	// What is sent before the relay believes the new port is lost, both ways.
	if err := c.talk(ctx, between); err != nil {
		return fmt.Errorf("after the binding was lost: %w", err)
	}
	if err := moved(); err != nil {
		return err
	}
	if err := c.talk(ctx, second); err != nil {
		return err
	}
	return c.settle(ctx, second, end)
}

func (c *call) videoAdded(ctx context.Context, moved func() error) error {
	if err := c.establish(ctx); err != nil {
		return err
	}
	if err := c.add("video"); err != nil {
		return err
	}
	if err := c.exchange("sendrecv", "sendrecv"); err != nil {
		return err
	}
	c.speak()
	if err := c.talk(ctx, first); err != nil {
		return err
	}
	if err := moved(); err != nil {
		return err
	}
	if err := c.talk(ctx, second); err != nil {
		return err
	}
	return c.settle(ctx, second, end)
}

// runFlows makes all calls at once and returns how many packets were heard in them.
func (w *world) runFlows(ctx context.Context, mover, notKernel string) (heard uint64) {
	var mu sync.Mutex // guards heard
	var all sync.WaitGroup
	for i, f := range flows {
		all.Go(func() {
			c, err := w.newCall(i+1, fmt.Sprintf("flow-%d", i), f.caller(w), &w.there)
			defer c.close()
			if err == nil {
				err = f.run(c, ctx, func() error { return c.movedBy(ctx, mover, notKernel) })
			}
			if err == nil {
				err = c.hangUp()
			}
			if err != nil {
				w.t.Errorf("%s: %v", f.name, err)
			}
			mu.Lock()
			defer mu.Unlock()
			heard += c.heard()
		})
	}
	all.Wait()
	return heard
}
