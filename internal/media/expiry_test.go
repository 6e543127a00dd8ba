package media

import (
	"math/rand/v2"
	"testing"
	"time"
)

// Whoever asks a stream only when it said so misses nothing: before that moment it times
// out in no case, whatever packets come, as long as signalling says nothing new.
func TestNextQuestion(t *testing.T) {
	for seed := range uint64(300) {
		r := rand.New(rand.NewPCG(seed, 1))
		cfg := Config{
			IdleTimeout: seconds(10 + r.IntN(90)), StreamTimeout: seconds(10 + r.IntN(90)), HoldTimeout: seconds(20 + r.IntN(200)),
		}
		if seed%2 == 0 {
			cfg.OneWayTimeout = seconds(5 + r.IntN(100))
		}
		e, fake := newEngine(t, cfg)
		s, err := e.Open(Spec{MediaType: "audio", CallID: "c"})
		if err != nil {
			t.Fatal(err)
		}
		c := &call{Stream: s, net: fake}
		c.describe(Caller, phoneA)
		c.describe(Callee, ap("8.8.8.8:3000"))
		if r.IntN(2) == 0 {
			c.Answered()
		}
		var next time.Duration
		asked, talk := 0, 0
		for step := range 1000 {
			if r.IntN(50) == 0 {
				talk = r.IntN(3) * r.IntN(60) // often nobody does
			}
			switch n := r.IntN(300); {
			case n == 0:
				c.Describe(Side(r.IntN(2)), Party{Addr: phoneA, Direction: Direction(r.IntN(4))})
				next = 0
			case n == 1:
				c.Answered()
				next = 0
			case n == 2:
				c.nextProcess(t, nil)
				fake, next = c.net, 0
			case n < talk:
				c.deliver(callerPort, phoneA)
			case n < 2*talk:
				c.deliver(calleePort, ap("8.8.8.8:3000"))
			default:
				fake.Advance(time.Duration(r.IntN(1500)) * time.Millisecond)
			}
			now := fake.Now()
			_, expired, again := c.Expired()
			if now >= next {
				next, asked = again, asked+1
			} else if expired {
				t.Fatalf("seed %d, step %d: timed out at %v, was to be asked at %v", seed, step, now, next)
			}
			if expired {
				break
			}
		}
		if asked == 0 {
			t.Fatalf("seed %d: never asked", seed)
		}
	}
}

// A stream that talks is asked rarely.
func TestTalkingStreamIsAskedRarely(t *testing.T) {
	c := talking(t)
	if _, expired, next := c.Expired(); expired || next-c.net.Now() < c.engine.cfg.IdleTimeout-seconds(1) {
		t.Errorf("expired %v, to be asked after %v", expired, next-c.net.Now())
	}
}

func seconds(n int) time.Duration { return time.Duration(n) * time.Second }
