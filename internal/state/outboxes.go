package state

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// ErrNoMajority: the cluster cannot keep anything now.
var ErrNoMajority = errors.New("the cluster has no leader: more than half of its servers have to reach each other")

const (
	sharedStream = "outbox_" // and the dispatcher's name
	sharedPrefix = "outbox."
	lookForOther = 5 * time.Second // outboxes, which dispatchers leave behind or make anew
)

// Outboxes is the outbox of a dispatcher in a cluster. What is added is kept by the cluster
// with 3 replicas, else by this process alone. Whoever receives gets what every dispatcher
// has left in the cluster, those that are lost included, and what an earlier configuration
// left here.
type Outboxes struct {
	cluster *Cluster
	local   *Outbox
	log     *slog.Logger

	mu  sync.Mutex // guards what follows
	own *Outbox    // in the cluster; nil: not made yet, or not wanted
}

// Outboxes puts the outbox of this process and those of the cluster together.
func (c *Cluster) Outboxes(local *Outbox) *Outboxes {
	b := &Outboxes{cluster: c, local: local, log: c.log}
	if c.cfg.Replicas > 1 {
		c.wg.Go(func() {
			own := c.outbox(sharedStream + safe(c.cfg.Name))
			c.until("open the outbox of this dispatcher", func(ctx context.Context) error {
				if err := own.make(ctx, store{js: c.node.js}, c.cfg.Replicas); err != nil {
					return err
				}
				b.mu.Lock()
				defer b.mu.Unlock()
				b.own = own
				return nil
			})
		})
	}
	return b
}

// outbox is one of the cluster's.
func (c *Cluster) outbox(stream string) *Outbox {
	cfg := Config{MaxDisk: c.cfg.MaxDisk}
	cfg.setDefaults()
	o := &Outbox{cfg: cfg, log: c.log, name: stream, patience: addTime, store: store{js: c.node.js}}
	o.prefix = sharedPrefix + strings.TrimPrefix(stream, sharedStream) + "."
	return o
}

// Add keeps a record, see Outbox.Add. While the cluster elects a leader it waits for some
// time: whoever brings the record keeps it until then.
func (b *Outboxes) Add(ctx context.Context, id string, data []byte, receivers ...string) error {
	if b.cluster.cfg.Replicas <= 1 {
		return b.local.Add(ctx, id, data, receivers...)
	}
	b.mu.Lock()
	own := b.own
	b.mu.Unlock()
	if own == nil {
		return fmt.Errorf("keep record %s: %w", id, ErrNoMajority)
	}
	return own.Add(ctx, id, data, receivers...)
}

// all are the outboxes that there are now; err: those of the cluster are not known.
func (b *Outboxes) all(ctx context.Context) (list []*Outbox, err error) {
	list = []*Outbox{b.local}
	if !b.cluster.led() {
		return list, ErrNoMajority
	}
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	streams := b.cluster.node.js.ListStreams(ctx, jetstream.WithStreamListSubject(sharedPrefix+">"))
	for info := range streams.Info() {
		if !strings.HasPrefix(info.Config.Name, sharedStream) {
			continue
		}
		if err := readable(info.Config); err != nil {
			b.log.Error("an outbox of the cluster is left to others", "error", err)
			continue
		}
		o := b.cluster.outbox(info.Config.Name)
		if o.store.stream, err = o.store.js.Stream(ctx, o.name); err != nil {
			return list, err
		}
		list = append(list, o)
	}
	return list, streams.Err()
}

// each runs what receives on every outbox that there is or will be, each in a goroutine of
// its own, until ctx ends.
func (b *Outboxes) each(ctx context.Context, what string, receive func(context.Context, *Outbox) error) {
	var running sync.WaitGroup
	defer running.Wait()
	known := map[string]bool{}
	for ctx.Err() == nil {
		list, err := b.all(ctx)
		if err != nil && ctx.Err() == nil {
			b.log.Debug("outboxes of the cluster are not known", "error", err)
		}
		for _, o := range list {
			if known[o.name] {
				continue
			}
			known[o.name] = true
			running.Go(func() {
				for ctx.Err() == nil {
					if err := receive(ctx, o); err != nil && ctx.Err() == nil {
						b.log.Warn("a queue is interrupted, it is opened again", "what", what, "outbox", o.name, "error", err)
					}
					rest(ctx, tryAgain)
				}
			})
		}
		rest(ctx, lookForOther)
	}
}

// Receive gives a receiver all records, from all outboxes, one after the other, see
// Outbox.Receive.
func (b *Outboxes) Receive(ctx context.Context, receiver string, h Handler) error {
	turn := make(chan struct{}, 1)
	inTurn := func(ctx context.Context, handle func() error) error {
		select {
		case turn <- struct{}{}:
		case <-ctx.Done():
			return ctx.Err()
		}
		defer func() { <-turn }()
		return handle()
	}
	one := Handler{One: func(ctx context.Context, r Record) error {
		return inTurn(ctx, func() error { return h.One(ctx, r) })
	}}
	if h.Many != nil {
		one.Many = func(ctx context.Context, list []Record) error {
			return inTurn(ctx, func() error { return h.Many(ctx, list) })
		}
	}
	b.each(ctx, receiver, func(ctx context.Context, o *Outbox) error { return o.Receive(ctx, receiver, one) })
	return nil
}

// Queue tells what waits for a receiver, here and in the cluster; only here when the cluster
// does not answer and keeps nothing of this dispatcher.
func (b *Outboxes) Queue(ctx context.Context, receiver string) (sum Queue, err error) {
	list, err := b.all(ctx)
	if err != nil && b.cluster.cfg.Replicas > 1 {
		return sum, fmt.Errorf("look at the outboxes of the cluster: %w", err)
	}
	for _, o := range list {
		q, err := o.Queue(ctx, receiver)
		if err != nil {
			return sum, err
		}
		sum.Waiting += q.Waiting
		if sum.Oldest.IsZero() || !q.Oldest.IsZero() && q.Oldest.Before(sum.Oldest) {
			sum.Oldest = q.Oldest
		}
	}
	return sum, nil
}

// Receivers are all for whom something waits, here and in the cluster.
func (b *Outboxes) Receivers(ctx context.Context) (map[string]uint64, error) {
	list, err := b.all(ctx)
	if err != nil {
		list = []*Outbox{b.local} // a cluster that comes later has its say then
	}
	sum := map[string]uint64{}
	for _, o := range list {
		waiting, err := o.Receivers(ctx)
		if err != nil {
			return nil, err
		}
		for receiver, n := range waiting {
			sum[receiver] += n
		}
	}
	return sum, nil
}
