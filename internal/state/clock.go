package state

import "time"

// setClock is the least by which a clock has to be wrong to have been set, not adjusted.
const setClock = 5 * time.Second

// clockWatch compares the clock of the day with the time that passes.
type clockWatch struct {
	wall   func() time.Time
	at     time.Time // of the day
	passed time.Time // monotonic
}

func watchClock(wall func() time.Time) *clockWatch {
	return &clockWatch{wall, wall().Round(0), time.Now()}
}

// wasSet says whether the clock of the day has been set since it was asked last.
func (c *clockWatch) wasSet() bool {
	wall, now := c.wall().Round(0), time.Now()
	moved, passed := wall.Sub(c.at), now.Sub(c.passed)
	c.at, c.passed = wall, now
	return (moved - passed).Abs() > setClock
}
