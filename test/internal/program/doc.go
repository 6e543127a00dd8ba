// Package program builds the program under test and runs a dispatcher and a relay of
// it, two processes with real TLS between them, on a host of netlab.
package program
