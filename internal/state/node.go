package state

import (
	"fmt"
	"log/slog"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// node is a server, inside this process unless server is nil, and a connection to it.
type node struct {
	server *server.Server
	conn   *nats.Conn
	js     jetstream.JetStream
}

const startTime = 30 * time.Second // to read what a folder holds

// startNode runs a server and connects to it without a socket.
func startNode(opts *server.Options, log *slog.Logger, what string) (_ *node, err error) {
	n := &node{}
	defer func() {
		if err != nil {
			n.close()
		}
	}()
	opts.NoSigs, opts.JetStream = true, true
	// What was taken is on the disk. Without this that is so two minutes later.
	opts.SyncAlways = true
	if n.server, err = server.NewServer(opts); err != nil {
		return nil, err
	}
	n.server.SetLoggerV2(newServerLog(log, what), false, false, false)
	n.server.Start()
	if !n.server.ReadyForConnections(startTime) {
		return nil, fmt.Errorf("not ready within %v", startTime)
	}
	n.conn, err = nats.Connect("", nats.InProcessServer(n.server), nats.MaxReconnects(-1), nats.NoEcho(), nats.UserInfo(opts.Username, opts.Password))
	if err != nil {
		return nil, err
	}
	n.js, err = jetstream.New(n.conn)
	return n, err
}

func (n *node) close() {
	if n.conn != nil {
		_ = n.conn.FlushTimeout(time.Second) // the last refusals
		n.conn.Close()
	}
	if n.server != nil {
		n.server.Shutdown()
		n.server.WaitForShutdown()
	}
}
