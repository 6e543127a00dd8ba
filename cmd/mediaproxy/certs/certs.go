// Package certs is the command `mediaproxy certs`: it makes the certificates
// with which dispatchers, relays and operators know each other, renews them
// and takes them back.
package certs

import (
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"example.org/mediaproxy/internal/pki"
)

// usageError is a mistake in the command line; main ends with its exit code.
type usageError struct{ error }

func (usageError) ExitCode() int   { return 2 }
func (e usageError) Unwrap() error { return e.error }

// flags are what the commands have in common.
type flags struct {
	email        string
	organization string
	unit         string
	country      string
	state        string
	locality     string
	days         int
	force        bool
	commonName   string // issue
	dispatcherCN string // create
	relayCN      string // create
	now          func() time.Time
}

// Command returns `certs` with its sub-commands.
func Command() *cobra.Command { return command(time.Now) }

func command(now func() time.Time) *cobra.Command {
	f := &flags{now: now}
	cmd := &cobra.Command{
		Use:   "certs DIR",
		Short: "Make the certificates for dispatcher, relays and operators",
		Long: `Makes a private authority in the folder DIR, an empty list of revoked
certificates, and a certificate with its key for the dispatcher and for the
relays. Dispatcher and relays trust what this authority has signed and nothing
else.

The folder is where certificates are made; each machine gets a copy of what it
needs, and nobody but this folder needs ca.key.`,
		Example: `  mediaproxy certs certificates
  mediaproxy certs issue certificates relay-berlin
  mediaproxy certs renew certificates
  mediaproxy certs revoke certificates relay-berlin`,
		Args: words("certs", "DIR"),
		RunE: f.create,
	}
	f.addSubject(cmd)
	cmd.Flags().BoolVar(&f.force, "force", false, "replace an existing set; every machine then needs the new files")
	cmd.Flags().StringVar(&f.dispatcherCN, "dispatcher-cn", "", `common name of the dispatcher's certificate (default "MediaProxy dispatcher")`)
	cmd.Flags().StringVar(&f.relayCN, "relay-cn", "", `common name of the relays' certificate (default "MediaProxy relay")`)
	cmd.AddCommand(f.issueCommand(), f.renewCommand(), f.revokeCommand())
	return cmd
}

func (f *flags) issueCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "issue DIR NAME",
		Short: "Make one more certificate, for a further relay or an operator",
		Long: `Makes NAME.crt and NAME.key, signed by the authority in DIR. With a certificate
of its own a relay can be told apart by a passport, and revoked alone. On its
machine the two files are called relay.crt and relay.key.`,
		Args: words("certs issue", "DIR", "NAME"),
		RunE: f.issue,
	}
	f.addSubject(cmd)
	cmd.Flags().BoolVar(&f.force, "force", false, "replace files of that name")
	cmd.Flags().StringVar(&f.commonName, "cn", "", "common name in the certificate (default NAME)")
	return cmd
}

func (f *flags) renewCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "renew DIR",
		Short: "Replace every certificate and key, but keep the authority",
		Long: `Makes new keys and certificates, with the subjects they had, for every pair in
DIR, and signs the list of revoked certificates again. Old and new ones work
together, so the machines can be changed one after the other; running programs
take the files over by themselves.`,
		Args: words("certs renew", "DIR"),
		RunE: f.renew,
	}
	f.addDays(cmd)
	return cmd
}

func (f *flags) revokeCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "revoke DIR FILE|SERIAL",
		Short: "Take a certificate back",
		Long: `Adds a certificate to the list DIR/crl.pem. It is named by its file, by its name
in DIR, or by its serial number in hexadecimal. The list must then be copied to
every machine; running programs read it within [TLS] verify_interval and close
the connections of the revoked certificate.`,
		Args: words("certs revoke", "DIR", "FILE|SERIAL"),
		RunE: f.revoke,
	}
	f.addDays(cmd)
	return cmd
}

// words demands exactly the named arguments.
func words(command string, names ...string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) == len(names) {
			return nil
		}
		return usageError{fmt.Errorf("%s wanted, got %d words; more: mediaproxy %s --help", strings.Join(names, " and "), len(args), command)}
	}
}

func (f *flags) addDays(cmd *cobra.Command) {
	cmd.Flags().IntVar(&f.days, "days", int(pki.DefaultLifetime/(24*time.Hour)), "days until certificates and list expire")
	cmd.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return usageError{fmt.Errorf("%w; more: %s --help", err, cmd.CommandPath())}
	})
}

func (f *flags) addSubject(cmd *cobra.Command) {
	f.addDays(cmd)
	cmd.Flags().StringVar(&f.organization, "organization", pki.DefaultOrganization, "O of every certificate")
	cmd.Flags().StringVar(&f.unit, "unit", "", "OU of every certificate")
	cmd.Flags().StringVar(&f.country, "country", "", "C of every certificate, two letters")
	cmd.Flags().StringVar(&f.state, "state", "", "ST of every certificate")
	cmd.Flags().StringVar(&f.locality, "locality", "", "L of every certificate")
	cmd.Flags().StringVar(&f.email, "email", "", "e-mail address in every certificate")
}

func (f *flags) options() (pki.Options, error) {
	if f.days < 1 {
		return pki.Options{}, usageError{fmt.Errorf("--days %d: not a number of days", f.days)}
	}
	if f.country != "" && len(f.country) != 2 {
		return pki.Options{}, usageError{fmt.Errorf("--country %s: not two letters", f.country)}
	}
	o := pki.Options{Email: f.email, Force: f.force, Lifetime: time.Duration(f.days) * 24 * time.Hour, Now: f.now,
		CommonNames: map[string]string{pki.Dispatcher: f.dispatcherCN, pki.Relay: f.relayCN}}
	for _, part := range []struct {
		to   *[]string
		text string
	}{
		{&o.Subject.Organization, f.organization}, {&o.Subject.OrganizationalUnit, f.unit}, {&o.Subject.Country, f.country},
		{&o.Subject.Province, f.state}, {&o.Subject.Locality, f.locality},
	} {
		if part.text != "" {
			*part.to = []string{part.text}
		}
	}
	return o, nil
}

func (f *flags) create(cmd *cobra.Command, args []string) error {
	o, err := f.options()
	if err != nil {
		return err
	}
	made, err := pki.Create(args[0], o)
	if err != nil {
		return fmt.Errorf("make certificates: %w", err)
	}
	out := cmd.OutOrStdout()
	fmt.Fprintf(out, "Made a new set of certificates in %s:\n\n", args[0])
	list(out, made)
	fmt.Fprint(out, `
Copy into the certificate folder ([TLS] certs_path, by default /etc/mediaproxy/tls)
  of the dispatcher:  ca.pem crl.pem dispatcher.crt dispatcher.key
  of each relay:      ca.pem crl.pem relay.crt relay.key
and make each .key file readable for the user of the program, and for nobody
else: chown mediaproxy dispatcher.key, for example.

Keep ca.key here: whoever has it can make certificates that all others trust.
`)
	return nil
}

func (f *flags) issue(cmd *cobra.Command, args []string) error {
	o, err := f.options()
	if err != nil {
		return err
	}
	dir, name := args[0], args[1]
	if f.commonName != "" {
		o.CommonNames[name] = f.commonName
	}
	made, err := pki.Issue(dir, name, o)
	if err != nil {
		return fmt.Errorf("issue a certificate: %w", err)
	}
	out := cmd.OutOrStdout()
	fmt.Fprintf(out, "Made in %s:\n\n", dir)
	list(out, made)
	fmt.Fprintf(out, `
For a relay, copy ca.pem and crl.pem to its certificate folder, %[1]s.crt as
relay.crt and %[1]s.key as relay.key. An operator uses the files under their own
names: mediaproxy ctl --server HOST --certs FOLDER --pair %[1]s summary
`, name)
	return nil
}

func (f *flags) renew(cmd *cobra.Command, args []string) error {
	o, err := f.options()
	if err != nil {
		return err
	}
	made, err := pki.Renew(args[0], o)
	if err != nil {
		return fmt.Errorf("renew certificates: %w", err)
	}
	out := cmd.OutOrStdout()
	fmt.Fprintf(out, "Renewed in %s; the authority is the same:\n\n", args[0])
	list(out, made)
	fmt.Fprint(out, `
Copy the pairs to their machines, both files of a pair together, and crl.pem to
all of them. Running programs take them over within [TLS] verify_interval. The
old certificates stay valid until they expire or are revoked.
`)
	return nil
}

func (f *flags) revoke(cmd *cobra.Command, args []string) error {
	o, err := f.options()
	if err != nil {
		return err
	}
	serial, made, err := pki.Revoke(args[0], args[1], o)
	if errors.Is(err, pki.ErrAlreadyRevoked) {
		fmt.Fprintln(cmd.OutOrStdout(), err.Error()+"; nothing to do")
		return nil
	}
	if err != nil {
		return fmt.Errorf("revoke a certificate: %w", err)
	}
	fmt.Fprintf(cmd.OutOrStdout(), `Revoked the certificate with serial %s.

Copy the new list to the certificate folder of every dispatcher and relay:
  %s
Running programs read it within [TLS] verify_interval and then close the
connections of this certificate.
`, serial, made.Path)
	return nil
}

// list prints the files that were made, one a line.
func list(out io.Writer, made []pki.Made) {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	defer w.Flush()
	for _, m := range made {
		name := filepath.Base(m.Path)
		switch {
		case m.Serial != "":
			fmt.Fprintf(w, "  %s\t%s\tvalid until %s\tserial %s\n", name, m.Subject, date(m.Expires), m.Serial)
		case !m.Expires.IsZero():
			fmt.Fprintf(w, "  %s\trevoked certificates\tvalid until %s\n", name, date(m.Expires))
		default:
			fmt.Fprintf(w, "  %s\tsecret\n", name)
		}
	}
}

func date(t time.Time) string { return t.UTC().Format(time.DateOnly) }
