package doctor

import (
	"io/fs"
	"net/netip"
)

// Host is where facts come from. A test has one that was recorded.
type Host interface {
	// Files is the root folder: /proc, /sys and /etc are read through it.
	Files() fs.FS
	// Folder looks at the way from / to a folder, as far as it exists.
	Folder(path string) Folder
	// SameNetwork tells whether a process is in our network namespace.
	SameNetwork(pid string) bool
	// Devices are the network devices.
	Devices() ([]Device, error)
	// Chains are the packet filters of nftables that see what comes for this host.
	Chains() ([]Chain, error)
	// Synchronised tells whether somebody sets the wall clock right.
	Synchronised() (bool, error)
}

// Folder is what is known of a path.
type Folder struct {
	Path  string
	Steps []Step // from / on; shorter than the path if the rest does not exist

	// of the file system at the last step
	Type     int64
	ReadOnly bool
	Free     uint64 // bytes
}

// Step is a folder on the way.
type Step struct {
	Path     string
	UID, GID int
	Mode     fs.FileMode
}

// Device is a network device.
type Device struct {
	Name      string
	Index     int
	Hardware  uint16 // ARPHRD_ number
	Kind      string // "veth", "vlan", "bond" ...; empty: hardware, or what looks like it
	Loopback  bool
	Up        bool
	Running   bool // has a link
	MTU       int
	Lower     int // device that a VLAN is on; 0: none
	Master    int // bond or bridge that it belongs to; 0: none
	Addresses []netip.Addr
	Programs  []string // of tc and XDP, whoever put them there

	Offloads *Offloads // nil: the driver does not tell
	Channels *Channels // nil: the driver does not tell
	Hash4    Hash      // how UDP is spread over queues
	Hash6    Hash
}

// Offloads that join packets.
type Offloads struct {
	GRO, LRO bool
	LROFixed bool // cannot be changed
}

// Channels are receive queues.
type Channels struct {
	Use, Max int
	Name     string // what ethtool -L calls them: "rx" or "combined"
}

// Hash is what decides the receive queue of a datagram.
type Hash uint8

const (
	HashUnknown   Hash = iota
	HashAddresses      // all media between two hosts meets in one queue
	HashPorts          // each stream has its own
)

// Chain is an nftables chain on the input hook.
type Chain struct {
	Family string // "ip", "ip6" or "inet"
	Table  string
	Name   string
	Rules  int
	Drops  bool // what no rule decides
}
