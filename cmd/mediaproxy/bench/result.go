package bench

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
)

// Result is the document of a measurement. Times are milliseconds, memory is bytes,
// processor time is in cores: 1 is one processor all the time.
type Result struct {
	Version     string `json:"version"`
	Processors  int    `json:"processors"`
	Relays      int    `json:"relays"`
	Connections int    `json:"connections"`
	Calls       int    `json:"calls"`
	Accounting  string `json:"accounting"`

	UpdatesPerSecond float64           `json:"updates_per_second"` // that were due
	UpdatesReached   float64           `json:"updates_reached"`    // that were answered, a second
	Seconds          float64           `json:"seconds"`
	Offered          uint64            `json:"offered"` // commands: updates and removes
	Answered         uint64            `json:"answered"`
	Errors           uint64            `json:"errors"`
	ErrorKinds       map[string]uint64 `json:"error_kinds"`
	FirstError       string            `json:"first_error,omitempty"`
	// Faults are what must not happen on the links to relays.
	Faults []string `json:"faults,omitempty"`

	Latency          []Latency `json:"latency"`
	ConnectSeconds   float64   `json:"connect_seconds"`   // all relays, without calls
	ReconnectSeconds float64   `json:"reconnect_seconds"` // all relays at once, with all calls
	CallsGiven       Spread    `json:"calls_given"`       // to a relay, of those that were begun
	LinkBytes        LinkBytes `json:"link_bytes"`
	Unacknowledged   int       `json:"unacknowledged"`   // finished calls at the end
	Stored           uint64    `json:"stored,omitempty"` // finished calls, with accounting

	Dispatcher     Process `json:"dispatcher"`
	DispatcherSaid string  `json:"dispatcher_said,omitempty"` // warnings and errors of its log, the last ones
	Generator      struct {
		Cores float64 `json:"cores"`
	} `json:"generator"`

	Steps []Step `json:"steps,omitempty"` // of --max
}

// Latency is of commands of one kind, in milliseconds.
type Latency struct {
	Of    string  `json:"of"`
	Count uint64  `json:"count"`
	P50   float64 `json:"p50"`
	P99   float64 `json:"p99"`
	P999  float64 `json:"p99_9"`
	Max   float64 `json:"max"`
}

// LinkBytes is what goes over all links a second, without TLS and IP.
type LinkBytes struct {
	ToRelays     float64 `json:"to_relays_per_second"`
	ToDispatcher float64 `json:"to_dispatcher_per_second"`
}

// Process is what the dispatcher took. Memory is resident; 0 where that is not known.
type Process struct {
	Cores     float64 `json:"cores"`
	Idle      int64   `json:"idle_bytes"`      // before any relay
	Connected int64   `json:"connected_bytes"` // with all relays, without calls
	Full      int64   `json:"full_bytes"`      // with all calls
	Most      int64   `json:"most_bytes"`
	PerRelay  int64   `json:"per_relay_bytes"` // connected over idle
	PerCall   int64   `json:"per_call_bytes"`  // most over connected
	Warnings  uint64  `json:"log_warnings"`
	Errors    uint64  `json:"log_errors"`
}

func summarise(name string, h *Histogram) Latency {
	ms := func(q float64) float64 { return h.Quantile(q).Seconds() * 1000 }
	return Latency{name, h.Count(), ms(.5), ms(.99), ms(.999), h.Max().Seconds() * 1000}
}

// print writes the result for a person.
func (r *Result) print(out io.Writer) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	line := func(name, format string, args ...any) { fmt.Fprintf(w, name+"\t"+format+"\n", args...) }
	for _, s := range r.Steps {
		how := "carried"
		if !s.Carried {
			how = "not carried: " + s.Why
		}
		line("tried", "%.0f updates/s: %s", s.UpdatesPerSecond, how)
	}
	line("relays", "%d, on %d processors with this generator", r.Relays, r.Processors)
	line("calls", "%d, %d to %d new ones for each relay (median %d)", r.Calls, r.CallsGiven.Least, r.CallsGiven.Most, r.CallsGiven.Median)
	line("updates", "%.0f/s offered, %.0f/s answered, over %d connections for %.1f s", r.UpdatesPerSecond, r.UpdatesReached, r.Connections, r.Seconds)
	line("commands", "%d offered, %d answered, %d errors", r.Offered, r.Answered, r.Errors)
	for _, kind := range slices.Sorted(maps.Keys(r.ErrorKinds)) {
		line("", "%d %s", r.ErrorKinds[kind], kind)
	}
	if r.FirstError != "" {
		line("", "the first: %s", r.FirstError)
	}
	for _, f := range r.Faults {
		line("fault", "%s", f)
	}
	if r.Unacknowledged > 0 {
		line("fault", "%d finished calls were not acknowledged", r.Unacknowledged)
	}
	if r.Accounting != "none" {
		line("accounting", "%s, %d calls stored", r.Accounting, r.Stored)
	}
	line("connecting", "%.2f s without calls, %.2f s all at once with their calls", r.ConnectSeconds, r.ReconnectSeconds)
	line("links", "%.0f kB/s to the relays, %.0f kB/s from them, before TLS", r.LinkBytes.ToRelays/1e3, r.LinkBytes.ToDispatcher/1e3)
	d := r.Dispatcher
	if d.Idle > 0 {
		line("dispatcher", "%.2f cores; %.1f MB idle, %.1f with relays, %.1f with calls, %.1f at most", d.Cores, mega(d.Idle), mega(d.Connected), mega(d.Full), mega(d.Most))
		line("", "%.1f kB for each relay, %.2f kB for each call", float64(d.PerRelay)/1e3, float64(d.PerCall)/1e3)
	} else {
		line("dispatcher", "its process is not measured on this system")
	}
	line("generator", "%.2f cores", r.Generator.Cores)
	if d.Warnings+d.Errors > 0 {
		line("its log", "%d warnings, %d errors", d.Warnings, d.Errors)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	fmt.Fprintln(w)
	fmt.Fprint(w, "milliseconds\tcount\tp50\tp99\tp99.9\tmax\n")
	for _, l := range r.Latency {
		fmt.Fprintf(w, "%s\t%d\t%.2f\t%.2f\t%.2f\t%.2f\n", l.Of, l.Count, l.P50, l.P99, l.P999, l.Max)
	}
	if r.DispatcherSaid != "" {
		fmt.Fprintf(w, "\nThe dispatcher said last:\n%s\n", strings.ReplaceAll(r.DispatcherSaid, "\t", " "))
	}
	return w.Flush()
}

func mega(n int64) float64 { return float64(n) / 1e6 }
