// Notice writes the file NOTICE: the modules that are linked into the program, with
// their licences, as their authors ask for. Without -write it only compares, so that
// the gate can tell when a dependency has come, gone or changed its version.
//
//	go run -C tools ./notice          fails when NOTICE is not current
//	go run -C tools ./notice -write   makes it so
//
// The list is what the go command links for each system the program builds on, not
// go.mod, which also names what only tests need.
package main

import (
	"bytes"
	_ "embed"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

const program = "./cmd/mediaproxy"

var systems = []string{"linux", "freebsd", "darwin", "openbsd"}

// module is the part of `go list -json`'s Module that matters here.
type module struct {
	Path, Version, Dir string
	Main               bool
	Replace            *module
}

func main() {
	write := flag.Bool("write", false, "write NOTICE instead of comparing")
	flag.Parse()
	if err := run(*write); err != nil {
		fmt.Fprintln(os.Stderr, "notice:", err)
		os.Exit(1)
	}
}

func run(write bool) error {
	out, err := exec.Command("git", "-c", "safe.directory=*", "rev-parse", "--show-toplevel").Output()
	if err != nil {
		return fmt.Errorf("find the top of the repository: %w", err)
	}
	root := strings.TrimSpace(string(out))
	modules, err := linked(root)
	if err != nil {
		return err
	}
	want, err := render(modules)
	if err != nil {
		return err
	}
	name := filepath.Join(root, "NOTICE")
	if write {
		return os.WriteFile(name, want, 0o644)
	}
	got, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	if !bytes.Equal(got, want) {
		return errors.New("NOTICE is not what the program's modules ask for; type: make notice")
	}
	return nil
}

// linked lists the modules of the program on all systems, sorted by path.
func linked(root string) ([]module, error) {
	found := map[string]module{}
	for _, system := range systems {
		cmd := exec.Command("go", "list", "-deps", "-json=Module", program)
		cmd.Dir = root
		cmd.Env = append(os.Environ(), "GOOS="+system, "CGO_ENABLED=0")
		cmd.Stderr = os.Stderr
		out, err := cmd.Output()
		if err != nil {
			return nil, fmt.Errorf("list what %s links on %s: %w", program, system, err)
		}
		dec := json.NewDecoder(bytes.NewReader(out))
		for {
			var p struct{ Module *module }
			if err := dec.Decode(&p); errors.Is(err, io.EOF) {
				break
			} else if err != nil {
				return nil, fmt.Errorf("read the answer of go list: %w", err)
			}
			if m := p.Module; m != nil && !m.Main {
				if m.Replace != nil {
					m.Dir = m.Replace.Dir
				}
				found[m.Path] = *m
			}
		}
	}
	list := make([]module, 0, len(found))
	for _, m := range found {
		list = append(list, m)
	}
	slices.SortFunc(list, func(a, b module) int { return strings.Compare(a.Path, b.Path) })
	return list, nil
}

const head = `mediaproxy
Licensed under the Apache License, Version 2.0; see the file LICENSE.

The program contains the Go run-time and standard library and the modules below.
This file is generated: make notice.
`

// goLicence comes from the Go distribution, whose packages do not all ship the file.
//
//go:embed go-licence.txt
var goLicence string

// render makes the text. Licences that must travel with the program are quoted in full;
// the Apache License is in LICENSE already.
func render(modules []module) ([]byte, error) {
	var out bytes.Buffer
	out.WriteString(head)
	writeModule(&out, "Go run-time and standard library", licence{name: "BSD-3-Clause", text: tidy(goLicence)})
	var bad []error
	for _, m := range modules {
		l, err := licenceOf(m.Dir)
		if err != nil {
			bad = append(bad, fmt.Errorf("%s %s: %w", m.Path, m.Version, err))
			continue
		}
		if l.name == "MPL-2.0" { // whose section 3.2 asks to say where the source is
			l.source = "https://proxy.golang.org/" + m.Path + "/@v/" + m.Version + ".zip"
		}
		writeModule(&out, m.Path+" "+m.Version, l)
	}
	return out.Bytes(), errors.Join(bad...)
}

func writeModule(out *bytes.Buffer, title string, l licence) {
	fmt.Fprintf(out, "\n%s\n%s\nLicence: %s\n", strings.Repeat("=", 80), title, l.name)
	if l.source != "" {
		fmt.Fprintf(out, "Its source: %s\n", l.source)
	}
	if l.name != "Apache-2.0" {
		fmt.Fprintf(out, "\n%s\n", l.text)
	}
	if l.notice != "" {
		fmt.Fprintf(out, "\nIts NOTICE:\n\n%s\n", l.notice)
	}
}
