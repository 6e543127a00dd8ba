// Package version says which version this is. Packages may set it when they build:
//
//	go build -ldflags "-X example.org/mediaproxy/cmd/mediaproxy/version.Version=5.0.0-3"
package version

// Version is what the programs answer wherever the original answers its own, so it
// continues that numbering.
var Version = "5.0.0"
