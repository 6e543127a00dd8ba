package archtest

import (
	"fmt"
	"slices"
	"strings"
)

// file is one Go file's part in the import graph.
type file struct {
	name    string   // path below the top of the module, with slashes
	imports []string // import paths
}

func (f file) isTest() bool { return strings.HasSuffix(f.name, "_test.go") }

// check compares files with the rules; module is the module's path. Each returned
// line is one violation, in a form that tells what to change.
func check(module string, files []file) []string {
	var bad []string
	for _, f := range files {
		from := roomOf(dirOf(f.name))
		if from == "tools" || from == "archtest" {
			continue
		}
		if !known(from) {
			bad = append(bad, fmt.Sprintf("%s: room %q is not drawn; add it to internal/archtest/rules.go and docs/architecture.md", f.name, from))
			continue
		}
		for _, path := range f.imports {
			if why := judge(module, from, path, f.isTest()); why != "" {
				bad = append(bad, fmt.Sprintf("%s: imports %s: %s", f.name, path, why))
			}
		}
	}
	return bad
}

// judge returns why a file of a room may not import a path, or nothing.
func judge(module, from, path string, test bool) string {
	if path == module || strings.HasPrefix(path, module+"/") {
		// A test may start whatever it needs; what it tests may not.
		if test || from == "test" {
			return ""
		}
		return judgeRoom(from, roomOf(strings.TrimPrefix(strings.TrimPrefix(path, module), "/")))
	}
	if !strings.Contains(strings.Split(path, "/")[0], ".") {
		return judgeStandard(from, path, test)
	}
	return judgeLibrary(from, path, test)
}

func judgeRoom(from, to string) string {
	switch {
	case from == to, from == "cmd" || strings.HasPrefix(from, "cmd/"):
		if to == "test" || to == "archtest" || to == "tools" {
			return "the programs contain no test code"
		}
		return ""
	case to == "cmd" || strings.HasPrefix(to, "cmd/"):
		return "nothing imports cmd"
	}
	own, isLeaf := leaves[from]
	if isLeaf {
		if slices.Contains(own, to) {
			return ""
		}
		return "a leaf imports no other room"
	}
	if _, ok := leaves[to]; ok || slices.Contains(arrows[from], to) {
		return ""
	}
	return fmt.Sprintf("no arrow leads from %s to %s", from, to)
}

func judgeStandard(from, path string, test bool) string {
	if test || from == "test" || except[path] == from {
		return ""
	}
	for prefix, paths := range forbidden {
		if strings.HasPrefix(from, prefix) && slices.Contains(paths, path) {
			return fmt.Sprintf("room %s does without it", from)
		}
	}
	return ""
}

func judgeLibrary(from, path string, test bool) string {
	within := func(library string) bool { return path == library || strings.HasPrefix(path, library+"/") }
	if slices.ContainsFunc(testOnly, within) {
		if test || from == "test" {
			return ""
		}
		return "it is for tests only"
	}
	for library, rooms := range owners {
		if !within(library) {
			continue
		}
		for _, room := range rooms {
			if from == room || strings.HasPrefix(from, room+"/") {
				return ""
			}
		}
		if from == "test" {
			return ""
		}
		return fmt.Sprintf("it belongs to %s", strings.Join(rooms, ", "))
	}
	return "no room owns this library; say in internal/archtest/rules.go which one does"
}

func known(room string) bool {
	_, isLeaf := leaves[room]
	_, isRoom := arrows[room]
	return isLeaf || isRoom || room == "cmd" || strings.HasPrefix(room, "cmd/") || room == "test"
}

func dirOf(name string) string {
	if i := strings.LastIndexByte(name, '/'); i >= 0 {
		return name[:i]
	}
	return ""
}

// roomOf names the room a folder belongs to: the first part below internal, two parts
// for wire/* and accounting/*, cmd or cmd/NAME for the program and its sub-packages.
func roomOf(dir string) string {
	parts := strings.Split(dir, "/")
	switch {
	case dir == "":
		return "root"
	case parts[0] == "cmd" && len(parts) > 2:
		return "cmd/" + parts[2]
	case parts[0] == "internal" && len(parts) > 2 && (parts[1] == "wire" || parts[1] == "accounting"):
		return parts[1] + "/" + parts[2]
	case parts[0] == "internal" && len(parts) > 1:
		return parts[1]
	}
	return parts[0]
}
