// Package service is what makes a program a well-behaved service: going to the
// background, a PID file, signals, and telling systemd how it is.
//
// Nothing here knows what the program does.
package service
