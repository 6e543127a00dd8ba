// Package program is the command line: which name and command was typed, what its
// configuration says, and which rooms are put together and run for it.
//
//	command.go     names, commands, exit codes
//	classic.go     media-dispatcher and media-relay as people know them
//	options.go     options that all of them share
//	start.go       configuration, folders, logger: a host for rooms
//	dispatcher.go  relay.go  up.go     which rooms, and how they are set
//	serve.go       running rooms: ready, signals, watchdog, the end
package program

import (
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"example.org/mediaproxy/cmd/mediaproxy/bench"
	"example.org/mediaproxy/cmd/mediaproxy/certs"
	"example.org/mediaproxy/cmd/mediaproxy/ctl"
	"example.org/mediaproxy/cmd/mediaproxy/version"
)

// Exit codes. Commands may end with others that they document.
const (
	exitFailure = 1 // the start failed, or the work
	exitUsage   = 2 // the command line is wrong
)

// Main runs the program that args[0] names and returns its exit code.
func Main(args []string, stdout, stderr io.Writer) int {
	cmd := named(args)
	cmd.SetOut(stdout)
	cmd.SetErr(stderr)
	began := false
	beforeRun(cmd, &began)
	cmd, err := cmd.ExecuteC()
	if err == nil {
		return 0
	}
	fmt.Fprintf(stderr, "%s: %s\n", cmd.CommandPath(), oneMistake(err))
	var coded interface{ ExitCode() int }
	switch {
	case errors.As(err, &coded):
		return coded.ExitCode()
	case began:
		return exitFailure
	}
	// Whatever goes wrong before a command begins is a mistake of who typed it.
	fmt.Fprintf(stderr, "%s --help tells more\n", cmd.CommandPath())
	return exitUsage
}

// oneMistake puts cobra's suggestion, which takes lines of its own, on the same line.
func oneMistake(err error) string {
	text, suggestion, ok := strings.Cut(err.Error(), "\n\nDid you mean this?\n")
	if !ok {
		return text
	}
	return text + "; did you mean " + strings.Join(strings.Fields(suggestion), " or ") + "?"
}

// named returns the command for the name that the program was started by.
func named(args []string) *cobra.Command {
	name := filepath.Base(args[0])
	for _, c := range classics {
		if name == c.name {
			cmd := c.command(args)
			cmd.SetArgs(completeOptions(cmd.Flags(), args[1:]))
			return cmd
		}
	}
	cmd := Root()
	cmd.SetArgs(args[1:])
	return cmd
}

// Root returns mediaproxy with all its commands.
func Root() *cobra.Command {
	root := &cobra.Command{
		Use:   "mediaproxy",
		Short: "Relay the media of SIP calls between phones that cannot reach each other",
		Long: `Relays RTP, RTCP and UDP media of SIP calls, so that phones behind NAT hear each
other. A dispatcher serves the SIP proxy and hands each call to a relay; a relay moves
the packets. "mediaproxy up" runs both on defaults.

Exit codes: 0 done, 1 failed, 2 mistake in the command line.`,
		Version:       version.Version,
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.SetVersionTemplate("{{.Name}} {{.Version}}\n")
	root.AddCommand(upCommand(), dispatcherCommand(), relayCommand(), ctl.Command(), certs.Command(), checkCommand(),
		doctorCommand(), bench.Command(), versionCommand())
	return root
}

// Classic returns the commands under their classic names, for the manual pages.
func Classic() []*cobra.Command {
	var out []*cobra.Command
	for _, c := range classics {
		out = append(out, c.command([]string{c.name}))
	}
	return out
}

// beforeRun notes that a command begins its work.
func beforeRun(cmd *cobra.Command, began *bool) {
	run := cmd.PreRun
	cmd.PreRun = func(c *cobra.Command, args []string) {
		*began = true
		if run != nil {
			run(c, args)
		}
	}
	for _, sub := range cmd.Commands() {
		beforeRun(sub, began)
	}
}

func versionCommand() *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Print the version", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := fmt.Fprintf(cmd.OutOrStdout(), "mediaproxy %s\n", version.Version)
			return err
		},
	}
}
