package ctl

import (
	"encoding/csv"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"example.org/mediaproxy/internal/report"
	"example.org/mediaproxy/internal/wire/manage"
)

func (c *control) exportCommand() *cobra.Command {
	var asCSV bool
	var since string
	cmd := &cobra.Command{
		Use: "export", Short: "Print the finished calls that are in the database", Args: words(),
		Long: `Reads finished calls back from the database, in the order in which they were
stored. --csv prints a header and one line for each stream, --json one document a line.
--since leaves out calls that began before a day or time, in the time zone of this host.`,
		Example: `  mediaproxy ctl accounting export --csv --since 2026-11-01 > november.csv
  mediaproxy ctl accounting export --json | jq .duration`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if asCSV == c.json {
				return usage("one of --csv and --json is wanted; more: %s --help", cmd.CommandPath())
			}
			begin, err := parseSince(since)
			if err != nil {
				return err
			}
			print := exportJSON(cmd.OutOrStdout())
			if asCSV {
				print, err = exportCSV(cmd.OutOrStdout())
			}
			if err != nil {
				return err
			}
			return c.export(begin, print)
		},
	}
	cmd.Flags().BoolVar(&asCSV, "csv", false, "print comma-separated values")
	cmd.Flags().StringVar(&since, "since", "", "only calls that began at this `DATE`, as in 2026-11-21 or 2026-11-21T08:00, or later")
	return cmd
}

// parseSince reads a day or a time.
func parseSince(s string) (int64, error) {
	if s == "" {
		return 0, nil
	}
	for _, form := range []string{time.DateOnly, "2006-01-02T15:04", "2006-01-02T15:04:05", time.RFC3339} {
		if t, err := time.ParseInLocation(form, s, time.Local); err == nil && t.Unix() > 0 {
			return t.Unix(), nil
		}
	}
	return 0, usage("--since %q: want a day as in 2026-11-21 or a time as in 2026-11-21T08:00", s)
}

// export goes through the pages.
func (c *control) export(since int64, print func(call json.RawMessage) (readable bool, err error)) error {
	unreadable, last := 0, int64(0)
	request := manage.Request{Verb: manage.Stored, Page: manage.Page{Since: since}}
	for {
		docs, err := c.ask(request)
		if err != nil {
			return err
		}
		page, err := decode[report.Stored](docs)
		if err != nil {
			return err
		}
		for _, s := range page {
			if s.ID <= request.Page.After {
				return fmt.Errorf("answer of the dispatcher: call %d again", s.ID)
			}
			request.Page.After = s.ID
			readable := !s.Unreadable
			if len(s.Call) > 0 {
				if readable, err = print(s.Call); err != nil {
					return err
				}
			}
			if !readable {
				unreadable++
				last = s.ID
			}
		}
		if len(page) == 0 {
			break
		}
	}
	if unreadable > 0 {
		return fmt.Errorf("rows that are no documents and were left out: %d, the last with id %d", unreadable, last)
	}
	return nil
}

func exportJSON(out io.Writer) func(json.RawMessage) (bool, error) {
	return func(call json.RawMessage) (bool, error) {
		line, err := report.Append(nil, call)
		if err != nil {
			return false, nil
		}
		_, err = out.Write(append(line, '\n'))
		return true, err
	}
}

// callColumns and streamColumns are what a line of CSV has. They are added to, never
// changed: people's spreadsheets know them.
var (
	callColumns = []string{"call_id", "from_tag", "to_tag", "from_uri", "to_uri", "start_time", "duration", "caller_ua", "callee_ua",
		"username", "dialog_id", "timed_out", "reason", "relay", "record_id"}
	streamColumns = []string{"media_type", "status", "timeout_wait", "caller_codec", "callee_codec", "stream_start", "stream_end", "post_dial_delay",
		"caller_bytes", "callee_bytes", "caller_packets", "callee_packets", "caller_local", "callee_local", "caller_remote", "callee_remote"}
)

func exportCSV(out io.Writer) (func(json.RawMessage) (bool, error), error) {
	w := csv.NewWriter(out)
	head := append(append([]string{}, callColumns...), streamColumns...)
	return func(call json.RawMessage) (bool, error) {
		lines, err := csvLines(call)
		if err != nil {
			return false, nil
		}
		return true, w.WriteAll(lines)
	}, w.WriteAll([][]string{head})
}

// csvLines are those of one call. One that has no stream has a line too.
func csvLines(raw json.RawMessage) ([][]string, error) {
	var call struct {
		report.Session
		TimedOut bool `json:"timed_out"`
	}
	if err := json.Unmarshal(raw, &call); err != nil {
		return nil, err
	}
	start := ""
	if t := call.StartTime; t != nil {
		whole, part := math.Modf(*t)
		start = time.Unix(int64(whole), int64(part*1e9)).UTC().Format("2006-01-02T15:04:05.000Z")
	}
	head := []string{call.CallID, call.FromTag, orEmpty(call.ToTag), call.FromURI, call.ToURI, start, strconv.FormatInt(call.Duration, 10), call.CallerUA, call.CalleeUA,
		orEmpty(call.Username), call.DialogID, strconv.FormatBool(call.TimedOut), call.Reason, call.Relay, call.RecordID}
	for i := range head {
		head[i] = clean(head[i])
	}
	if len(call.Streams) == 0 {
		return [][]string{append(head, make([]string, len(streamColumns))...)}, nil
	}
	var lines [][]string
	for _, s := range call.Streams {
		delay := ""
		if s.PostDialDelay != nil {
			delay = strconv.FormatFloat(*s.PostDialDelay, 'f', 3, 64)
		}
		number, count := func(n int64) string { return strconv.FormatInt(n, 10) }, func(n uint64) string { return strconv.FormatUint(n, 10) }
		lines = append(lines, append(head[:len(head):len(head)],
			clean(s.MediaType), clean(s.Status), number(s.TimeoutWait), clean(s.CallerCodec), clean(s.CalleeCodec), number(s.StartTime), number(s.EndTime), delay,
			count(s.CallerBytes), count(s.CalleeBytes), count(s.CallerPackets), count(s.CalleePackets),
			clean(s.CallerLocal), clean(s.CalleeLocal), clean(s.CallerRemote), clean(s.CalleeRemote)))
	}
	return lines, nil
}

func orEmpty(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}
