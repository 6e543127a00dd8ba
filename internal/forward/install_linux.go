package forward

// install has the kernel move a flow from now on, or notes why it cannot. A flow that
// a former process installed the same way is not touched.
func (k *kernel) install(e *entry, f Flow, out *entry) {
	index, _ := k.mem.index(e.local)
	k.mu.Lock()
	defer k.mu.Unlock()
	k.installed[index] = install{e, out, f}
	k.wantClockLocked(index, e)
	k.applyLocked(e, f, out)
}

func (k *kernel) applyLocked(e *entry, f Flow, out *entry) {
	hop, err := k.way(f, out)
	if err == nil {
		err = k.hooks.need(k.hops.device(e.local.Addr(), f.Source.Addr()))
	}
	if err != nil {
		why := err.Error()
		e.why.Store(&why)
		e.rec.open() // user space moves it
		return
	}
	next := lineOf(e, f, out, k.mem.slot(out.local.Addr()), hop)
	if e.rec.state.Load() != stateDecided || e.rec.flow != next {
		e.rec.decide(next, familyOf(f.Source.Addr()))
	}
	e.why.Store(nil)
}

// way finds the next hop of a flow, or why the kernel is no way for it.
func (k *kernel) way(f Flow, out *entry) (hop uint16, err error) {
	switch {
	case f.Source.Addr().Is4() != f.Dest.Addr().Is4():
		return 0, errFamilies
	case k.hops.isOwn(f.Source.Addr()):
		return 0, errLocalParty
	}
	return k.hops.resolve(out.local.Addr(), f.Dest.Addr())
}

// lineOf is a flow in the words of the table.
func lineOf(e *entry, f Flow, out *entry, outSlot int, hop uint16) (l flowLine) {
	source, dest := f.Source.Addr(), f.Dest.Addr()
	local, outLocal := e.local.Addr(), out.local.Addr()
	localPort := rawPort(e.local.Port())
	l.source, l.dest = rawAddr(source), rawAddr(dest)
	l.sourcePort, l.destPort = rawPort(f.Source.Port()), rawPort(f.Dest.Port())
	l.outPort, l.outSlot, l.hop = rawPort(out.local.Port()), uint8(outSlot), hop
	l.addrChange = change(append(source.AsSlice(), local.AsSlice()...), append(outLocal.AsSlice(), dest.AsSlice()...))
	l.portChange = change(append(l.sourcePort[:], localPort[:]...), append(l.outPort[:], l.destPort[:]...))
	return l
}

// decide writes a flow. Meanwhile the port is open, so that no datagram is lost, and
// a kernel that copied half of it sees another generation afterwards.
func (r *record) decide(next flowLine, family uint8) {
	r.state.Store(stateOpen)
	r.setDetail(family, family)
	r.flow = next
	r.state.Store(stateDecided)
}

// open gives a decided port back to user space.
func (r *record) open() { r.state.CompareAndSwap(stateDecided, stateOpen) }

// forget takes a flow back.
func (k *kernel) forget(e *entry) {
	index, _ := k.mem.index(e.local)
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.installed, index)
	e.rec.open()
	e.why.Store(nil)
}

// changed finds the ways of all flows again: the host's network is another one.
func (k *kernel) changed() {
	k.hooks.changed()
	k.mu.Lock()
	indexes := make([]int, 0, len(k.installed))
	for i := range k.installed {
		indexes = append(indexes, i)
	}
	k.mu.Unlock()
	for _, i := range indexes { // one by one: calls go on
		k.mu.Lock()
		if f, ok := k.installed[i]; ok {
			k.applyLocked(f.e, f.flow, f.out)
		}
		k.mu.Unlock()
	}
}
