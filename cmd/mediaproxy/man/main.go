// Command man writes the manual pages of mediaproxy, of each of its commands, and of
// its classic names:
//
//	go run ./cmd/mediaproxy/man FOLDER
//
// The date in them comes from SOURCE_DATE_EPOCH if that is set. It is a program of its
// own because what it needs to write them is not needed to relay media.
package main

import (
	"fmt"
	"os"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"

	"example.org/mediaproxy/cmd/mediaproxy/program"
	"example.org/mediaproxy/cmd/mediaproxy/version"
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: man FOLDER")
		os.Exit(2)
	}
	if err := write(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, "man:", err)
		os.Exit(1)
	}
}

func write(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for _, cmd := range append([]*cobra.Command{program.Root()}, program.Classic()...) {
		cmd.DisableAutoGenTag = true // it would add the day of the build
		header := &doc.GenManHeader{Section: "8", Source: "mediaproxy " + version.Version, Manual: "MediaProxy"}
		if err := doc.GenManTree(cmd, header, dir); err != nil {
			return fmt.Errorf("write the page of %s: %w", cmd.Name(), err)
		}
	}
	return nil
}
