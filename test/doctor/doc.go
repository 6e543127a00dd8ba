// Package doctor tests what `mediaproxy doctor` finds on hosts that are really like
// that: namespaces with devices, sockets, rules and mounts of their own, processes that
// lack rights. Where it prints a command, the test runs the command and asks again.
package doctor
