package main

import (
	"cmp"
	"fmt"
	"net/netip"
	"sync"

	"example.org/mediaproxy/internal/wire/control"
)

// switchboard sets up calls: our program or its peer.
type switchboard interface {
	setUp(callID string, caller, callee netip.AddrPort) (callPorts, error)
	tearDown(callID string) error
}

// module is our program as a SIP proxy sees it.
type module struct{ *proxy }

func (m module) setUp(callID string, caller, callee netip.AddrPort) (c callPorts, err error) {
	// An answer is for the SDP of the party that spoke, so it is what the other
	// one sends to.
	if c.fromCallee, err = m.port(update(callID, control.KindRequest, caller)); err != nil {
		return c, err
	}
	c.fromCaller, err = m.port(update(callID, control.KindReply, callee))
	return c, err
}

func (m module) tearDown(callID string) error {
	_, err := m.do(remove(callID))
	return err
}

func callID(name string, n int) string { return fmt.Sprintf("%s-%d@bench", name, n) }

// setUpAll makes n answered calls, without media.
func setUpAll(socket, name string, n int) error {
	return each(socket, n, func(m module, i int) error {
		_, err := m.setUp(callID(name, i), onLoopback(30000), onLoopback(30002))
		return err
	})
}

func tearDownAll(socket, name string, n int) error {
	return each(socket, n, func(m module, i int) error { return m.tearDown(callID(name, i)) })
}

// each does something for n calls, over several connections at once.
func each(socket string, n int, do func(m module, i int) error) error {
	const at = 8
	proxies, err := dialProxies(socket, at)
	if err != nil {
		return err
	}
	defer closeAll(proxies)
	var wg sync.WaitGroup
	errs := make([]error, at)
	for w, p := range proxies {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for i := w; i < n && errs[w] == nil; i += at {
				if err := do(module{p}, i); err != nil {
					errs[w] = fmt.Errorf("call %d of %d: %w", i+1, n, err)
				}
			}
		}()
	}
	wg.Wait()
	return cmp.Or(errs...)
}
