package program

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"example.org/mediaproxy/cmd/mediaproxy/service"
	"example.org/mediaproxy/cmd/mediaproxy/version"
)

// classic is a program of the original that we take the place of.
type classic struct {
	name, short string
	run         func(*options) error
}

var classics = []classic{
	{"media-dispatcher", "Serve a SIP proxy and hand its calls to relays", runDispatcher},
	{"media-relay", "Relay media for dispatchers", runRelay},
}

// command returns the program with the options of the original. It goes to the
// background unless told otherwise.
func (c classic) command(args []string) *cobra.Command {
	o := &options{name: c.name}
	noFork := false
	cmd := &cobra.Command{
		Use: c.name, Short: c.short, Args: cobra.NoArgs,
		Version: version.Version, SilenceUsage: true, SilenceErrors: true,
		CompletionOptions: cobra.CompletionOptions{DisableDefaultCmd: true},
		RunE: func(cmd *cobra.Command, _ []string) error {
			o.takeOutput(cmd)
			o.background = !noFork && !o.systemd
			return c.start(o, args)
		},
	}
	cmd.SetVersionTemplate("{{.Name}} {{.Version}}\n")
	o.addService(cmd)
	cmd.InitDefaultHelpFlag() // or they could not be shortened
	cmd.InitDefaultVersionFlag()
	cmd.Flags().BoolVar(&noFork, "no-fork", false, "stay in the foreground and log to the terminal")
	return cmd
}

func (c classic) start(o *options, args []string) error {
	if err := o.resolve(); err != nil {
		return err
	}
	if !o.background {
		return c.run(o)
	}
	foreground, err := service.Background()
	if err != nil {
		return err
	}
	if foreground == nil {
		return service.Spawn(args, o.stderr)
	}
	o.foreground, o.stderr, o.stdout = foreground, foreground, io.Discard
	if err := c.run(o); err != nil {
		fmt.Fprintf(foreground, "%s: %v\n", c.name, err)
		return err
	}
	return nil
}

// completeOptions writes out long options that were shortened, as the original's
// command line allows: --config means --config-dir. What is ambiguous or unknown stays,
// for the parser to complain about.
func completeOptions(flags *pflag.FlagSet, args []string) []string {
	out := make([]string, 0, len(args))
	value := false // the next argument belongs to the option before
	for i, arg := range args {
		option, ok := strings.CutPrefix(arg, "--")
		switch {
		case arg == "--":
			return append(out, args[i:]...)
		case value || !ok:
			out, value = append(out, arg), false
			continue
		}
		name, rest, inline := strings.Cut(option, "=")
		if f := complete(flags, name); f != nil {
			name = f.Name
			value = !inline && f.NoOptDefVal == ""
		}
		if inline {
			rest = "=" + rest
		}
		out = append(out, "--"+name+rest)
	}
	return out
}

// complete finds the one option that begins with name, or is it.
func complete(flags *pflag.FlagSet, name string) *pflag.Flag {
	if f := flags.Lookup(name); f != nil {
		return f
	}
	var found []*pflag.Flag
	flags.VisitAll(func(f *pflag.Flag) {
		if strings.HasPrefix(f.Name, name) {
			found = append(found, f)
		}
	})
	if len(found) != 1 {
		return nil
	}
	return found[0]
}
