// Package database is a test: calls of real processes are in a real database when they are
// over, once each, although the database and the dispatcher are killed meanwhile.
package database
