// Package durable kills dispatchers and stops those who store finished calls while calls go
// on, and counts what arrives.
package durable
