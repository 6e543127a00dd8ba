package attack

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"example.org/mediaproxy/test/internal/phone"
	"example.org/mediaproxy/test/internal/program"
)

const (
	// heavily is how many packets a second come in at the port of a phone that moves:
	// more than the kernel passes up from strangers.
	heavily = 500
	// recovery is how long after its move a phone must be heard, and hear, again: the
	// 2 s of silence after which it may replace its old address, and half a second.
	recovery = 2500 * time.Millisecond
)

// move is how a phone's address changes without a word from the signalling.
type move int

const (
	otherPort    move = iota // the phone goes on from another port
	otherNetwork             // from behind another NAT: another IP
	lostBinding              // its NAT forgets the binding: another port, same socket
	moveKinds
)

func (m move) String() string {
	return [...]string{"another port", "another network", "a lost binding"}[m]
}

// TestMove moves phones that are in the middle of steady calls, with attackers on the
// same ports, and measures for how long either party heard nothing.
func TestMove(t *testing.T) { eachWay(t, kernel, testMove) }

func testMove(t *testing.T, way string) {
	w := newWorld(t, program.Build(t), program.Settings{"fast_path": way})
	moves := 48
	if soak() {
		moves = 100
	}
	if way == kernel { // user space has no limit to compare with
		w.attackHeavily()
	}
	start := time.Now()
	length := typical()
	length.ring = 500 * time.Millisecond
	length.talk = 6500 * time.Millisecond // past 5 s the relay treats the media as steady
	length.resumed = 4 * time.Second      // after the move
	var plans []plan
	for i := range moves {
		plans = append(plans, plan{
			number: i, places: [2]*place{w.callers[i%3], w.mobile[0]}, len: length,
			rtcp: [2]phone.RTCP{reports[i%3], reports[i/3%3]},
		})
	}
	gaps := map[move][]time.Duration{}
	recovered := 0
	for _, c := range w.runJudged(plans, (*call).runWithMove) {
		gaps[c.move()] = append(gaps[c.move()], c.gap)
		if len(c.wrong) == 0 && c.gap <= recovery {
			recovered++
		}
	}
	w.checkAttack(start)
	w.checkMover(way)
	for kind, list := range gaps {
		slices.Sort(list)
		t.Logf("%v: %d calls, silent for %v (median), %v (longest)", kind, len(list), list[len(list)/2].Round(time.Millisecond), list[len(list)-1].Round(time.Millisecond))
	}
	if recovered != moves {
		t.Errorf("%d of %d calls recovered within %v", recovered, moves, recovery)
	}
}

func (c *call) move() move { return move(c.number / 3 % int(moveKinds)) }

// runWithMove makes a call in which the callee moves, and measures for how long the
// party that suffered most heard nothing.
func (c *call) runWithMove(ctx context.Context) error {
	if err := c.establish(ctx); err != nil {
		return err
	}
	if err := c.talk(ctx, phaseTalk, c.len.talk); err != nil {
		return err
	}
	for _, s := range c.w.heavy {
		s.aim(c.to[1].Port())
		defer s.spare(c.to[1].Port())
	}
	for _, p := range c.phones {
		p.WatchGaps()
	}
	if err := c.moveNow(c.move()); err != nil {
		return err
	}
	if err := pass(ctx, c.len.resumed); err != nil {
		return err
	}
	c.gap = max(c.phones[0].LongestGap(), c.phones[1].LongestGap())
	if c.gap > recovery {
		c.wrong = append(c.wrong, fmt.Errorf("after %v a party heard nothing for %v", c.move(), c.gap))
	}
	if err := c.talk(ctx, phaseMoved, time.Second); err != nil {
		return err
	}
	return c.hangUp()
}

func (c *call) moveNow(kind move) error {
	p, at := c.phones[1], c.places[1]
	switch kind {
	case otherNetwork:
		at = c.w.mobile[1]
		fallthrough
	case otherPort:
		return p.Move(at.host, at.ip(c.number))
	}
	return at.router.ForgetBinding(p.Addr(), c.to[1])
}
