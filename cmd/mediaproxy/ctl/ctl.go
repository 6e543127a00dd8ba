// Package ctl is the command `mediaproxy ctl`: what operators type to see and
// to end calls. It speaks the management protocol to a dispatcher, over the
// UNIX socket in the runtime folder or over the network with certificates.
//
// Exit codes: 0 done, 1 failed or refused, 2 mistake in the command line,
// 3 nothing found.
package ctl

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"example.org/mediaproxy/internal/dispatcher"
	"example.org/mediaproxy/internal/report"
	"example.org/mediaproxy/internal/wire/manage"
)

// Exit codes other than 0 and 1.
const (
	exitUsage   = 2
	exitNothing = 3
)

// exitError carries the exit code for main.
type exitError struct {
	error
	code int
}

func (e exitError) ExitCode() int { return e.code }
func (e exitError) Unwrap() error { return e.error }

func usage(format string, args ...any) error {
	return exitError{fmt.Errorf(format, args...), exitUsage}
}

func nothing(format string, args ...any) error {
	return exitError{fmt.Errorf(format, args...), exitNothing}
}

// control is one run of the command.
type control struct {
	target target
	json   bool
}

// Command returns `ctl` with its sub-commands.
func Command() *cobra.Command {
	c := &control{}
	cmd := &cobra.Command{
		Use:   "ctl",
		Short: "Look at relays and calls, end calls, drain relays",
		Long: `Asks a dispatcher about its relays and calls. On the dispatcher's machine it uses
the socket management.sock in the runtime folder; from elsewhere --server names
the dispatcher and --certs the folder with a certificate.

Exit codes: 0 done, 1 failed or refused, 2 mistake in the command line, 3 nothing
found.`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usage("no command %s; there are summary, sessions, session, explain, terminate, drain, accounting, cluster, version", args[0])
			}
			return usage("a command is needed: summary, sessions, session, explain, terminate, drain, accounting, cluster or version")
		},
		RunE: func(*cobra.Command, []string) error { return nil }, // Args never lets it
	}
	cmd.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return usage("%w; more: %s --help", err, cmd.CommandPath())
	})
	flags := cmd.PersistentFlags()
	flags.StringVar(&c.target.runtimeDir, "runtime-dir", "", "runtime folder of the dispatcher")
	flags.StringVar(&c.target.server, "server", "", "dispatcher to ask over the network, HOST[:PORT]")
	flags.StringVar(&c.target.certs, "certs", "", "folder with ca.pem, crl.pem and our certificate (default "+defaultCerts+")")
	flags.StringVar(&c.target.pair, "pair", "", "which certificate of the folder to use (default: the first of "+strings.Join(defaultPairs, ", ")+" that is there)")
	flags.StringVar(&c.target.passport, "passport", "None", "condition on the dispatcher's certificate")
	flags.BoolVar(&c.target.plain, "plain", false, "with --server: no TLS")
	flags.DurationVar(&c.target.timeout, "timeout", 15*time.Second, "how long to wait for an answer")
	flags.BoolVar(&c.json, "json", false, "print JSON")
	cmd.AddCommand(c.summaryCommand(), c.sessionsCommand(), c.sessionCommand(), c.explainCommand(),
		c.terminateCommand(), c.drainCommand(), c.accountingCommand(), c.clusterCommand(), c.versionCommand())
	return cmd
}

// words demands exactly the named arguments. None may have a space or a control
// character in it: the protocol could not carry it.
func words(names ...string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		switch {
		case len(args) > 0 && len(names) == 0:
			return usage("nothing may follow, got %q; more: %s --help", args[0], cmd.CommandPath())
		case len(args) != len(names):
			return usage("%s wanted, got %d words; more: %s --help", strings.Join(names, " and "), len(args), cmd.CommandPath())
		}
		for i, arg := range args {
			if err := checkWord(names[i], arg); err != nil {
				return err
			}
		}
		return nil
	}
}

func checkWord(name, value string) error {
	if value == "" || strings.ContainsFunc(value, func(r rune) bool { return r <= ' ' || r == 0x7f }) || len(strings.Fields(value)) != 1 {
		return usage("%s %q: empty, or has a space in it", name, value)
	}
	return nil
}

func (c *control) summaryCommand() *cobra.Command {
	return &cobra.Command{
		Use: "summary", Short: "Show the relays and what they carry", Args: words(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return c.list(cmd, manage.Request{Verb: manage.Summary}, printRelays, nothing("no relay is connected to the dispatcher"))
		},
	}
}

func (c *control) accountingCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "accounting", Short: "Show what waits to be stored, and what went wrong", Args: words(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return c.list(cmd, manage.Request{Verb: manage.Accounting}, printBackends, nothing("finished calls are not stored: accounting in section [Dispatcher] names no back-end"))
		},
	}
	cmd.AddCommand(c.exportCommand())
	return cmd
}

func (c *control) clusterCommand() *cobra.Command {
	return &cobra.Command{
		Use: "cluster", Short: "Show the other dispatchers, and what they share", Args: words(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return c.list(cmd, manage.Request{Verb: manage.Cluster}, printCluster, nothing("this dispatcher is not part of a cluster: section [Cluster] names neither peers nor urls"))
		},
	}
}

func (c *control) sessionsCommand() *cobra.Command {
	var filter manage.Filter
	cmd := &cobra.Command{
		Use: "sessions", Short: "Show the calls", Args: words(),
		Example: `  mediaproxy ctl sessions --from alice@ --order -duration --limit 20
  mediaproxy ctl sessions --lost`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			request := manage.Request{Verb: manage.Sessions, Filter: filter}
			if err := checkFilter(request, cmd); err != nil {
				return err
			}
			var empty error
			if filter != (manage.Filter{Order: filter.Order, Limit: filter.Limit}) {
				empty = nothing("no call like that")
			}
			if filter == (manage.Filter{}) {
				return c.allSessions(cmd)
			}
			return c.list(cmd, request, printSessions, empty)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&filter.From, "from", "", "only calls with this text in the caller's URI")
	flags.StringVar(&filter.To, "to", "", "only calls with this text in the callee's URI")
	flags.StringVar(&filter.CallID, "call-id", "", "only calls with this Call-ID")
	flags.StringVar(&filter.Relay, "relay", "", "only calls on this relay, by name or address")
	flags.StringVar(&filter.Order, "order", "", "sort by "+strings.Join(manage.Orders[:], ", ")+`; "-" before it reverses`)
	flags.IntVar(&filter.Limit, "limit", 0, "show at most so many")
	flags.BoolVar(&filter.Lost, "lost", false, "only calls whose relay is gone")
	return cmd
}

// allSessions asks with an order, because without any filter the answer is the
// one that readers of the original's know, which does not name relays. A
// dispatcher that knows no order gets the bare word.
func (c *control) allSessions(cmd *cobra.Command) error {
	err := c.list(cmd, manage.Request{Verb: manage.Sessions, Filter: manage.Filter{Order: "start"}}, printSessions, nil)
	if errors.Is(err, errOlder) {
		err = c.list(cmd, manage.Request{Verb: manage.Sessions}, printSessions, nil)
	}
	return err
}

// checkFilter lets the codec judge what the dispatcher would, before asking it.
func checkFilter(request manage.Request, cmd *cobra.Command) error {
	f := request.Filter
	for name, value := range map[string]string{"from": f.From, "to": f.To, "call-id": f.CallID, "relay": f.Relay, "order": f.Order} {
		if cmd.Flags().Changed(name) {
			if err := checkWord("--"+name, value); err != nil {
				return err
			}
		}
	}
	if cmd.Flags().Changed("limit") && f.Limit < 1 {
		return usage("--limit %d: not a number above 0", f.Limit)
	}
	line := manage.AppendRequest(nil, request)
	if _, err := manage.ParseRequest(line[:len(line)-2]); err != nil {
		return usage("sessions: %w", err)
	}
	return nil
}

func (c *control) sessionCommand() *cobra.Command {
	return &cobra.Command{
		Use: "session CALL-ID", Short: "Show everything about one call", Args: words("CALL-ID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.list(cmd, manage.Request{Verb: manage.Session, CallID: args[0]}, printSession, noCall(args[0]))
		},
	}
}

func (c *control) explainCommand() *cobra.Command {
	return &cobra.Command{
		Use: "explain CALL-ID", Short: "Tell what happened to a call and why, and what to check", Args: words("CALL-ID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.list(cmd, manage.Request{Verb: manage.Explain, CallID: args[0]}, printExplanations, noCall(args[0]))
		},
	}
}

func (c *control) terminateCommand() *cobra.Command {
	return &cobra.Command{
		Use: "terminate CALL-ID", Short: "End a call at once and free its ports", Args: words("CALL-ID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			docs, err := c.ask(manage.Request{Verb: manage.Terminate, CallID: args[0]})
			if err != nil {
				return err
			}
			n, err := terminated(docs)
			if err != nil {
				return err
			}
			out := cmd.OutOrStdout()
			switch {
			case c.json:
				fmt.Fprintf(out, "{\"terminated\": %d}\n", n)
			case n == 1:
				fmt.Fprintln(out, "1 session ended")
			case n > 1:
				fmt.Fprintf(out, "%d sessions ended\n", n)
			}
			if n == 0 {
				return noCall(args[0])
			}
			return nil
		},
	}
}

// terminated adds up what the relays say they have ended.
func terminated(docs []json.RawMessage) (int, error) {
	sum := 0
	for _, raw := range docs {
		var doc struct {
			Terminated *int `json:"terminated"`
		}
		if err := json.Unmarshal(raw, &doc); err != nil || doc.Terminated == nil {
			return 0, fmt.Errorf("answer of the dispatcher: %.80s: no number of ended sessions", clean(string(raw)))
		}
		sum += *doc.Terminated
	}
	return sum, nil
}

func (c *control) drainCommand() *cobra.Command {
	var cancel bool
	cmd := &cobra.Command{
		Use: "drain RELAY", Short: "Let a relay take no new calls, so that it can be stopped", Args: words("RELAY"),
		Long: `The relay, given by name or address, takes no new calls; the ones it has go on to
their end. --cancel takes it back.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			docs, err := c.ask(manage.Request{Verb: manage.Drain, Relay: args[0], Cancel: cancel})
			if err != nil {
				return err
			}
			if len(docs) == 0 {
				return nothing("no relay %s is connected; see: mediaproxy ctl summary", args[0])
			}
			if c.json {
				return printJSON(cmd.OutOrStdout(), docs)
			}
			return printDrain(cmd.OutOrStdout(), args[0], docs)
		},
	}
	cmd.Flags().BoolVar(&cancel, "cancel", false, "let it take calls again")
	return cmd
}

func printDrain(out io.Writer, relay string, docs []json.RawMessage) error {
	for _, raw := range docs {
		var doc report.Relay
		if err := json.Unmarshal(raw, &doc); err != nil || doc.Status == "" {
			return fmt.Errorf("answer of the dispatcher: %.80s: no status", clean(string(raw)))
		}
		text := clean(doc.Status)
		switch doc.Status {
		case "halting":
			text = "takes no new calls; the ones it has go on to their end"
		case "active":
			text = "takes calls"
		}
		fmt.Fprintf(out, "%s %s\n", relay, text)
	}
	return nil
}

func (c *control) versionCommand() *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Show the dispatcher's version", Args: words(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			answer, err := c.target.ask(manage.Request{Verb: manage.Version})
			if err != nil {
				return err
			}
			if answer.Error != "" {
				return refused(manage.Request{Verb: manage.Version}, answer.Error)
			}
			if c.json {
				text, err := report.Append(nil, map[string]string{"version": answer.Text})
				if err != nil {
					return err
				}
				fmt.Fprintf(cmd.OutOrStdout(), "%s\n", text)
				return nil
			}
			fmt.Fprintln(cmd.OutOrStdout(), clean(answer.Text))
			return nil
		},
	}
}

func noCall(callID string) error {
	return nothing("no call with Call-ID %s; see: mediaproxy ctl sessions", callID)
}

// list asks for documents and prints them. empty is the error when there are
// none; with nil an empty list is a good answer.
func (c *control) list(cmd *cobra.Command, request manage.Request, print func(io.Writer, []json.RawMessage) error, empty error) error {
	docs, err := c.ask(request)
	if err != nil {
		return err
	}
	out := cmd.OutOrStdout()
	if c.json {
		err = printJSON(out, docs)
	} else if len(docs) > 0 || empty == nil {
		err = print(out, docs)
	}
	if err == nil && len(docs) == 0 {
		return empty
	}
	return err
}

// ask wants documents for an answer. That nothing was found is an empty list,
// whichever way the dispatcher says it.
func (c *control) ask(request manage.Request) ([]json.RawMessage, error) {
	answer, err := c.target.ask(request)
	if err != nil {
		return nil, err
	}
	switch why := answer.Error; {
	case why == dispatcher.ErrNoCall.Error(), why == dispatcher.ErrNoRelay.Error():
		return []json.RawMessage{}, nil
	case why != "":
		return nil, refused(request, why)
	case answer.Docs == nil:
		return nil, fmt.Errorf("answer of the dispatcher: %.80q instead of documents", answer.Text)
	}
	return answer.Docs, nil
}

// errOlder means that the dispatcher knows less than this program.
var errOlder = errors.New("it may be an older program")

// refused turns the dispatcher's error into ours.
func refused(request manage.Request, why string) error {
	if why == manage.ErrUnknown.Error() {
		if request.Verb == manage.Sessions && request.Filter != (manage.Filter{}) {
			return fmt.Errorf("this dispatcher does not know filters; %w", errOlder)
		}
		return fmt.Errorf("this dispatcher does not know the command %s; %w", request.Verb, errOlder)
	}
	return fmt.Errorf("the dispatcher refused %s: %s", request.Verb, clean(why))
}
