package forward

import (
	"net/netip"
	"time"
)

// Config describes a table. The zero value means defaults.
type Config struct {
	// Threads that look at packets; 0: one for each processor.
	Threads int
	// ReservedDescriptors are kept for everything that is not a port: links,
	// module connections, logs. 0: 256.
	ReservedDescriptors int
	// Clock is time.Now unless a test sets it.
	Clock func() time.Time

	// Locals are the relay's addresses, at most eight, that the kernel serves.
	Locals []netip.Addr
	// FastPath says what may move packets.
	FastPath FastPath
	// Pins is this relay's folder in the BPF file system, where the kernel table
	// waits for the next process. Empty: it ends with this one.
	Pins string
	// Memory is the file that keeps the counters for the next process where the
	// kernel table does not. Empty: they end with this one.
	Memory string
	// Lease is how long the kernel moves flows for a relay that is gone; 0: 300 s.
	Lease time.Duration
	// Inherited are the sockets that a former process left with the service
	// manager, by name; see Sockets.
	Inherited map[string]int

	// notKernel is why a table in user space is one.
	notKernel string
}

// FastPath is a choice of movers. All but the last fall back to what follows them.
type FastPath string

const (
	Auto     FastPath = "auto"      // tc
	TC       FastPath = "tc"        // kernel program: tcx, else clsact
	Clsact   FastPath = "clsact"    // kernel program by a clsact filter, as kernels before 6.6
	SkLookup FastPath = "sk_lookup" // user space, one socket for each address and processor
	Off      FastPath = "off"       // user space, one socket for each port
)

const defaultLease = 300 * time.Second

const (
	// A port connects to its party after this much steady traffic: then the
	// kernel routes once instead of for every packet. Shorter calls do not gain.
	connectAfter = 5 * time.Second
	// Traffic is steady without a gap of this length, and a connected port that
	// was silent for it hears everyone again, or a phone that moved to another
	// address would stay unheard.
	steadyGap = time.Second
)

func (c *Config) setDefaults(processors int) {
	if c.Threads == 0 {
		c.Threads = processors
	}
	if c.ReservedDescriptors == 0 {
		c.ReservedDescriptors = 256
	}
	if c.Clock == nil {
		c.Clock = time.Now
	}
	if c.Lease == 0 {
		c.Lease = defaultLease
	}
	if c.FastPath == "" {
		c.FastPath = Off
	}
}
