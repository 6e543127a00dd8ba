package media

// portsPerStream: RTP and RTCP for each party.
const portsPerStream = 4

// portRange is the first and the last port.
func (e *Engine) portRange() (first, last int) {
	last = int(e.cfg.EndPort) - 1
	if last < 0 {
		last = 1<<16 - 1
	}
	return int(e.cfg.FirstPort), last
}

// byPorts is how many streams the ports of one address carry.
func (e *Engine) byPorts() int {
	first, last := e.portRange()
	return (last - first + 1) / portsPerStream
}

// Capacity is how many streams fit: by the ports, and by the descriptors of the
// process. Beyond it Open fails with a clear error.
func (e *Engine) Capacity() int { return min(e.byPorts(), e.table.Capacity()/portsPerStream) }

// Prepare keeps the media ports from other programs, as far as this process
// may, and logs how many streams fit.
func (e *Engine) Prepare() {
	first, last := e.portRange()
	if err := ReservePorts(uint16(first), uint16(last)); err != nil {
		e.log.Warn("media ports are not reserved", "error", err)
	}
	if descriptors := e.table.Capacity(); descriptors < e.byPorts()*portsPerStream {
		e.log.Warn("the file descriptor limit is lower than port_range: raise LimitNOFILE of the unit or ulimit -n",
			"streams", e.Capacity(), "streams_by_ports", e.byPorts(), "descriptors_for_ports", descriptors)
		return
	}
	e.log.Info("capacity of the relay", "streams", e.Capacity(), "first_port", first, "last_port", last)
}
