package state

import (
	"context"
	"encoding/base64"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// ErrNotThere: the map has no such key, or cannot be asked now.
var ErrNotThere = errors.New("not in the map")

const (
	mapAge    = 24 * time.Hour // of a key that nobody deletes
	mapDisk   = 256 << 20      // bytes: a million keys and more
	mapQueue  = 1 << 16        // keys that wait to be written; what comes then is dropped
	mapWriter = 8              // at once
	markerAge = 10 * time.Second
	// longestKey keeps what it becomes well below what the protocol takes in a line.
	longestKey = 512
)

// Map is shared by all dispatchers of a cluster. What it says may be late or wrong: writing
// waits in a queue, of which too much is dropped, and what is old is forgotten. Its methods
// return at once, and may be called from anywhere.
type Map struct {
	cluster *Cluster
	name    string
	kv      atomic.Pointer[jetstream.KeyValue] // nil: not there yet

	mu      sync.Mutex // guards what follows
	waiting map[string][]byte
	order   []string            // the same, the oldest first
	writing map[string]struct{} // by one writer, so that later values come later
	wake    chan struct{}       // holds one
	written uint64
	dropped uint64
	retried uint64
}

// Map opens a map of the cluster. To be called before anything else, from one goroutine.
func (c *Cluster) Map(name string) *Map {
	m := &Map{cluster: c, name: name, waiting: map[string][]byte{}, writing: map[string]struct{}{}, wake: make(chan struct{}, 1)}
	c.maps = append(c.maps, m)
	c.wg.Go(func() {
		if !c.until("open the map "+name, m.open) {
			return
		}
		var writers sync.WaitGroup
		for range mapWriter {
			writers.Go(m.write)
		}
		writers.Wait()
	})
	return m
}

// oneServer is the answer of a server elsewhere that has no others to keep replicas.
const oneServer jetstream.ErrorCode = 10074

func (m *Map) open(ctx context.Context) error {
	if err := checkSchema(ctx, m.cluster.node.js, "KV_"+m.name); err != nil {
		return err
	}
	cfg := jetstream.KeyValueConfig{
		Bucket: m.name, TTL: mapAge, MaxBytes: mapDisk, Replicas: m.cluster.copies(), LimitMarkerTTL: markerAge,
		Storage: jetstream.FileStorage, Metadata: schemaMetadata(),
	}
	kv, err := m.cluster.node.js.CreateOrUpdateKeyValue(ctx, cfg)
	var refused *jetstream.APIError
	if errors.As(err, &refused) && refused.ErrorCode == oneServer {
		cfg.Replicas = 1
		kv, err = m.cluster.node.js.CreateOrUpdateKeyValue(ctx, cfg)
	}
	if err != nil {
		return err
	}
	m.kv.Store(&kv)
	return nil
}

// encode makes any text a key.
func encode(key string) (string, bool) {
	return base64.RawURLEncoding.EncodeToString([]byte(key)), key != "" && len(key) <= longestKey
}

// Get reads a value until the context ends.
func (m *Map) Get(ctx context.Context, key string) ([]byte, error) {
	kv := m.kv.Load()
	encoded, ok := encode(key)
	if kv == nil || !ok {
		return nil, ErrNotThere
	}
	entry, err := (*kv).Get(ctx, encoded)
	if err != nil {
		return nil, errors.Join(ErrNotThere, err)
	}
	return entry.Value(), nil
}

// Put has a value written. It keeps the slice.
func (m *Map) Put(key string, value []byte) {
	if value == nil {
		value = []byte{}
	}
	m.add(key, value)
}

// Delete has a key deleted.
func (m *Map) Delete(key string) { m.add(key, nil) }

func (m *Map) add(key string, value []byte) {
	key, ok := encode(key)
	if !ok {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, waits := m.waiting[key]; !waits {
		if len(m.order) >= mapQueue {
			m.dropped++
			return
		}
		m.order = append(m.order, key)
	}
	m.waiting[key] = value
	m.wakeLocked()
}

func (m *Map) wakeLocked() {
	select {
	case m.wake <- struct{}{}:
	default:
	}
}

// take is the oldest key that nobody writes at the moment.
func (m *Map) take() (key string, value []byte, ok bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for i, k := range m.order {
		if _, busy := m.writing[k]; busy {
			continue
		}
		// At most as many are passed over as there are writers.
		copy(m.order[1:i+1], m.order[:i])
		if m.order = m.order[1:]; len(m.order) == 0 {
			m.order = nil // let go of what a burst needed
		}
		value = m.waiting[k]
		delete(m.waiting, k)
		m.writing[k] = struct{}{}
		if len(m.order) > 0 {
			m.wakeLocked()
		}
		return k, value, true
	}
	return "", nil, false
}

// done ends the writing of a key. What was not written waits again, unless something newer
// does.
func (m *Map) done(key string, value []byte, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.writing, key)
	if err == nil {
		m.written++
	} else if _, newer := m.waiting[key]; !newer {
		m.retried++
		m.waiting[key] = value
		m.order = append(m.order, key)
	}
	if len(m.order) > 0 {
		m.wakeLocked()
	}
}

// write writes what waits until the cluster is left.
func (m *Map) write() {
	c := m.cluster
	for {
		select {
		case <-c.ctx.Done():
			return
		case <-m.wake:
		}
		for {
			key, value, ok := m.take()
			if !ok {
				break
			}
			err := m.one(c.ctx, key, value)
			m.done(key, value, err)
			if err != nil { // an election: it takes seconds
				rest(c.ctx, tryAgain/2)
			}
			if c.ctx.Err() != nil {
				return
			}
		}
	}
}

func (m *Map) one(ctx context.Context, key string, value []byte) error {
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	kv := *m.kv.Load()
	if value != nil {
		_, err := kv.Put(ctx, key, value)
		return err
	}
	return kv.Purge(ctx, key, jetstream.PurgeTTL(markerAge))
}

// MapStats tells of a map.
type MapStats struct {
	Name    string
	Open    bool
	Entries uint64
	Queued  int    // writes that wait
	Written uint64 // by this process
	Dropped uint64 // because too many waited
	Retried uint64
	Error   string // why the entries are not known
}

// stats also tells who keeps the map.
func (m *Map) stats(ctx context.Context) (s MapStats, group *jetstream.ClusterInfo) {
	m.mu.Lock()
	s = MapStats{Name: m.name, Queued: len(m.order) + len(m.writing), Written: m.written, Dropped: m.dropped, Retried: m.retried}
	m.mu.Unlock()
	kv := m.kv.Load()
	if s.Open = kv != nil; !s.Open {
		return s, nil
	}
	status, err := (*kv).Status(ctx)
	if err != nil {
		s.Error = err.Error()
		return s, nil
	}
	s.Entries = status.Values()
	if full, ok := status.(*jetstream.KeyValueBucketStatus); ok {
		group = full.StreamInfo().Cluster
	}
	return s, group
}
