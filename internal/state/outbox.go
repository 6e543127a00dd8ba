// Package state keeps what a dispatcher owes until somebody has it, whatever happens to
// the process or the machine meanwhile.
//
//	Add ─▶ on disk, once for each receiver ─▶ Receive ─▶ handled: gone
//	                                             └─ failed: again, later
//
// It does not know what its records mean. It is a JetStream server inside the process,
// which listens to nobody.
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
	streamName = "outbox"
	subject    = "outbox."
	startTime  = 30 * time.Second // to read what waits
	addTime    = 10 * time.Second
	sameRecord = 10 * time.Minute // within which a record that is added again is known
)

// Outbox is open until Close. Its methods may be called from anywhere.
type Outbox struct {
	cfg    Config
	log    *slog.Logger
	server *server.Server
	conn   *nats.Conn
	js     jetstream.JetStream
	stream jetstream.Stream
}

// Open makes the outbox, or finds what a former process left in it.
func Open(cfg Config, log *slog.Logger) (_ *Outbox, err error) {
	cfg.setDefaults()
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the outbox's folder: %w", err)
	}
	o := &Outbox{cfg: cfg, log: log}
	defer func() {
		if err != nil {
			o.Close()
		}
	}()
	// SyncAlways: what was taken is on the disk. Without it that is so two minutes later.
	o.server, err = server.NewServer(&server.Options{
		ServerName: "mediaproxy", DontListen: true, NoSigs: true, JetStream: true, StoreDir: cfg.Dir, SyncAlways: true,
		JetStreamMaxStore: cfg.MaxDisk + cfg.MaxDisk/4, JetStreamMaxMemory: 64 << 20,
	})
	if err != nil {
		return nil, fmt.Errorf("open the outbox in %s: %w", cfg.Dir, err)
	}
	o.server.SetLoggerV2(serverLog{log}, false, false, false)
	o.server.Start()
	if !o.server.ReadyForConnections(startTime) {
		return nil, fmt.Errorf("open the outbox in %s: not ready within %v", cfg.Dir, startTime)
	}
	if o.conn, err = nats.Connect("", nats.InProcessServer(o.server), nats.MaxReconnects(-1)); err != nil {
		return nil, fmt.Errorf("open the outbox in %s: %w", cfg.Dir, err)
	}
	if o.js, err = jetstream.New(o.conn); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), startTime)
	defer cancel()
	o.stream, err = o.js.CreateOrUpdateStream(ctx, jetstream.StreamConfig{
		Name: streamName, Subjects: []string{subject + ">"}, Storage: jetstream.FileStorage, Retention: jetstream.WorkQueuePolicy,
		MaxBytes: cfg.MaxDisk, Discard: jetstream.DiscardNew, Duplicates: sameRecord,
	})
	if err != nil {
		return nil, fmt.Errorf("open the outbox in %s: %w", cfg.Dir, err)
	}
	return o, nil
}

// Add keeps a record for each of the receivers. After nil it outlives the process and the
// machine. A record that is added again soon after, because nobody was told of the first
// time, is kept once.
func (o *Outbox) Add(ctx context.Context, id string, data []byte, receivers ...string) error {
	ctx, cancel := context.WithTimeout(ctx, addTime)
	defer cancel()
	for _, receiver := range receivers {
		m := &nats.Msg{Subject: subject + receiver, Data: data, Header: nats.Header{headerID: {id}}}
		if _, err := o.js.PublishMsg(ctx, m, jetstream.WithMsgID(receiver+" "+id)); err != nil {
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
	info, err := o.stream.Info(ctx, jetstream.WithSubjectFilter(subject+receiver))
	if err != nil {
		return q, fmt.Errorf("look at what waits for %s: %w", receiver, err)
	}
	if q.Waiting = info.State.Subjects[subject+receiver]; q.Waiting == 0 {
		return q, nil
	}
	oldest, err := o.stream.GetMsg(ctx, 0, jetstream.WithGetMsgSubject(subject+receiver))
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
	info, err := o.stream.Info(ctx, jetstream.WithSubjectFilter(subject+">"))
	if err != nil {
		return nil, fmt.Errorf("look at the outbox: %w", err)
	}
	waiting := map[string]uint64{}
	for s, n := range info.State.Subjects {
		waiting[strings.TrimPrefix(s, subject)] = n
	}
	return waiting, nil
}

// Close leaves what waits to the next process.
func (o *Outbox) Close() error {
	if o.conn != nil {
		_ = o.conn.FlushTimeout(time.Second) // the last refusals
		o.conn.Close()
	}
	if o.server != nil {
		o.server.Shutdown()
		o.server.WaitForShutdown()
	}
	return nil
}
