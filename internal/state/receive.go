package state

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

const (
	askAgain      = 30 * time.Second // for a message, when there was none
	firstPause    = time.Second
	longestPause  = 2 * time.Minute  // of one record
	longestBreath = 30 * time.Second // between records of a receiver that seems to be away
	atHand        = 4096             // records that a receiver failed to handle and is given again
)

// Receive gives a receiver its records, one after the other, the oldest first, until ctx
// ends. A record for which handle returned nil is gone. One that failed comes again, later
// each time; when several fail in a row there is a pause as well, because the receiver is
// probably away. A process that dies while it handles a record finds it again soon.
func (o *Outbox) Receive(ctx context.Context, receiver string, handle func(context.Context, Record) error) error {
	consumer, err := o.js.CreateOrUpdateConsumer(ctx, o.name, jetstream.ConsumerConfig{
		Durable: receiver, FilterSubject: o.prefix + receiver, AckPolicy: jetstream.AckExplicitPolicy,
		AckWait: o.cfg.Silence, MaxAckPending: atHand, MaxDeliver: -1,
	})
	if err != nil {
		return fmt.Errorf("receive for %s: %w", receiver, err)
	}
	failures := 0
	for {
		m, err := next(ctx, consumer)
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, nats.ErrConnectionClosed):
			return fmt.Errorf("receive for %s: %w", receiver, err)
		case err != nil:
			o.log.Warn("the outbox gave nothing, it is asked again", "receiver", receiver, "error", err)
			rest(ctx, firstPause)
			continue
		case m == nil:
			continue // nothing waits
		}
		if o.one(ctx, receiver, m, handle) {
			failures = 0
			continue
		}
		failures++
		rest(ctx, min(pause(failures), longestBreath))
	}
}

// next waits for one message, and asks for it alone: so that none waits here for another,
// and because an iterator that asks for one at a time sometimes forgets to for half a
// minute (nats.go 1.55). nil: there was none for a while.
func next(ctx context.Context, consumer jetstream.Consumer) (jetstream.Msg, error) {
	limited, cancel := context.WithTimeout(ctx, askAgain)
	defer cancel()
	m, err := consumer.Next(jetstream.FetchContext(limited))
	if errors.Is(err, nats.ErrTimeout) || errors.Is(err, jetstream.ErrNoMessages) || errors.Is(err, context.DeadlineExceeded) {
		return nil, nil
	}
	return m, err
}

func rest(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// one has one record handled, and says whether it was.
func (o *Outbox) one(ctx context.Context, receiver string, m jetstream.Msg, handle func(context.Context, Record) error) bool {
	r := Record{ID: m.Headers().Get(headerID), Data: m.Data(), Tries: 1}
	if meta, err := m.Metadata(); err == nil {
		r.Added, r.Tries = meta.Timestamp, int(meta.NumDelivered)
	}
	limited, cancel := context.WithTimeout(ctx, o.cfg.Handle)
	defer cancel()
	if err := o.saying(m, func() error { return handle(limited, r) }); err != nil {
		if ctx.Err() == nil {
			o.log.Warn("record not stored, it is tried again", "receiver", receiver, "record", r.ID, "tries", r.Tries, "again_after", pause(r.Tries), "error", err)
		}
		_ = m.NakWithDelay(pause(r.Tries)) // else it comes again when the time of its handler is over
		return false
	}
	if err := m.DoubleAck(limited); err != nil {
		o.log.Debug("a record that was handled comes again", "receiver", receiver, "record", r.ID, "error", err)
	}
	return true
}

// saying runs a handler, and says meanwhile that it is at work.
func (o *Outbox) saying(m jetstream.Msg, handle func() error) error {
	done, said := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(said)
		for {
			select {
			case <-done:
				return
			case <-time.After(o.cfg.Silence / 3):
				_ = m.InProgress() // else somebody handles it too: receivers tell a record by its ID
			}
		}
	}()
	defer func() { close(done); <-said }()
	return handle()
}

// pause after so many failures.
func pause(failures int) time.Duration {
	d := firstPause
	for range failures - 1 {
		if d *= 2; d >= longestPause {
			return longestPause
		}
	}
	return d
}
