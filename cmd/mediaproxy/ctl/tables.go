package ctl

import (
	"encoding/json"
	"fmt"
	"io"
	"sort"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"example.org/mediaproxy/internal/report"
)

// printJSON prints a JSON array with one document a line, so that both jq and
// grep are at home in it.
func printJSON(out io.Writer, docs []json.RawMessage) error {
	text := []byte("[")
	for i, doc := range docs {
		if i > 0 {
			text = append(text, ',')
		}
		text = append(text, '\n')
		text = append(text, doc...)
	}
	if len(docs) > 0 {
		text = append(text, '\n')
	}
	_, err := out.Write(append(text, "]\n"...))
	return err
}

// decode reads every document of an answer.
func decode[T any](docs []json.RawMessage) ([]T, error) {
	decoded := make([]T, len(docs))
	for i, raw := range docs {
		if err := json.Unmarshal(raw, &decoded[i]); err != nil {
			return nil, fmt.Errorf("answer of the dispatcher: document %d: %w", i+1, err)
		}
	}
	return decoded, nil
}

// table writes rows with aligned columns.
type table struct{ w *tabwriter.Writer }

func newTable(out io.Writer, head ...string) table {
	t := table{tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)}
	t.row(head...)
	return t
}

func (t table) row(cells ...string) {
	for i, cell := range cells {
		if cell = clean(cell); cell == "" {
			cell = "-"
		}
		cells[i] = cell
	}
	fmt.Fprintln(t.w, strings.Join(cells, "\t"))
}

func printBackends(out io.Writer, docs []json.RawMessage) error {
	backends, err := decode[report.Backend](docs)
	if err != nil {
		return err
	}
	t := newTable(out, "BACK-END", "WAITING", "OLDEST", "STORED", "FAILED TRIES", "LAST ERROR")
	for _, b := range backends {
		oldest, last := "", ""
		if b.Waiting > 0 {
			oldest = seconds(b.OldestAge)
		}
		if b.LastError != "" {
			last = seconds(b.LastErrorAge) + " ago: " + b.LastError
		}
		t.row(b.Name, strconv.FormatUint(b.Waiting, 10), oldest, strconv.FormatUint(b.Stored, 10), strconv.FormatUint(b.Failed, 10), last)
	}
	return t.w.Flush()
}

func printCluster(out io.Writer, docs []json.RawMessage) error {
	clusters, err := decode[report.Cluster](docs)
	if err != nil {
		return err
	}
	for _, c := range clusters {
		t := newTable(out, "SERVER", "STATE", "ROLE")
		for _, s := range c.Servers {
			state, role := "away", ""
			if s.Seen {
				state = "connected"
			}
			if s.Self {
				state = "asked"
			}
			if s.Leader {
				role = "leader"
			}
			t.row(s.Name, state, role)
		}
		if err := t.w.Flush(); err != nil {
			return err
		}
		printClusterText(out, c)
	}
	return nil
}

func printClusterText(out io.Writer, c report.Cluster) {
	if n := len(c.Servers); c.Size > n {
		fmt.Fprintf(out, "%d of %d servers are away\n", c.Size-n, c.Size)
	}
	if c.Leader == "" {
		fmt.Fprintln(out, "no leader: more than half of the servers have to reach each other; calls and accounting on this dispatcher's disk go on")
	}
	entries := strconv.FormatUint(c.Entries, 10) + " calls"
	switch {
	case !c.MapOpen:
		entries = "not open yet"
	case c.MapError != "":
		entries = "does not answer: " + clean(c.MapError)
	}
	fmt.Fprintf(out, "shared map: %s; this dispatcher wrote %d, %d wait, %d tried again, %d dropped\n", entries, c.Written, c.Queued, c.Retried, c.Dropped)
	fmt.Fprintf(out, "calls of others found here: %d, %d of them where the map said; calls that others took over: %d\n", c.Located, c.Hinted, c.TakenOver)
	fmt.Fprintf(out, "requests that others served, because their relays have the call: %d; served for others: %d\n", c.Elsewhere, c.ForPeers)
	kept := "this dispatcher alone"
	if c.Replicas > 1 {
		kept = strconv.Itoa(c.Replicas) + " servers"
	}
	fmt.Fprintf(out, "finished calls are kept by %s until they are stored\n", kept)
}

func seconds(n float64) string { return (time.Duration(n) * time.Second).String() }

func printRelays(out io.Writer, docs []json.RawMessage) error {
	relays, err := decode[report.Relay](docs)
	if err != nil {
		return err
	}
	t := newTable(out, "RELAY", "ADDRESS", "STATUS", "SESSIONS", "STREAMS", "TRAFFIC", "MOVED BY", "UPTIME", "VERSION")
	for _, r := range relays {
		if r.Status == "error" { // it did not answer the dispatcher
			t.row(r.Name, r.IP, r.Status, "", "", "", "", "", "")
			continue
		}
		sessions := strconv.Itoa(r.SessionCount)
		if r.Capacity > 0 {
			sessions += " of " + strconv.Itoa(r.Capacity)
		}
		streams := streamCount(r.StreamCount)
		if r.OneWay > 0 {
			streams += fmt.Sprintf(" (%d one-way)", r.OneWay)
		}
		t.row(r.Name, r.IP, r.Status, sessions, streams, bits(r.BPSRelayed), movedBy(r.Moved), span(r.Uptime), r.Version)
	}
	if err := t.w.Flush(); err != nil {
		return err
	}
	for _, r := range relays {
		if r.NotKernel != "" {
			fmt.Fprintf(out, "%s moves media in user space: %s\n", clean(r.Name), clean(r.NotKernel))
		}
	}
	return nil
}

// movedBy is like "tc, 98 % of packets".
func movedBy(m report.Moved) string {
	if m.KernelPackets == 0 || m.Packets == 0 {
		return m.Mover
	}
	return fmt.Sprintf("%s, %d %% of packets", m.Mover, 100*m.KernelPackets/m.Packets)
}

// streamCount is like "3 audio, 1 video".
func streamCount(count map[string]int) string {
	var parts []string
	for media, n := range count {
		parts = append(parts, fmt.Sprintf("%d %s", n, media))
	}
	sort.Slice(parts, func(i, j int) bool {
		return parts[i][strings.IndexByte(parts[i], ' '):] < parts[j][strings.IndexByte(parts[j], ' '):]
	})
	return strings.Join(parts, ", ")
}

// bits is a rate for people.
func bits(perSecond float64) string {
	for _, unit := range []string{"bit/s", "kbit/s", "Mbit/s", "Gbit/s"} {
		if perSecond < 1000 || unit == "Gbit/s" {
			return strconv.FormatFloat(perSecond, 'f', decimals(perSecond, unit), 64) + " " + unit
		}
		perSecond /= 1000
	}
	return ""
}

func decimals(value float64, unit string) int {
	if unit == "bit/s" || value >= 100 {
		return 0
	}
	return 1
}

// span is a time for people: 1d3h, 2h5m, 3m20s, 14s.
func span(seconds int64) string {
	switch {
	case seconds >= 24*3600:
		return fmt.Sprintf("%dd%dh", seconds/(24*3600), seconds/3600%24)
	case seconds >= 3600:
		return fmt.Sprintf("%dh%dm", seconds/3600, seconds/60%60)
	case seconds >= 60:
		return fmt.Sprintf("%dm%ds", seconds/60, seconds%60)
	}
	return fmt.Sprintf("%ds", seconds)
}

func printSessions(out io.Writer, docs []json.RawMessage) error {
	sessions, err := decode[report.Session](docs)
	if err != nil {
		return err
	}
	if len(sessions) == 0 {
		fmt.Fprintln(out, "no calls")
		return nil
	}
	t := newTable(out, "CALL-ID", "FROM", "TO", "RELAY", "TIME", "MEDIA", "CALLER", "CALLEE")
	for _, s := range sessions {
		if len(s.Streams) == 0 {
			t.row(s.CallID, s.FromURI, s.ToURI, s.Relay, duration(s), "", "", "")
			continue
		}
		for i, stream := range s.Streams {
			media := stream.MediaType + " " + stream.Status
			if i == 0 {
				t.row(s.CallID, s.FromURI, s.ToURI, s.Relay, duration(s), media, stream.CallerRemote, stream.CalleeRemote)
			} else {
				t.row(" ", " ", " ", " ", " ", media, stream.CallerRemote, stream.CalleeRemote)
			}
		}
	}
	return t.w.Flush()
}

func duration(s report.Session) string {
	if s.StartTime == nil {
		return "unanswered"
	}
	return span(s.Duration)
}

// printSession shows everything that is known of a call; a Call-ID may have
// several sessions, when a call passes the relay twice.
func printSession(out io.Writer, docs []json.RawMessage) error {
	sessions, err := decode[report.Session](docs)
	if err != nil {
		return err
	}
	for i, s := range sessions {
		if i > 0 {
			fmt.Fprintln(out)
		}
		printFacts(out, s)
		for _, stream := range s.Streams {
			printStream(out, stream)
		}
	}
	return nil
}

func printFacts(out io.Writer, s report.Session) {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	defer w.Flush()
	started := "not answered"
	if s.StartTime != nil {
		started = time.UnixMilli(int64(*s.StartTime*1000)).UTC().Format(time.RFC3339) + ", " + span(s.Duration) + " ago"
	}
	for _, fact := range [][2]string{
		{"Call-ID", s.CallID},
		{"From", s.FromURI + optional(" tag ", &s.FromTag)},
		{"To", s.ToURI + optional(" tag ", s.ToTag)},
		{"Answered", started},
		{"Ended", s.Reason},
		{"Relay", s.Relay},
		{"Dialog", s.DialogID},
		{"Username", optional("", s.Username)},
		{"Caller's phone", s.CallerUA},
		{"Callee's phone", s.CalleeUA},
	} {
		if fact[1] != "" {
			fmt.Fprintf(w, "%s:\t%s\n", fact[0], clean(fact[1]))
		}
	}
}

func optional(before string, s *string) string {
	if s == nil || *s == "" {
		return ""
	}
	return before + *s
}

func printStream(out io.Writer, s report.Stream) {
	status := clean(s.Status)
	if s.TimeoutWait > 0 {
		status += fmt.Sprintf(" after %d s", s.TimeoutWait)
	}
	fmt.Fprintf(out, "Stream %s: %s, from second %d to %d\n", clean(s.MediaType), status, s.StartTime, s.EndTime)
	t := newTable(out, "  PARTY", "SENDS FROM", "TO RELAY", "CODEC", "PACKETS", "BYTES", "LOST", "JITTER", "REFUSED", "SILENT", "MOVED BY")
	party := func(name, remote, local, codec string, packets, bytes uint64, q *report.Quality) {
		row := []string{"  " + name, remote, local, codec, strconv.FormatUint(packets, 10), strconv.FormatUint(bytes, 10), "", "", "", "", ""}
		if q != nil {
			row[6] = strconv.FormatInt(q.Lost, 10)
			row[7] = fmt.Sprintf("%.1f ms", q.JitterMS)
			row[8] = strconv.FormatUint(q.Refused, 10)
			row[9] = "always"
			if q.Silent >= 0 {
				row[9] = fmt.Sprintf("%.1f s", q.Silent)
			}
			row[10] = q.Mover
		}
		t.row(row...)
	}
	party("caller", s.CallerRemote, s.CallerLocal, s.CallerCodec, s.CallerPackets, s.CallerBytes, s.Caller)
	party("callee", s.CalleeRemote, s.CalleeLocal, s.CalleeCodec, s.CalleePackets, s.CalleeBytes, s.Callee)
	t.w.Flush()
}

func printExplanations(out io.Writer, docs []json.RawMessage) error {
	explanations, err := decode[report.Explanation](docs)
	if err != nil {
		return err
	}
	for i, e := range explanations {
		if i > 0 {
			fmt.Fprintln(out)
		}
		for _, sentence := range e.Sentences() {
			fmt.Fprintln(out, clean(sentence))
		}
	}
	return nil
}
