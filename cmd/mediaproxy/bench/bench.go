// Package bench is the command `mediaproxy bench`: it puts load on a dispatcher and
// prints what it carries.
//
//	sipproxy.go ──UNIX──▶ dispatcher ◀──TLS, link/2── relay.go, fleet.go
//	 updates and removes   target.go    simulated relays: answers, lists, reports
//
//	measure.go    one measurement from an empty folder to its figures; search.go: the highest rate
//	call.go       every call follows from its number, so that nobody has to keep it
//	receivers.go  what the dispatcher talks to besides: hang-up, accounting
//
// The relays and the SIP proxy speak what real ones speak, over real sockets with
// certificates made for the run. No ports are opened and no media flows.
package bench

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/cobra"
)

// usageError is a mistake in the command line; main ends with its exit code.
type usageError struct{ error }

func (usageError) ExitCode() int { return 2 }

// settings are what the command line says.
type settings struct {
	relays      int
	connections int
	calls       int
	rate        float64 // updates a second
	duration    time.Duration
	patience    time.Duration // for one reply
	expired     int           // percent of calls that end by a relay's report
	accounting  string
	max         bool
	json        bool

	// An existing dispatcher; all three or none.
	socket, connect, certs string
}

// Command returns `bench` with its sub-commands.
func Command() *cobra.Command {
	cmd := &cobra.Command{
		Use: "bench", Short: "Measure what this host carries",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return usageError{errors.New("what is to be measured? dispatcher; more: mediaproxy bench --help")}
		},
	}
	cmd.AddCommand(dispatcherCommand())
	return cmd
}

func dispatcherCommand() *cobra.Command {
	s := &settings{}
	cmd := &cobra.Command{
		Use: "dispatcher", Short: "Measure how many relays, calls and updates a dispatcher carries",
		Long: `Starts a dispatcher of its own, with certificates, sockets and folders that are removed
at the end, connects simulated relays to it over TLS, and sends updates and removes over
its UNIX socket as a SIP proxy does. Nothing of this host's installation is used.

First the relays connect without calls, then all of them lose their connections at once
and come back with --calls calls, which the dispatcher lists. Then each second --rate
updates are due: half of them begin a call, half are its answers. For each call that
begins the oldest one ends, removed by the SIP proxy or, --expired of a hundred, reported
by its relay and then removed. Commands are due at fixed times, and a latency is counted
from then on, so that a dispatcher which stands still cannot hide what it delays.

The generator runs beside the dispatcher and takes processor time of its own; what it took
is printed. An existing dispatcher is measured with --socket, --connect and --certs: it
must be one without real calls, which would be handed to the simulated relays.

Exit codes: 0 measured, 1 not measured, or with errors, 2 mistake in the command line.`,
		Example: `  mediaproxy bench dispatcher
  mediaproxy bench dispatcher --relays 1000 --calls 500000 --rate 500 --duration 60s
  mediaproxy bench dispatcher --max --accounting webhook --json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return s.run(cmd) },
	}
	flags := cmd.Flags()
	flags.IntVar(&s.relays, "relays", 200, "simulated relays")
	flags.IntVar(&s.connections, "connections", 64, "connections to the socket, as processes of a SIP proxy")
	flags.IntVar(&s.calls, "calls", 100_000, "calls that exist at any time, over all relays")
	flags.Float64Var(&s.rate, "rate", 2000, "updates a second; with --max the first that is tried")
	flags.DurationVar(&s.duration, "duration", 60*time.Second, "how long commands are sent; with --max at each rate (default then 10s)")
	flags.DurationVar(&s.patience, "patience", 500*time.Millisecond, "how long a reply is waited for, as the SIP proxy's module does")
	flags.IntVar(&s.expired, "expired", 5, "of a hundred calls, how many end by their relay's report")
	flags.StringVar(&s.accounting, "accounting", "none", "where the dispatcher stores finished calls: none, or webhook, to a receiver in the generator")
	flags.BoolVar(&s.max, "max", false, "search the highest rate without errors and with a p99 under 50 ms")
	flags.BoolVar(&s.json, "json", false, "print JSON")
	flags.StringVar(&s.socket, "socket", "", "`FILE` of an existing dispatcher's socket for the SIP proxy")
	flags.StringVar(&s.connect, "connect", "", "`IP:PORT` where that dispatcher listens for relays")
	flags.StringVar(&s.certs, "certs", "", "`FOLDER` with ca.pem, crl.pem, relay.crt and relay.key for it")
	return cmd
}

// check returns the first mistake in the flags.
func (s *settings) check() error {
	for _, n := range []struct {
		flag         string
		value        int
		least, limit int
	}{
		{"relays", s.relays, 1, 10_000}, {"connections", s.connections, 1, 1000},
		{"calls", s.calls, s.connections, 10_000_000}, {"expired", s.expired, 0, 100},
	} {
		if n.value < n.least || n.value > n.limit {
			return fmt.Errorf("--%s %d: want %d to %d", n.flag, n.value, n.least, n.limit)
		}
	}
	switch {
	case !(s.rate >= 1 && s.rate <= 1e6):
		return fmt.Errorf("--rate %v: want 1 to 1000000", s.rate)
	case s.duration < time.Second:
		return fmt.Errorf("--duration %v: want 1s or more", s.duration)
	case s.patience < time.Millisecond:
		return fmt.Errorf("--patience %v: want 1ms or more", s.patience)
	case s.accounting != "none" && s.accounting != "webhook":
		return fmt.Errorf("--accounting %s: want none or webhook", s.accounting)
	}
	given := 0
	for _, v := range []string{s.socket, s.connect, s.certs} {
		if v != "" {
			given++
		}
	}
	switch {
	case given != 0 && given != 3:
		return errors.New("--socket, --connect and --certs name an existing dispatcher together: give all three or none")
	case given == 3 && s.accounting != "none":
		return errors.New("--accounting is for the dispatcher that is started here; an existing one has its own configuration")
	}
	return nil
}

func (s *settings) run(cmd *cobra.Command) error {
	if s.max && !cmd.Flags().Changed("duration") {
		s.duration = 10 * time.Second
	}
	if err := s.check(); err != nil {
		return usageError{err}
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	say := func(format string, args ...any) { fmt.Fprintf(cmd.ErrOrStderr(), format+"\n", args...) }
	var result *Result
	var err error
	if s.max {
		result, err = search(*s, say, func(s settings) (*Result, error) { return measure(ctx, s, say) })
	} else {
		result, err = measure(ctx, *s, say)
	}
	if ctx.Err() != nil {
		return errors.New("interrupted; what it had started is ended and removed")
	}
	if err != nil {
		return err
	}
	if s.json {
		encoder := json.NewEncoder(cmd.OutOrStdout())
		encoder.SetIndent("", "  ")
		err = encoder.Encode(result)
	} else {
		err = result.print(cmd.OutOrStdout())
	}
	if err == nil && result.Errors > 0 {
		err = fmt.Errorf("%d of %d commands were not answered as they have to be", result.Errors, result.Offered)
	}
	return err
}
