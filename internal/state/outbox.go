// Package state keeps what a dispatcher owes until somebody has it, whatever happens to
// the process or the machine meanwhile; and, in a cluster, what dispatchers tell each other.
//
//	Add ─▶ on disk, once for each receiver ─▶ Receive ─▶ handled: gone
//	                                             └─ failed: again, later
//	Map.Put ─▶ a queue ─▶ the cluster ─▶ Map.Get, of any dispatcher
//
// It does not know what its records and keys mean. An Outbox lies in a JetStream server
// inside the process, which listens to nobody and needs nobody. A Cluster is more of these
// servers, joined over TLS, or a NATS cluster that runs elsewhere: its Map, and Outboxes
// that are replicated. Nothing here waits for a cluster, except who asks it something.
package state

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// ErrFull: what waits has reached the limit of the disk that it may use.
var ErrFull = errors.New("the outbox is full")

// Config of an Outbox. Zero values mean the defaults.
type Config struct {
	Dir     string        // of the outbox alone; required
	MaxDisk int64         // bytes, 4 GiB
	Handle  time.Duration // how long the handler of one record may take, 60 s
	Silence time.Duration // of a process that handles a record, after which another one gets it, 10 s
}

func (c *Config) setDefaults() {
	c.MaxDisk = cmp.Or(c.MaxDisk, 4<<30)
	c.Handle = cmp.Or(c.Handle, time.Minute)
	c.Silence = cmp.Or(c.Silence, 10*time.Second)
}

const (
	localStream = "outbox"
	localPrefix = "outbox."
	addTime     = 10 * time.Second
	// publishAgain is when a cluster that has no leader is asked once more.
	publishAgain = 250 * time.Millisecond
	sameRecord   = 10 * time.Minute // within which a record that is added again is known
)

// Outbox is open until Close. Its methods may be called from anywhere.
type Outbox struct {
	cfg          Config
	log          *slog.Logger
	node         *node // nil: the cluster's
	js           jetstream.JetStream
	name, prefix string // of its stream, and of its subjects
	stream       jetstream.Stream
	patience     time.Duration // with a cluster that elects a leader
}

// Open makes the outbox, or finds what a former process left in it.
func Open(cfg Config, log *slog.Logger) (_ *Outbox, err error) {
	cfg.setDefaults()
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the outbox's folder: %w", err)
	}
	o := &Outbox{cfg: cfg, log: log, name: localStream, prefix: localPrefix}
	o.node, err = startNode(&server.Options{
		ServerName: "mediaproxy", DontListen: true, StoreDir: cfg.Dir,
		JetStreamMaxStore: cfg.MaxDisk + cfg.MaxDisk/4, JetStreamMaxMemory: 64 << 20,
	}, log, "outbox")
	if err != nil {
		return nil, fmt.Errorf("open the outbox in %s: %w", cfg.Dir, err)
	}
	o.js = o.node.js
	ctx, cancel := context.WithTimeout(context.Background(), startTime)
	defer cancel()
	if err = o.make(ctx, 1); err != nil {
		return nil, errors.Join(fmt.Errorf("open the outbox in %s: %w", cfg.Dir, err), o.Close())
	}
	return o, nil
}

// make makes the stream, or finds it.
func (o *Outbox) make(ctx context.Context, replicas int) error {
	if err := checkSchema(ctx, o.js, o.name); err != nil {
		return err
	}
	stream, err := o.js.CreateOrUpdateStream(ctx, jetstream.StreamConfig{
		Name: o.name, Subjects: []string{o.prefix + ">"}, Storage: jetstream.FileStorage, Retention: jetstream.WorkQueuePolicy,
		MaxBytes: o.cfg.MaxDisk, Discard: jetstream.DiscardNew, Duplicates: sameRecord, Replicas: replicas, Metadata: schemaMetadata(),
	})
	o.stream = stream
	return err
}

// Add keeps a record for each of the receivers. After nil it outlives the process and the
// machine. A record that is added again soon after, because nobody was told of the first
// time, is kept once.
func (o *Outbox) Add(ctx context.Context, id string, data []byte, receivers ...string) error {
	ctx, cancel := context.WithTimeout(ctx, addTime)
	defer cancel()
	for _, receiver := range receivers {
		m := &nats.Msg{Subject: o.prefix + receiver, Data: data, Header: nats.Header{headerID: {id}}}
		options := []jetstream.PublishOpt{jetstream.WithMsgID(receiver + " " + id)}
		if o.patience > 0 {
			options = append(options, jetstream.WithRetryWait(publishAgain), jetstream.WithRetryAttempts(int(o.patience/publishAgain)))
		}
		if _, err := o.js.PublishMsg(ctx, m, options...); err != nil {
			if strings.Contains(err.Error(), "maximum bytes exceeded") {
				err = fmt.Errorf("%w (%d bytes): %w", ErrFull, o.cfg.MaxDisk, err)
			}
			return fmt.Errorf("keep record %s for %s: %w", id, receiver, err)
		}
	}
	return nil
}

const headerID = "Record"

// Record is what a receiver gets.
type Record struct {
	ID    string
	Data  []byte
	Added time.Time
	Tries int // this one included
}

// Queue is what waits for a receiver.
type Queue struct {
	Waiting uint64
	Oldest  time.Time // zero: nothing waits
}

// Queue tells what waits for a receiver.
func (o *Outbox) Queue(ctx context.Context, receiver string) (q Queue, err error) {
	info, err := o.stream.Info(ctx, jetstream.WithSubjectFilter(o.prefix+receiver))
	if err != nil {
		return q, fmt.Errorf("look at what waits for %s: %w", receiver, err)
	}
	if q.Waiting = info.State.Subjects[o.prefix+receiver]; q.Waiting == 0 {
		return q, nil
	}
	oldest, err := o.stream.GetMsg(ctx, 0, jetstream.WithGetMsgSubject(o.prefix+receiver))
	if errors.Is(err, jetstream.ErrMsgNotFound) { // it was handled meanwhile
		return Queue{}, nil
	}
	if err != nil {
		return q, fmt.Errorf("look at what waits for %s: %w", receiver, err)
	}
	q.Oldest = oldest.Time
	return q, nil
}

// Receivers are all for whom something waits, whoever they are.
func (o *Outbox) Receivers(ctx context.Context) (map[string]uint64, error) {
	info, err := o.stream.Info(ctx, jetstream.WithSubjectFilter(o.prefix+">"))
	if err != nil {
		return nil, fmt.Errorf("look at the outbox: %w", err)
	}
	waiting := map[string]uint64{}
	for s, n := range info.State.Subjects {
		waiting[strings.TrimPrefix(s, o.prefix)] = n
	}
	return waiting, nil
}

// Close leaves what waits to the next process.
func (o *Outbox) Close() error {
	if o.node != nil {
		o.node.close()
	}
	return nil
}
