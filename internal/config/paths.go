package config

import (
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// SystemDir is read first, whatever the local folder.
const SystemDir = "/etc/mediaproxy"

// FileName is the name of the configuration in each folder.
const FileName = "config.ini"

// Dirs is where configuration is looked for: SystemDir and, if there is one, the local folder.
type Dirs struct {
	System string
	Local  string // empty: none
}

// binDirs hold programs that were installed; what lies beside them is no configuration.
var binDirs = []string{"/bin", "/sbin", "/usr/bin", "/usr/sbin", "/usr/local/bin", "/usr/local/sbin"}

// FindDirs applies the rule of the original: the local folder is the one given on the
// command line, else the folder of the started program unless it is one of the system's.
func FindDirs(given, executable string) Dirs {
	d := Dirs{System: SystemDir, Local: given}
	if given != "" || executable == "" {
		return d
	}
	if dir := filepath.Dir(executable); !slices.Contains(binDirs, dir) {
		d.Local = dir
	}
	return d
}

// Files are the files to Load, the one that overrides last.
func (d Dirs) Files() []string {
	files := []string{filepath.Join(d.System, FileName)}
	if d.Local != "" && filepath.Clean(d.Local) != filepath.Clean(d.System) {
		files = append(files, filepath.Join(d.Local, FileName))
	}
	return files
}

// Find resolves a path of the configuration: an absolute one is taken as it is, a
// relative one is looked up in the local folder first. What exists nowhere is
// returned as it would be in the last folder searched.
func (d Dirs) Find(path string) string {
	if filepath.IsAbs(path) {
		return path
	}
	if d.Local != "" {
		local := filepath.Join(d.Local, path)
		if _, err := os.Stat(local); err == nil {
			return local
		}
	}
	return filepath.Join(d.System, path)
}

// DefaultStateDir is the folder for what must outlive a restart.
func DefaultStateDir() string { return stateDir(os.Geteuid(), os.Getenv, os.TempDir()) }

// DefaultRuntimeDir is the folder for sockets and PID files. The second result is true
// when it lies in a folder that everybody may write to, and therefore must be checked
// to be one's own before use.
func DefaultRuntimeDir() (dir string, shared bool) {
	return runtimeDir(os.Geteuid(), os.Getenv, os.TempDir())
}

func stateDir(uid int, getenv func(string) string, temp string) string {
	if dir := givenBySystemd(getenv("STATE_DIRECTORY")); dir != "" {
		return dir
	}
	if uid == 0 {
		return "/var/lib/mediaproxy"
	}
	if dir := getenv("XDG_STATE_HOME"); filepath.IsAbs(dir) {
		return filepath.Join(dir, "mediaproxy")
	}
	if home := getenv("HOME"); filepath.IsAbs(home) {
		return filepath.Join(home, ".local/state/mediaproxy")
	}
	dir, _ := runtimeDir(uid, getenv, temp)
	return filepath.Join(dir, "state")
}

func runtimeDir(uid int, getenv func(string) string, temp string) (dir string, shared bool) {
	if dir := givenBySystemd(getenv("RUNTIME_DIRECTORY")); dir != "" {
		return dir, false
	}
	if uid == 0 {
		return "/run/mediaproxy", false
	}
	if dir := getenv("XDG_RUNTIME_DIR"); filepath.IsAbs(dir) {
		return filepath.Join(dir, "mediaproxy"), false
	}
	return filepath.Join(temp, "mediaproxy-"+strconv.Itoa(uid)), true
}

// givenBySystemd is the first of the folders that a unit file names; systemd has made
// them for the user that the unit runs as.
func givenBySystemd(list string) string {
	dir, _, _ := strings.Cut(list, ":")
	if !filepath.IsAbs(dir) {
		return ""
	}
	return dir
}
