// Package restart restarts the relay under calls. Dispatcher and relay are processes of
// the real program, the relay is killed or told to stop, and the next one has to have
// the calls as they were: media, ports, learned addresses, hold, what the proxy's next
// messages get, and what is reported in the end, once.
//
// Tests about calls run with each of movers, which say what moves packets; streams that
// the kernel moves are those of test/hitless.
package restart
