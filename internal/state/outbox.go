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
	"sync"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// ErrFull: what waits has reached the limit of the disk that it may use.
var ErrFull = errors.New("the outbox is full")

// Config of an Outbox. Zero values mean the defaults.
type Config struct {
	Dir     string           // of the outbox alone; required
	MaxDisk int64            // bytes, 4 GiB
	Handle  time.Duration    // how long the handler of one record may take, 60 s
	Reserve int64            // bytes that have to stay free on the disk, 16 MiB
	Wall    func() time.Time // the clock of the day, time.Now
	Silence time.Duration    // of a process that handles a record, after which another one gets it, 10 s
}

func (c *Config) setDefaults() {
	c.MaxDisk = cmp.Or(c.MaxDisk, 4<<30)
	c.Handle = cmp.Or(c.Handle, time.Minute)
	c.Reserve = cmp.Or(c.Reserve, 16<<20)
	if c.Wall == nil {
		c.Wall = time.Now
	}
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

// recordOverhead is about what a record has besides its document.
const recordOverhead = 200

// Outbox is open until Close. Its methods may be called from anywhere.
type Outbox struct {
	cfg          Config
	log          *slog.Logger
	name, prefix string // of its stream, and of its subjects
	disk         disk
	patience     time.Duration // with a cluster that elects a leader
	healing      chan struct{} // closed by Close; nil: not ours to heal
	healed       sync.WaitGroup

	mu     sync.RWMutex // guards what follows
	store  store
	broken error // why nothing can be kept until the store is opened again
}

// store is what a node keeps an outbox in.
type store struct {
	node   *node // nil: the cluster's
	js     jetstream.JetStream
	stream jetstream.Stream
}

// Open makes the outbox, or finds what a former process left in it.
func Open(cfg Config, log *slog.Logger) (_ *Outbox, err error) {
	cfg.setDefaults()
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the outbox's folder: %w", err)
	}
	o := &Outbox{cfg: cfg, log: log, name: localStream, prefix: localPrefix, disk: disk{dir: cfg.Dir, reserve: cfg.Reserve}}
	if err := o.openStore(); err != nil {
		return nil, err
	}
	o.healing = make(chan struct{})
	o.healed.Go(o.heal)
	return o, nil
}

// openStore opens the server of this process. If that fails because of what the server noted
// of receivers, it goes without: they may get again what they have handled.
func (o *Outbox) openStore() error {
	err := o.tryStore()
	if err == nil || errors.Is(err, ErrNewer) {
		return err
	}
	put, gone := putNotesAside(o.cfg.Dir, o.name)
	if gone != nil {
		return errors.Join(err, gone)
	}
	if put == "" {
		return err
	}
	o.log.Error("what the outbox noted of its receivers is damaged; it goes on without, and some records may come twice", "error", err, "notes", put)
	return o.tryStore()
}

func (o *Outbox) tryStore() error {
	if err := repair(o.cfg.Dir, o.name, o.prefix, o.log); err != nil {
		return fmt.Errorf("open the outbox in %s: %w", o.cfg.Dir, err)
	}
	node, err := startNode(&server.Options{
		ServerName: "mediaproxy", DontListen: true, StoreDir: o.cfg.Dir,
		JetStreamMaxStore: o.cfg.MaxDisk + o.cfg.MaxDisk/4, JetStreamMaxMemory: 64 << 20,
	}, o.log, "outbox")
	if err != nil {
		return fmt.Errorf("open the outbox in %s: %w", o.cfg.Dir, err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), startTime)
	defer cancel()
	if err = o.make(ctx, store{node: node, js: node.js}, 1); err != nil {
		node.close()
		return fmt.Errorf("open the outbox in %s: %w", o.cfg.Dir, err)
	}
	return nil
}

// make makes the stream, or finds it.
func (o *Outbox) make(ctx context.Context, s store, replicas int) error {
	if err := checkSchema(ctx, s.js, o.name); err != nil {
		return err
	}
	stream, err := s.js.CreateOrUpdateStream(ctx, jetstream.StreamConfig{
		Name: o.name, Subjects: []string{o.prefix + ">"}, Storage: jetstream.FileStorage, Retention: jetstream.WorkQueuePolicy,
		MaxBytes: o.cfg.MaxDisk, Discard: jetstream.DiscardNew, Duplicates: sameRecord, Replicas: replicas, Metadata: schemaMetadata(),
	})
	if err != nil {
		return err
	}
	s.stream = stream
	o.mu.Lock()
	defer o.mu.Unlock()
	o.store, o.broken = s, nil
	return nil
}

// now is the store, and why nothing can be kept in it.
func (o *Outbox) now() (store, error) {
	o.mu.RLock()
	defer o.mu.RUnlock()
	return o.store, o.broken
}

// Add keeps a record for each of the receivers. After nil it outlives the process and the
// machine. A record that is added again soon after, because nobody was told of the first
// time, is kept once.
func (o *Outbox) Add(ctx context.Context, id string, data []byte, receivers ...string) error {
	ctx, cancel := context.WithTimeout(ctx, addTime)
	defer cancel()
	s, err := o.now()
	if err == nil {
		err = o.disk.room(len(receivers) * (len(data) + recordOverhead))
	}
	if err != nil {
		return fmt.Errorf("keep record %s: %w", id, err)
	}
	kept := make([]jetstream.PubAckFuture, len(receivers))
	for i, receiver := range receivers {
		m := &nats.Msg{Subject: o.prefix + receiver, Data: data, Header: nats.Header{headerID: {id}}}
		options := []jetstream.PublishOpt{jetstream.WithMsgID(receiver + " " + id)}
		if o.patience > 0 {
			options = append(options, jetstream.WithRetryWait(publishAgain), jetstream.WithRetryAttempts(int(o.patience/publishAgain)))
		}
		if kept[i], err = s.js.PublishMsgAsync(m, options...); err != nil {
			return fmt.Errorf("keep record %s for %s: %w", id, receiver, err)
		}
	}
	for i, receiver := range receivers {
		err = nil
		select {
		case <-kept[i].Ok():
		case err = <-kept[i].Err():
		case <-ctx.Done():
			err = ctx.Err()
			o.suspect(err)
		}
		if err != nil && strings.Contains(err.Error(), "maximum bytes exceeded") {
			err = fmt.Errorf("%w (%d bytes): %w", ErrFull, o.cfg.MaxDisk, err)
		}
		if err != nil {
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
	s, err := o.now()
	if err != nil {
		return q, err
	}
	info, err := s.stream.Info(ctx, jetstream.WithSubjectFilter(o.prefix+receiver))
	if err != nil {
		return q, fmt.Errorf("look at what waits for %s: %w", receiver, err)
	}
	if q.Waiting = info.State.Subjects[o.prefix+receiver]; q.Waiting == 0 {
		return q, nil
	}
	oldest, err := s.stream.GetMsg(ctx, 0, jetstream.WithGetMsgSubject(o.prefix+receiver))
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
	s, err := o.now()
	if err != nil {
		return nil, err
	}
	info, err := s.stream.Info(ctx, jetstream.WithSubjectFilter(o.prefix+">"))
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
	if o.healing != nil {
		close(o.healing)
		o.healed.Wait()
	}
	if s, _ := o.now(); s.node != nil {
		s.node.close()
	}
	return nil
}
