// Package fault breaks things while calls are up: programs are killed and stopped,
// ports run out, modules leave, everybody comes at once. Dispatcher and relays are
// processes of the real program. Each test holds to two promises: other calls go on,
// and the operator can read what happened, in a log or from an answer.
package fault
