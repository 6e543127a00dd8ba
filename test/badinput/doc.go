// Package badinput gives the running program what it cannot use: requests, media lists,
// words of operators, lines of relays, certificates and configurations. For each there
// is one clear answer and one clear line in the log, and the programs serve on: after
// every piece a call that was up still talks and a new one is set up.
package badinput
