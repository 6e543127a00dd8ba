// Command mediaproxy relays the media of SIP calls. It is one program under several
// names: mediaproxy with its commands, and media-dispatcher and media-relay, which take
// the options of the programs they replace.
//
// From here to a packet: program.Main reads the command line; program/relay.go puts a
// relay together from the rooms under internal; internal/forward moves its packets.
package main

import (
	"os"

	"example.org/mediaproxy/cmd/mediaproxy/program"
)

func main() {
	os.Exit(program.Main(os.Args, os.Stdout, os.Stderr))
}
