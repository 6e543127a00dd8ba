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
	longestPause  = 2 * time.Minute        // of one record
	longestBreath = 30 * time.Second       // between records of a receiver that seems to be away
	inPortion     = 512                    // records that are handled together
	gather        = 100 * time.Millisecond // for a portion: few large ones take less of the processors than many small ones
	atHand        = 4096                   // records that a receiver failed to handle and is given again
)

// Handler is what a receiver does with its records.
type Handler struct {
	One func(context.Context, Record) error
	// Many handles several at once: all of them, or none. May be nil.
	Many func(context.Context, []Record) error
}

// Receive gives a receiver its records, the oldest first, until ctx ends. A record that was
// handled without an error is gone. One that failed comes again, later each time; when
// several fail in a row there is a pause as well, because the receiver is probably away.
// Records that wait are handled together, if the receiver can; when that fails each is tried
// alone. A process that dies while it handles a record finds it again soon.
func (o *Outbox) Receive(ctx context.Context, receiver string, h Handler) error {
	s, err := o.now()
	if err != nil {
		return fmt.Errorf("receive for %s: %w", receiver, err)
	}
	consumer, err := s.js.CreateOrUpdateConsumer(ctx, o.name, jetstream.ConsumerConfig{
		Durable: receiver, FilterSubject: o.prefix + receiver, AckPolicy: jetstream.AckExplicitPolicy,
		AckWait: o.cfg.Silence, MaxAckPending: atHand, MaxDeliver: -1,
	})
	if err != nil {
		return fmt.Errorf("receive for %s: %w", receiver, err)
	}
	failures := 0
	clock := watchClock(o.cfg.Wall)
	for {
		if clock.wasSet() {
			// The server counts by the clock of the day how long a record has waited: after
			// that was set back, one that failed before would wait until then once more.
			o.log.Warn("the clock of the host was set: records that are to be tried again are tried now", "receiver", receiver)
			if err := s.js.DeleteConsumer(ctx, o.name, receiver); err != nil {
				return fmt.Errorf("receive for %s: %w", receiver, err)
			}
			return o.Receive(ctx, receiver, h)
		}
		list, err := o.next(ctx, consumer, h.Many != nil && failures == 0)
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, nats.ErrConnectionClosed):
			return fmt.Errorf("receive for %s: %w", receiver, err)
		case err != nil:
			o.log.Warn("the outbox gave nothing, it is asked again", "receiver", receiver, "error", err)
			rest(ctx, firstPause)
			continue
		}
		if len(list) > 1 && o.together(ctx, list, h.Many) {
			continue
		}
		if o.oneByOne(ctx, receiver, list, h.One) {
			failures = 0
			continue
		}
		failures++
		rest(ctx, min(pause(failures), longestBreath))
	}
}

// parcel is a record on its way to a receiver.
type parcel struct {
	Record
	jetstream.Msg
}

// next waits for a record, and takes those along that wait behind it, if several are
// wanted. None: there was none for a while. Each is asked for, without an iterator: so that
// none waits here for another, and because an iterator that asks for one at a time sometimes
// forgets to for half a minute (nats.go 1.55).
func (o *Outbox) next(ctx context.Context, consumer jetstream.Consumer, several bool) ([]parcel, error) {
	limited, cancel := context.WithTimeout(ctx, askAgain)
	defer cancel()
	first, err := consumer.Next(jetstream.FetchContext(limited))
	if errors.Is(err, nats.ErrTimeout) || errors.Is(err, jetstream.ErrNoMessages) || errors.Is(err, context.DeadlineExceeded) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	list := []parcel{unpack(first)}
	if !several {
		return list, nil
	}
	rest(ctx, gather)
	more, err := consumer.FetchNoWait(inPortion - 1)
	if err != nil {
		return list, nil // the next time says what is wrong
	}
	for m := range more.Messages() {
		list = append(list, unpack(m))
	}
	return list, nil
}

func rest(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

func unpack(m jetstream.Msg) parcel {
	p := parcel{Record{ID: m.Headers().Get(headerID), Data: m.Data(), Tries: 1}, m}
	if meta, err := m.Metadata(); err == nil {
		p.Added, p.Tries = meta.Timestamp, int(meta.NumDelivered)
	}
	return p
}

// together has records handled in one go, and says whether they were.
func (o *Outbox) together(ctx context.Context, list []parcel, handle func(context.Context, []Record) error) bool {
	limited, cancel := context.WithTimeout(ctx, o.cfg.Handle)
	defer cancel()
	records := make([]Record, len(list))
	for i, p := range list {
		records[i] = p.Record
	}
	if err := o.saying(list, func() error { return handle(limited, records) }); err != nil {
		return false // each alone says what is wrong with it
	}
	for _, p := range list[1:] {
		_ = p.Ack()
	}
	o.gone(limited, list[0]) // the server has the others' by then
	return true
}

// oneByOne has records handled until the first that fails, and says whether none did.
func (o *Outbox) oneByOne(ctx context.Context, receiver string, list []parcel, handle func(context.Context, Record) error) bool {
	for i, p := range list {
		if o.alone(ctx, receiver, p, handle) {
			continue
		}
		for _, later := range list[i+1:] {
			_ = later.NakWithDelay(firstPause)
		}
		return false
	}
	return true
}

// alone has one record handled, and says whether it was.
func (o *Outbox) alone(ctx context.Context, receiver string, p parcel, handle func(context.Context, Record) error) bool {
	limited, cancel := context.WithTimeout(ctx, o.cfg.Handle)
	defer cancel()
	if err := o.saying([]parcel{p}, func() error { return handle(limited, p.Record) }); err != nil {
		if ctx.Err() == nil {
			o.log.Warn("record not stored, it is tried again", "receiver", receiver, "record", p.ID, "tries", p.Tries, "again_after", pause(p.Tries), "error", err)
		}
		_ = p.NakWithDelay(pause(p.Tries)) // else it comes again when nothing was heard of it
		return false
	}
	o.gone(limited, p)
	return true
}

func (o *Outbox) gone(ctx context.Context, p parcel) {
	if err := p.DoubleAck(ctx); err != nil {
		o.log.Debug("a record that was handled comes again", "record", p.ID, "error", err)
	}
}

// saying runs a handler, and says meanwhile that it is at work.
func (o *Outbox) saying(list []parcel, handle func() error) error {
	done, said := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(said)
		for {
			select {
			case <-done:
				return
			case <-time.After(o.cfg.Silence / 3):
				for _, p := range list {
					_ = p.InProgress() // else somebody handles it too: receivers tell a record by its ID
				}
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
