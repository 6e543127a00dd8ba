package program

import (
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"example.org/mediaproxy/internal/config"
)

// checkCommand validates what the daemons would read, and refuses what they only warn of.
func checkCommand() *cobra.Command {
	o := &options{name: "mediaproxy check"}
	var role string
	var effective, sample bool
	cmd := &cobra.Command{
		Use: "check", Short: "Validate the configuration", Args: cobra.NoArgs,
		Long: `Reads the files that dispatcher and relay read and reports everything that is wrong
with them. What is only a warning for the daemons is an error here.

Exit codes: 0 nothing is wrong, 1 something is, 2 mistake in the command line.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			o.takeOutput(cmd)
			if sample {
				_, err := o.stdout.Write(config.Sample())
				return err
			}
			roles, ok := map[string]config.Role{"": config.RoleBoth, "dispatcher": config.RoleDispatcher, "relay": config.RoleRelay}[role]
			if !ok {
				return usage("--for %q: want dispatcher or relay", role)
			}
			if err := o.resolve(); err != nil {
				return err
			}
			return check(o, roles, effective)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&o.configDir, "config-dir", "", "`FOLDER` with a config.ini that overrides /etc/mediaproxy/config.ini")
	flags.StringVar(&role, "for", "", "`PROGRAM` whose settings count: dispatcher or relay (default: both)")
	flags.BoolVar(&effective, "effective", false, "print every setting with the value in force, without credentials")
	flags.BoolVar(&sample, "sample", false, "print a configuration file with every setting explained")
	completeFolders(cmd, "config-dir")
	if err := cmd.RegisterFlagCompletionFunc("for", cobra.FixedCompletions([]string{"dispatcher", "relay"}, cobra.ShellCompDirectiveNoFileComp)); err != nil {
		panic(err) // the flag is not declared
	}
	return cmd
}

func check(o *options, role config.Role, effective bool) error {
	dirs := config.FindDirs(o.configDir, o.started)
	cfg, problems := readConfig(dirs, role)
	problems = problems.Strict()
	for _, p := range problems {
		if p.Severity != config.Error {
			fmt.Fprintln(o.stderr, p)
		}
	}
	if err := problems.Err(); err != nil {
		return err
	}
	if effective {
		_, err := o.stdout.Write(cfg.Effective())
		return err
	}
	var read []string
	for _, file := range dirs.Files() {
		if _, err := os.Stat(file); err == nil {
			read = append(read, file)
		}
	}
	if len(read) == 0 {
		_, err := fmt.Fprintf(o.stdout, "no configuration file (%s): the defaults are in force\n", strings.Join(dirs.Files(), ", "))
		return err
	}
	_, err := fmt.Fprintf(o.stdout, "nothing is wrong with %s\n", strings.Join(read, ", "))
	return err
}
