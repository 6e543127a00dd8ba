package program

import (
	"io"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/spf13/cobra"

	"example.org/mediaproxy/cmd/mediaproxy/service"
)

// options are what the command line says to a dispatcher, a relay or both.
type options struct {
	name string // of the program, in logs and file names

	configDir   string
	alone       bool // no other configuration than that of configDir
	runtimeDir  string
	debug       bool
	systemd     bool
	debugMemory bool
	resolved    bool
	started     string // file of the program, as it was typed
	background  bool   // go there, unless already there

	foreground *service.Foreground // set in the copy in the background
	stdout     io.Writer
	stderr     io.Writer // in the copy: the terminal it was started from, until it is ready

	up upOptions
}

// addTo declares the options that every name and command has.
func (o *options) addTo(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringVar(&o.configDir, "config-dir", "", "`FOLDER` with a config.ini that overrides /etc/mediaproxy/config.ini")
	flags.StringVar(&o.runtimeDir, "runtime-dir", "", "`FOLDER` for sockets and PID files (default /run/mediaproxy, without root $XDG_RUNTIME_DIR/mediaproxy)")
	flags.BoolVar(&o.debug, "debug", false, "log everything, whatever the configuration says")
	completeFolders(cmd, "config-dir", "runtime-dir")
}

// completeFolders has the shell offer folders for flags.
func completeFolders(cmd *cobra.Command, names ...string) {
	for _, name := range names {
		if err := cmd.MarkFlagDirname(name); err != nil {
			panic(err) // the flag is not declared
		}
	}
}

// addService declares the options of commands that keep running.
func (o *options) addService(cmd *cobra.Command) {
	o.addTo(cmd)
	flags := cmd.Flags()
	flags.BoolVar(&o.systemd, "systemd", false, "stay in the foreground and log to the journal")
	flags.BoolVar(&o.debugMemory, "debug-memory", false, "report the memory in use at the end")
}

// addAlone declares the option with which a measurement keeps the host's own configuration
// out of what it measures.
func (o *options) addAlone(cmd *cobra.Command) {
	cmd.Flags().BoolVar(&o.alone, "alone", false, "read no other configuration than that of --config-dir")
	if err := cmd.Flags().MarkHidden("alone"); err != nil {
		panic(err) // the flag is not declared
	}
}

// takeOutput has the command's writers used.
func (o *options) takeOutput(cmd *cobra.Command) {
	o.stdout, o.stderr = cmd.OutOrStdout(), cmd.ErrOrStderr()
}

// resolve makes paths independent of the folder that the program was started in. It
// has to come before the program leaves that folder for the background; later calls do
// nothing.
func (o *options) resolve() error {
	if o.resolved {
		return nil
	}
	o.resolved, o.started = true, startedFile()
	for _, path := range []*string{&o.configDir, &o.runtimeDir, &o.up.socket} {
		if *path == "" {
			continue
		}
		absolute, err := filepath.Abs(*path)
		if err != nil {
			return err
		}
		*path = absolute
	}
	return nil
}

// startedFile is the path of the program as it was typed: links are not followed,
// because the configuration may lie beside the link.
func startedFile() string {
	path, err := exec.LookPath(os.Args[0])
	if err != nil {
		return ""
	}
	path, err = filepath.Abs(path)
	if err != nil {
		return ""
	}
	return path
}
