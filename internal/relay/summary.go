package relay

import (
	"sync"
	"time"

	"example.org/mediaproxy/internal/report"
	"example.org/mediaproxy/internal/wire/relaylink"
)

// traffic measures the relayed bits per second over whole sampling periods.
type traffic struct {
	mu    sync.Mutex // guards what follows
	since time.Time
	bytes uint64 // relayed until since
	bps   float64
}

func (t *traffic) start(now time.Time, bytes uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.since, t.bytes = now, bytes
}

// sample closes a period if it is over.
func (t *traffic) sample(now time.Time, bytes uint64, period time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	passed := now.Sub(t.since)
	if passed < period {
		return
	}
	t.bps = 8 * float64(bytes-t.bytes) / passed.Seconds()
	t.since, t.bytes = now, bytes
}

func (t *traffic) rate() float64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.bps
}

// ownPackets measures the packets that user space moves, each time it is asked.
type ownPackets struct {
	mu        sync.Mutex // guards what follows
	since     time.Time
	packets   uint64 // moved until since
	perSecond float64
}

// leastOwn is the least time to measure over.
const leastOwn = time.Second

func (o *ownPackets) rate(now time.Time, packets uint64) float64 {
	o.mu.Lock()
	defer o.mu.Unlock()
	if passed := now.Sub(o.since); passed >= leastOwn {
		if !o.since.IsZero() {
			o.perSecond = float64(packets-o.packets) / passed.Seconds()
		}
		o.since, o.packets = now, packets
	}
	return o.perSecond
}

func (r *Relay) sample() {
	if r.cfg.TrafficSampling > 0 {
		r.traffic.sample(r.cfg.Now(), r.media.BytesRelayed(), r.cfg.TrafficSampling)
	}
}

// Summary is the document about this relay.
func (r *Relay) Summary() report.Relay {
	streams := r.calls.StreamCount()
	if streams == nil {
		streams = map[string]int{}
	}
	return report.Relay{
		IP:           r.cfg.IPs[0].String(),
		Version:      r.cfg.Version,
		Status:       r.status(),
		Uptime:       int64(r.cfg.Now().Sub(r.started).Seconds()),
		SessionCount: r.calls.Len(),
		StreamCount:  streams,
		BPSRelayed:   r.traffic.rate(),
		Name:         r.cfg.Name,
		Capacity:     r.media.Capacity(),
		Labels:       r.cfg.Labels,
		OneWay:       r.calls.OneWay(),
		Moved:        r.media.Moved(),
	}
}

// load is the short form of the summary that rides in greetings and pings.
func (r *Relay) load() relaylink.Load {
	streams := 0
	for _, n := range r.calls.StreamCount() {
		streams += n
	}
	moved := r.media.Moved()
	return relaylink.Load{Sessions: r.calls.Len(), Streams: streams, BPS: r.traffic.rate(), PortsFree: r.media.PortsFree(),
		OwnPackets: r.own.rate(r.cfg.Now(), moved.Packets-moved.KernelPackets)}
}
