package program

import (
	"errors"
	"fmt"
	"slices"

	"github.com/spf13/cobra"

	"example.org/mediaproxy/cmd/mediaproxy/doctor"
	"example.org/mediaproxy/internal/config"
)

// doctorCommand examines the host for what the relay's configuration asks of it.
func doctorCommand() *cobra.Command {
	o := &options{name: "mediaproxy doctor"}
	var asJSON bool
	cmd := &cobra.Command{
		Use: "doctor", Short: "Examine whether this host is ready for a relay", Args: cobra.NoArgs,
		Long: `Examines this host for the relay that the configuration describes, and prints a line
for each check and below it what mends it: a command where there is one. It changes
nothing. Root sees the most; without a relay that runs, rights and limits are those of
this process, so start it as the relay is started.

  pass  fit
  skip  does not apply here, or cannot be seen
  warn  a relay works, but not as well as it could
  fail  calls will suffer; or the fast_path that is set is not to be had

Exit codes: 0 nothing failed (there may be warnings), 1 something failed, 2 mistake in
the command line.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			o.takeOutput(cmd)
			if err := o.resolve(); err != nil {
				return err
			}
			return examine(o, asJSON)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&o.configDir, "config-dir", "", "`FOLDER` with a config.ini that overrides /etc/mediaproxy/config.ini")
	flags.BoolVar(&asJSON, "json", false, "print JSON")
	completeFolders(cmd, "config-dir")
	return cmd
}

func examine(o *options, asJSON bool) error {
	host, err := doctor.This()
	if err != nil {
		return err
	}
	results := doctor.Examine(host, patient(o))
	print := doctor.Print
	if asJSON {
		print = doctor.PrintJSON
	}
	if err := print(o.stdout, results); err != nil {
		return err
	}
	if doctor.Count(results, doctor.Fail) > 0 {
		return errors.New(doctor.Summary(results))
	}
	if !asJSON {
		_, err = fmt.Fprintln(o.stdout, doctor.Summary(results))
	}
	return err
}

// patient is the relay that would be started here.
func patient(o *options) doctor.Relay {
	cfg, problems := readConfig(config.FindDirs(o.configDir, o.started), config.RoleRelay)
	c := cfg.Relay
	r := doctor.Relay{
		Problems:  problems.Err(),
		CheckWith: "mediaproxy check --for relay",
		Addresses: c.RelayIP,
		FirstPort: uint16(c.PortRange.Start),
		LastPort:  uint16(c.PortRange.End - 1),
		FastPath:  c.FastPath,
		BPFDir:    c.BPFDir,
		StateDir:  c.StateDir,
	}
	if o.configDir != "" {
		r.CheckWith += " --config-dir " + o.configDir
	}
	if len(r.Addresses) == 0 {
		r.Addresses = ownAddresses()
	}
	r.Descriptors = c.PortRange.Size()*len(r.Addresses) + spareDescriptors
	if c.AutoDetectInterfaces {
		r.Addresses = append(slices.Clone(r.Addresses), otherAddresses(r.Addresses)...)
	}
	if r.StateDir == "" {
		r.StateDir = config.DefaultStateDir()
	}
	return r
}
