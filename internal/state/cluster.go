package state

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/tls"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// ClusterConfig says where the cluster is: with Peers, this process is one of its servers;
// with URLs it runs elsewhere.
type ClusterConfig struct {
	Name     string // of this dispatcher, unlike all others
	Replicas int    // of an outbox: 1 leaves it to Open
	MaxDisk  int64  // bytes for each outbox, 4 GiB

	Dir    string      // of the server's files alone
	Listen string      // host:port for the other servers
	Peers  []string    // host:port of the other servers
	TLS    *tls.Config // for both ends of a connection between servers; of URLs: may be nil

	URLs        []string
	Credentials string // file; empty: none
}

// Cluster is joined until Close.
type Cluster struct {
	cfg    ClusterConfig
	log    *slog.Logger
	node   *node
	joined time.Time
	cancel context.CancelFunc
	ctx    context.Context // of what runs here
	wg     sync.WaitGroup
	maps   []*Map
}

const (
	// clusterName keeps servers of something else out that are connected by mistake.
	clusterName = "mediaproxy"
	// A server that says nothing for three of these is disconnected: a cut network is
	// noticed, and mended, in seconds.
	routePing     = 2 * time.Second
	maxRoutePings = 2
	askTime       = 2 * time.Second // for a question to the cluster
	tryAgain      = time.Second     // what the cluster did not do
)

// Join becomes part of a cluster. It waits for nobody: until enough servers are there, what
// is asked fails.
func Join(cfg ClusterConfig, log *slog.Logger) (_ *Cluster, err error) {
	cfg.MaxDisk = cmp.Or(cfg.MaxDisk, 4<<30)
	c := &Cluster{cfg: cfg, log: log, joined: time.Now()}
	c.ctx, c.cancel = context.WithCancel(context.Background())
	if len(cfg.URLs) > 0 {
		c.node, err = c.connect()
	} else {
		c.node, err = c.serve()
	}
	if err != nil {
		c.cancel()
		return nil, fmt.Errorf("join the cluster: %w", err)
	}
	return c, nil
}

// serve makes this process a server of the cluster.
func (c *Cluster) serve() (*node, error) {
	cfg := c.cfg
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("make its folder: %w", err)
	}
	host, port, err := free(cfg.Listen)
	if err != nil {
		return nil, err
	}
	var routes []*url.URL
	for _, peer := range cfg.Peers {
		if peer != cfg.Listen {
			routes = append(routes, &url.URL{Scheme: "nats", Host: peer})
		}
	}
	servers := int64(len(routes) + 1)
	return startNode(&server.Options{
		ServerName: safe(cfg.Name), StoreDir: cfg.Dir,
		// Servers do not talk to each other before clients can connect. None is to.
		Host: "127.0.0.1", Port: server.RANDOM_PORT, Username: rand.Text(), Password: rand.Text(),
		JetStreamMaxStore: (servers+1)*cfg.MaxDisk*5/4 + mapDisk*2, JetStreamMaxMemory: 256 << 20,
		Cluster: server.ClusterOpts{
			Name: clusterName, Host: host, Port: port, TLSConfig: cfg.TLS, TLSTimeout: 5, PoolSize: -1, NoAdvertise: true,
			PingInterval: routePing, MaxPingsOut: maxRoutePings,
		},
		Routes: routes,
	}, c.log, "cluster")
}

// free says whether an address can be listened on: the server itself would only be silent.
func free(address string) (host string, port int, err error) {
	l, err := net.Listen("tcp", address)
	if err != nil {
		return "", 0, fmt.Errorf("listen for other dispatchers: %w", err)
	}
	port = l.Addr().(*net.TCPAddr).Port
	host, _, err = net.SplitHostPort(address)
	return host, port, cmp.Or(err, l.Close())
}

// connect uses a cluster that runs elsewhere.
func (c *Cluster) connect() (n *node, err error) {
	n = &node{}
	options := []nats.Option{
		nats.Name("mediaproxy " + c.cfg.Name), nats.NoEcho(), nats.RetryOnFailedConnect(true), nats.MaxReconnects(-1), nats.ReconnectWait(tryAgain),
		nats.Timeout(askTime), nats.PingInterval(routePing), nats.MaxPingsOutstanding(maxRoutePings),
		nats.DisconnectErrHandler(func(conn *nats.Conn, err error) {
			if !conn.IsClosed() {
				c.log.Warn("cluster: connection lost, it is made again", "error", err)
			}
		}),
		nats.ReconnectHandler(func(conn *nats.Conn) { c.log.Info("cluster: connected", "server", conn.ConnectedServerName()) }),
		nats.ConnectHandler(func(conn *nats.Conn) { c.log.Info("cluster: connected", "server", conn.ConnectedServerName()) }),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) {
			c.log.Warn("cluster: trouble with the connection", "error", err)
		}),
	}
	if c.cfg.Credentials != "" {
		options = append(options, nats.UserCredentials(c.cfg.Credentials))
	}
	if c.cfg.TLS != nil {
		options = append(options, nats.Secure(c.cfg.TLS))
	}
	if n.conn, err = nats.Connect(strings.Join(c.cfg.URLs, ","), options...); err != nil {
		return nil, err
	}
	n.js, err = jetstream.New(n.conn)
	return n, err
}

// servers is how many the cluster has as far as it is known; 0: not known.
func (c *Cluster) servers() int {
	if len(c.cfg.URLs) > 0 {
		return 0
	}
	n := 1
	for _, peer := range c.cfg.Peers {
		if peer != c.cfg.Listen {
			n++
		}
	}
	return n
}

// led says whether the cluster can decide anything, as far as is known here.
func (c *Cluster) led() bool {
	if c.node.server == nil {
		return c.node.conn.IsConnected()
	}
	js, err := c.node.server.Jsz(nil)
	return err == nil && js.Meta != nil && js.Meta.Leader != ""
}

// copies is how many replicas the cluster can keep.
func (c *Cluster) copies() int {
	if n := c.servers(); n > 0 && n < 3 {
		return 1
	}
	return 3
}

// until does something with the cluster, again until it is done or the cluster is left. It
// says once why it is not.
func (c *Cluster) until(what string, do func(context.Context) error) bool {
	for said := false; ; {
		ctx, cancel := context.WithTimeout(c.ctx, 5*askTime)
		err := do(ctx)
		cancel()
		switch {
		case c.ctx.Err() != nil:
			return false
		case err == nil:
			if said {
				c.log.Info("cluster: done at last", "what", what)
			}
			return true
		case !said:
			said = true
			c.log.Warn("cluster: not possible yet, it is tried on; calls are served meanwhile", "what", what, "error", err,
				"hint", "more than half of the servers have to reach each other")
		}
		rest(c.ctx, tryAgain)
	}
}

// Close leaves the cluster. What queues wait for is lost.
func (c *Cluster) Close() error {
	c.cancel()
	c.wg.Wait()
	c.node.close()
	return nil
}

// safe makes a name one word of a subject, and of what the cluster calls servers and
// streams. Different names stay different.
func safe(name string) string {
	var b strings.Builder
	for i := range len(name) {
		switch ch := name[i]; {
		case ch >= 'a' && ch <= 'z', ch >= 'A' && ch <= 'Z', ch >= '0' && ch <= '9', ch == '-':
			b.WriteByte(ch)
		default:
			fmt.Fprintf(&b, "=%02X", ch)
		}
	}
	return b.String()
}

// named is the name again.
func named(s string) string {
	var b []byte
	for i := 0; i < len(s); i++ {
		var ch byte
		if s[i] == '=' && i+2 < len(s) {
			if _, err := fmt.Sscanf(s[i+1:i+3], "%02X", &ch); err == nil {
				b = append(b, ch)
				i += 2
				continue
			}
		}
		b = append(b, s[i])
	}
	return string(b)
}

// Status is what is known of a cluster.
type Status struct {
	Servers []Server
	Leader  string // of all that is decided together; empty: nobody, nothing can be decided
	Size    int    // servers that there should be; 0: not known
	Maps    []MapStats
}

// Server of a cluster.
type Server struct {
	Name string
	Seen bool // connected
	Self bool
}

// Status never fails: what does not answer is not there.
func (c *Cluster) Status(ctx context.Context) Status {
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	s := Status{Size: c.servers()}
	if c.node.server != nil {
		s.Servers = c.routes()
		if js, err := c.node.server.Jsz(nil); err == nil && js.Meta != nil {
			s.Leader = named(js.Meta.Leader)
		}
	}
	for _, m := range c.maps {
		stats, group := m.stats(ctx)
		s.Maps = append(s.Maps, stats)
		if c.node.server == nil && group != nil {
			s.Leader = group.Leader
			s.Servers = append(s.Servers, Server{Name: group.Leader, Seen: true})
			for _, peer := range group.Replicas {
				s.Servers = append(s.Servers, Server{Name: peer.Name, Seen: !peer.Offline})
			}
		}
	}
	slices.SortFunc(s.Servers, func(a, b Server) int { return cmp.Compare(a.Name, b.Name) })
	return s
}

// routes are the servers that this one is connected with, and itself.
func (c *Cluster) routes() []Server {
	list := []Server{{Name: c.cfg.Name, Seen: true, Self: true}}
	routes, err := c.node.server.Routez(nil)
	if err != nil {
		return list
	}
	for _, r := range routes.Routes {
		one := Server{Name: named(r.RemoteName), Seen: true}
		if !slices.Contains(list, one) {
			list = append(list, one)
		}
	}
	return list
}
