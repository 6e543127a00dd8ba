package forward

import "time"

// LoopConfig describes the user-space table. The zero value means defaults.
type LoopConfig struct {
	// Threads that move packets; 0: one for each processor.
	Threads int
	// ReservedDescriptors are kept for everything that is not a port: links,
	// module connections, logs. 0: 256.
	ReservedDescriptors int
	// Clock is time.Now unless a test sets it.
	Clock func() time.Time
}

const (
	// A port connects to its party after this much steady traffic: then the
	// kernel routes once instead of for every packet. Shorter calls do not gain.
	connectAfter = 5 * time.Second
	// Traffic is steady without a gap of this length, and a connected port that
	// was silent for it hears everyone again, or a phone that moved to another
	// address would stay unheard.
	steadyGap = time.Second
)
