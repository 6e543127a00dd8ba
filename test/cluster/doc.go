// Package cluster joins three dispatchers, has each message of a call go through another of
// them, kills them one after the other, cuts the network between them, and counts: no call
// ends, no finished call is lost, none is stored twice, and nothing waits for an election.
package cluster
