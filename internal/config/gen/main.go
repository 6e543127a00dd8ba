// Command gen writes what is made from the table of settings: config.ini.sample and
// the generated part of docs/configuration.md.
package main

import (
	"fmt"
	"os"
	"path/filepath"

	"example.org/mediaproxy/internal/config"
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: gen ROOT")
		os.Exit(2)
	}
	if err := generate(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, "gen:", err)
		os.Exit(1)
	}
}

func generate(root string) error {
	if err := os.WriteFile(filepath.Join(root, "config.ini.sample"), config.Sample(), 0o644); err != nil {
		return err
	}
	name := filepath.Join(root, "docs", "configuration.md")
	doc, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	doc, err = config.UpdateDocs(doc)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return os.WriteFile(name, doc, 0o644)
}
