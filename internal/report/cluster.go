package report

// Cluster is how the cluster of dispatchers does, as one of them sees it.
type Cluster struct {
	Name     string   `json:"name"`    // of the dispatcher that was asked
	Servers  []Server `json:"servers"` // that it is connected with, itself included
	Size     int      `json:"size"`    // servers that there should be; 0: not known
	Leader   string   `json:"leader"`  // empty: none, so that nothing can be decided
	Replicas int      `json:"replicas"`

	Entries   uint64 `json:"map_entries"` // calls whose relay the shared map knows
	MapOpen   bool   `json:"map_open"`
	MapError  string `json:"map_error,omitempty"` // why the entries are not known
	Queued    int    `json:"map_queued"`          // changes that wait to be written
	Written   uint64 `json:"map_written"`         // by this dispatcher since its start
	Dropped   uint64 `json:"map_dropped"`         // because too many waited
	Retried   uint64 `json:"map_retried"`
	Located   uint64 `json:"located"`    // calls of other dispatchers that this one found on a relay
	Hinted    uint64 `json:"hinted"`     // of those, where the map said
	TakenOver uint64 `json:"taken_over"` // calls of this one that others serve now
	Elsewhere uint64 `json:"elsewhere"`  // requests that another dispatcher served, to whose relays this one is not connected
	ForPeers  uint64 `json:"for_peers"`  // requests served for others
}

// Server is one server of the cluster.
type Server struct {
	Name   string `json:"name"`
	Seen   bool   `json:"seen"`
	Leader bool   `json:"leader"`
	Self   bool   `json:"self"`
}
