// Package dispatcher chooses a relay for each call and sends each of the call's
// commands to the relay that carries it.
//
//	SIP proxy --UNIX--> module.go: requests ----+
//	                                            v
//	                    route.go, remove.go: which relay?   calls.go: what is known
//	                      choose.go, selection.go: a new one
//	                      locate.go, peers.go: perhaps another dispatcher's
//	                                            |
//	relays ----TLS----> accept.go -> link.go <--+   relay.go: who is connected
//	                      resync.go: what does this relay have?
//	                      finish.go: calls that are over -> Config.Finished
//	operators --TCP---> managelisten.go -> operate.go: the functions behind the words
//
// The relay that carries a call is the truth about it; what is kept here is a
// cache, rebuilt from the relays when they connect. It knows no ports and no
// packets.
//
// Locks: callTable.mu, registry.mu, link.mu and those of the queues are held
// for look-ups and edits only, never while waiting, and never two at once. The
// exceptions are documented here: callTable.mu may be held while relayState's
// atomic fields are read or changed, and while the shared map is told of a change,
// which returns at once.
package dispatcher

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"runtime/debug"
	"sync"
	"time"
)

// Dispatcher routes the commands of a SIP proxy to relays.
type Dispatcher struct {
	// set in New, read-only afterwards
	cfg      Config
	log      *slog.Logger
	instance string
	started  time.Time
	relayTLS *tls.Config

	// set by open, read-only once ready is closed
	module         net.Listener
	moduleFile     fs.FileInfo
	relays         net.Listener
	managers       net.Listener // nil: none
	managerUnix    net.Listener // nil: none
	managerFile    fs.FileInfo
	ready          chan struct{}
	stopping       chan struct{}
	calls          *callTable
	registry       *registry
	reader         *reader
	records        *records
	hungUp         *records // whose dialogs the SIP proxy was asked to end
	modules        moduleConns
	managerConns   moduleConns
	count          counters
	running        sync.WaitGroup // every connection but the modules'
	maintaining    sync.Mutex     // one maintain at a time; guards what follows
	lastVerifyPass time.Time
	lastRetry      time.Time
	untaken        untaken
	owed           owed
	unheard        unheard
	keptLost       lostSum // of what LostCallsFile holds
	nextKeepLost   time.Time
	lostFileBad    bool // it could not be written
}

// New checks the configuration. Nothing is opened before Run.
func New(cfg Config, log *slog.Logger) (*Dispatcher, error) {
	cfg.setDefaults()
	if err := cfg.validate(); err != nil {
		return nil, fmt.Errorf("dispatcher: %w", err)
	}
	d := &Dispatcher{
		cfg: cfg, log: log, instance: newRecordID(), started: cfg.Now(), relayTLS: withLink2(cfg.RelayTLS),
		ready: make(chan struct{}), stopping: make(chan struct{}),
		calls: newCallTable(cfg.Shared), registry: newRegistry(), reader: newReader(), records: newRecords(keptRecords), hungUp: newRecords(keptRecords),
	}
	d.modules.open, d.managerConns.open = map[net.Conn]struct{}{}, map[net.Conn]struct{}{}
	d.owed.byRecord = map[string]owedRecord{}
	d.lastVerifyPass = d.started
	if err := d.recallLost(); err != nil {
		log.Error("calls whose relay was away when the former process ended are not known; they will have no record unless their relay comes back",
			"file", cfg.LostCallsFile, "error", err)
	}
	return d, nil
}

// Ready is closed when all sockets are open.
func (d *Dispatcher) Ready() <-chan struct{} { return d.ready }

// RelayAddr is where relays connect to; valid after Ready.
func (d *Dispatcher) RelayAddr() netip.AddrPort { return addrOf(d.relays) }

// ManagementAddr is the TCP address for operators; valid after Ready, zero
// without one.
func (d *Dispatcher) ManagementAddr() netip.AddrPort {
	if d.managers == nil {
		return netip.AddrPort{}
	}
	return addrOf(d.managers)
}

// SocketPath is the module's socket.
func (d *Dispatcher) SocketPath() string { return d.cfg.SocketPath }

func addrOf(l net.Listener) netip.AddrPort { return l.Addr().(*net.TCPAddr).AddrPort() }

// Run serves until the context ends, then stops in order: listeners are closed,
// module connections get the replies they wait for, operators and relays are
// disconnected, finished calls are handed over. It may be called once.
func (d *Dispatcher) Run(ctx context.Context) error {
	if err := d.open(); err != nil {
		d.closeListeners()
		return err
	}
	// Relay links live on while modules wait for their last replies.
	links, cutLinks := context.WithCancel(context.WithoutCancel(ctx))
	defer cutLinks()
	var accepting, modules sync.WaitGroup
	accepting.Go(func() {
		d.acceptLoop(d.module, &modules, func(c net.Conn) { d.serveModule(links, c) })
	})
	accepting.Go(func() { d.acceptRelays(links, d.relays) })
	if d.managers != nil {
		accepting.Go(func() { d.acceptLoop(d.managers, &d.running, d.serveManager) })
	}
	if d.managerUnix != nil {
		accepting.Go(func() { d.acceptLoop(d.managerUnix, &d.running, d.serveManager) })
	}
	accepting.Go(d.maintainLoop)
	close(d.ready)
	d.log.Info("dispatcher ready", "socket", d.cfg.SocketPath, "relays", d.RelayAddr().String(), "management", d.ManagementAddr().String())

	<-ctx.Done()
	close(d.stopping)
	d.closeListeners()
	accepting.Wait()
	d.modules.stop()
	modules.Wait()
	d.managerConns.stop()
	var flushing sync.WaitGroup // at once: hundreds of relays that do not answer are waited for together
	for _, l := range d.registry.links() {
		flushing.Go(l.flush)
	}
	flushing.Wait()
	cutLinks()
	d.running.Wait()
	d.retryFinished()
	if !d.keepLost() {
		d.payOwed(d.cfg.Now().Add(reportGrace)) // nobody else will
	}
	d.log.Info("dispatcher stopped")
	return nil
}

// open opens all sockets.
func (d *Dispatcher) open() (err error) {
	if d.module, d.moduleFile, err = d.openUnix(d.cfg.SocketPath); err != nil {
		return err
	}
	if d.relays, err = net.Listen("tcp", d.cfg.RelayListen.String()); err != nil {
		return fmt.Errorf("listen for relays: %w", err)
	}
	if d.cfg.ManagementListen.IsValid() {
		if d.managers, err = net.Listen("tcp", d.cfg.ManagementListen.String()); err != nil {
			return fmt.Errorf("listen for management: %w", err)
		}
		if d.cfg.ManagementTLS != nil {
			d.managers = tls.NewListener(d.managers, d.cfg.ManagementTLS)
		}
	}
	if d.cfg.ManagementSocket != "" {
		if d.managerUnix, d.managerFile, err = d.openUnix(d.cfg.ManagementSocket); err != nil {
			return err
		}
	}
	return nil
}

func (d *Dispatcher) openUnix(path string) (net.Listener, fs.FileInfo, error) {
	l, err := listenUnix(path, d.cfg.SocketGID, d.cfg.SocketGroup)
	if err != nil {
		return nil, nil, err
	}
	info, err := os.Lstat(path)
	if err != nil {
		return nil, nil, errors.Join(fmt.Errorf("look at socket %s: %w", path, err), l.Close())
	}
	return l, info, nil
}

func (d *Dispatcher) closeListeners() {
	for _, l := range []net.Listener{d.module, d.relays, d.managers, d.managerUnix} {
		if l != nil {
			l.Close()
		}
	}
	if d.moduleFile != nil {
		removeSocket(d.cfg.SocketPath, d.moduleFile)
	}
	if d.managerFile != nil {
		removeSocket(d.cfg.ManagementSocket, d.managerFile)
	}
}

func (d *Dispatcher) isStopping() bool {
	select {
	case <-d.stopping:
		return true
	default:
		return false
	}
}

// recovered is deferred around the work for one call or connection: a bug there
// must not take the others down. It makes the panic an error, if there is one
// to set.
func (d *Dispatcher) recovered(what, callID string, err *error) {
	bug := recover()
	if bug == nil {
		return
	}
	d.count.panics.Add(1)
	d.log.Error("bug in this program, please report it", "in", what, "call_id", callID, "panic", bug, "stack", string(debug.Stack()))
	if err != nil {
		*err = fmt.Errorf("bug in %s: %v", what, bug)
	}
}
