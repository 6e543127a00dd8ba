package program

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"syscall"

	"example.org/mediaproxy/cmd/mediaproxy/logs"
	"example.org/mediaproxy/internal/accounting"
	"example.org/mediaproxy/internal/config"
	"example.org/mediaproxy/internal/pki"
)

// A host is what rooms are put together from: the configuration, folders and a logger.
type host struct {
	options    *options
	cfg        *config.Config
	dirs       config.Dirs
	runtimeDir string
	stateDir   string

	log        *slog.Logger
	level      *slog.LevelVar
	configured slog.Level // what USR1 returns to
}

// newHost reads the configuration and opens the log. Its error lists every problem.
func newHost(o *options, role config.Role) (*host, error) {
	if err := o.resolve(); err != nil {
		return nil, err
	}
	h := &host{options: o, dirs: config.FindDirs(o.configDir, o.started), level: new(slog.LevelVar)}
	if o.alone {
		if o.configDir == "" {
			return nil, errors.New("--alone: name the folder of the configuration with --config-dir")
		}
		h.dirs = config.Dirs{System: o.configDir, Local: o.configDir}
	}
	cfg, problems := readConfig(h.dirs, role)
	h.cfg = cfg
	common := commonSettings(cfg, role)
	if common.StrictConfig {
		problems = problems.Strict()
	}
	if err := problems.Err(); err != nil {
		return nil, err
	}
	h.configured = common.LogLevel
	if o.debug {
		h.configured = slog.LevelDebug
	}
	h.level.Set(h.configured)
	if err := h.openLog(common); err != nil {
		fmt.Fprintf(o.stderr, "%s: %v\n", o.name, err)
	}
	h.report(problems)
	return h, h.findFolders(common)
}

// readConfig loads the files and has the values checked that only others understand.
func readConfig(dirs config.Dirs, role config.Role) (*config.Config, config.Problems) {
	cfg, problems := config.Load(dirs.Files()...)
	for _, p := range []struct{ section, key, value string }{
		{"Dispatcher", "passport", cfg.Dispatcher.Passport},
		{"Dispatcher", "management_passport", cfg.Dispatcher.ManagementPassport},
		{"Relay", "passport", cfg.Relay.Passport},
		{"Cluster", "passport", cfg.Cluster.Passport},
	} {
		if _, err := parsePassport(p.value); err != nil {
			problems = append(problems, cfg.Invalid(p.section, p.key, err))
		}
	}
	if _, err := clusterAuthorities(cfg.Cluster.CA); err != nil {
		problems = append(problems, cfg.Invalid("Cluster", "ca", err))
	}
	if err := checkCredentials(cfg.Cluster.Credentials); err != nil {
		problems = append(problems, cfg.Invalid("Cluster", "credentials", err))
	}
	problems = problems.For(role)
	if role&config.RoleDispatcher != 0 {
		problems = append(problems, accounting.Check(withPaths(cfg, dirs))...)
	}
	return cfg, problems
}

// parsePassport reads a passport of the configuration, where none is empty.
func parsePassport(s string) (pki.Passport, error) {
	if s == "" {
		return pki.Passport{}, nil
	}
	return pki.ParsePassport(s)
}

// commonSettings are those that both sections have. For a program that is both, the
// dispatcher's count, and the more talkative log level.
func commonSettings(cfg *config.Config, role config.Role) config.Program {
	switch role {
	case config.RoleRelay:
		return cfg.Relay.Program
	case config.RoleDispatcher:
		return cfg.Dispatcher.Program
	}
	both := cfg.Dispatcher.Program
	both.LogLevel = min(both.LogLevel, cfg.Relay.LogLevel)
	both.StrictConfig = both.StrictConfig || cfg.Relay.StrictConfig
	if both.StateDir == "" {
		both.StateDir = cfg.Relay.StateDir
	}
	return both
}

func (h *host) openLog(common config.Program) (err error) {
	o := logs.Options{
		Program: h.options.name, Level: h.level, Stderr: h.options.stderr, JSON: common.LogFormat == "json",
	}
	switch {
	case h.options.systemd:
		o.Destination = logs.Journal
	case h.options.background:
		o.Destination = logs.Syslog
	}
	h.log, err = logs.Open(o)
	return err
}

// report tells what is odd in the configuration: in the log, and at the terminal too
// if that is another place.
func (h *host) report(problems config.Problems) {
	for _, p := range problems {
		if h.options.background {
			fmt.Fprintln(h.options.stderr, p)
		}
		level := slog.LevelInfo
		if p.Severity == config.Warning {
			level = slog.LevelWarn
		}
		h.log.Log(context.Background(), level, "configuration: "+p.Text, place(p)...)
	}
}

// place is where a problem is, as attributes.
func place(p config.Problem) []any {
	var attrs []any
	if p.File != "" {
		attrs = append(attrs, "file", p.File, "line", p.Line)
	}
	if p.Section != "" {
		attrs = append(attrs, "section", p.Section)
	}
	if p.Key != "" {
		attrs = append(attrs, "setting", p.Key)
	}
	return attrs
}

func (h *host) findFolders(common config.Program) error {
	h.stateDir = common.StateDir
	if h.stateDir == "" {
		h.stateDir = config.DefaultStateDir()
	}
	h.runtimeDir = h.options.runtimeDir
	if h.runtimeDir != "" {
		return makeFolder(h.runtimeDir, 0o755, "--runtime-dir names another")
	}
	var shared bool
	h.runtimeDir, shared = config.DefaultRuntimeDir()
	mode := os.FileMode(0o755) // users of the socket's group have to get in
	if shared {
		mode = 0o700
	}
	if err := makeFolder(h.runtimeDir, mode, "--runtime-dir names another"); err != nil {
		return err
	}
	if shared {
		return isOurs(h.runtimeDir)
	}
	return nil
}

func makeFolder(path string, mode os.FileMode, hint string) error {
	if err := os.MkdirAll(path, mode); err != nil {
		return fmt.Errorf("make folder %s (%s): %w", path, hint, err)
	}
	return nil
}

// isOurs refuses a folder among everybody's files that somebody else may have put there.
func isOurs(path string) error {
	info, err := os.Lstat(path)
	if err != nil {
		return err
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok || !info.IsDir() || int(stat.Uid) != os.Geteuid() || info.Mode().Perm()&0o077 != 0 {
		return fmt.Errorf("%s is not a folder that only this user can enter: remove it, or set XDG_RUNTIME_DIR or --runtime-dir", path)
	}
	return nil
}

// toggleDebug is USR1.
func (h *host) toggleDebug() {
	level := h.configured
	if h.level.Level() == level {
		level = slog.LevelDebug
	}
	h.level.Set(level)
	h.log.Log(context.Background(), max(level, slog.LevelInfo), "log level changed", "level", level.String())
}

// terminal is where a person may read along, or nothing.
func (h *host) terminal() io.Writer {
	if h.options.background {
		return io.Discard
	}
	return h.options.stdout
}
