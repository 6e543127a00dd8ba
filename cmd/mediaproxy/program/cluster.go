package program

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"example.org/mediaproxy/internal/dispatcher"
	"example.org/mediaproxy/internal/pki"
	"example.org/mediaproxy/internal/report"
	"example.org/mediaproxy/internal/state"
)

// cluster is what a dispatcher has in common with others. nil: nothing.
type cluster struct {
	*state.Cluster
	name     string
	replicas int
	calls    *state.Map // which relay carries which
	requests *state.Questions
}

// dispatcherName is what relays and other dispatchers call this one.
func (h *host) dispatcherName() string {
	if name := h.cfg.Cluster.Name; name != "" {
		return name
	}
	if name, err := os.Hostname(); err == nil && name != "" {
		return name
	}
	return "dispatcher"
}

// joinCluster waits for nobody.
func (h *host) joinCluster(store *pki.Store) (*cluster, error) {
	c := h.cfg.Cluster
	if !c.Joined() {
		return nil, nil
	}
	passport, err := parsePassport(c.Passport)
	if err != nil {
		return nil, err
	}
	cfg := state.ClusterConfig{
		Name: h.dispatcherName(), Replicas: c.Replicas, Dir: filepath.Join(h.stateDir, "cluster"),
		Peers: c.PeerAddresses(), TLS: store.PeerConfig(passport), URLs: c.URLs, Credentials: c.Credentials,
	}
	if len(c.URLs) == 0 {
		cfg.Listen = c.Listen.String()
	} else if cfg.TLS, err = clusterAuthorities(c.CA); err != nil {
		return nil, err
	}
	joined, err := state.Join(cfg, h.log)
	if err != nil {
		return nil, fmt.Errorf("%w (section [Cluster])", err)
	}
	return &cluster{Cluster: joined, name: cfg.Name, replicas: c.Replicas, calls: joined.Map("sessions"), requests: joined.Questions("requests")}, nil
}

// clusterAuthorities is how servers of a cluster that runs elsewhere are verified; nil: as
// the host does.
func clusterAuthorities(file string) (*tls.Config, error) {
	if file == "" {
		return nil, nil
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("%s: want certificates in PEM", file)
	}
	return &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: pool}, nil
}

// checkCredentials finds a file that cannot be one of credentials.
func checkCredentials(file string) error {
	if file == "" {
		return nil
	}
	text, err := os.ReadFile(file)
	if err == nil && !bytes.Contains(text, []byte("BEGIN NATS USER JWT")) {
		err = fmt.Errorf("%s: want a credentials file of NATS, with a user's JWT and its seed", file)
	}
	return err
}

// shared is the map of calls, or nothing.
func (c *cluster) shared() dispatcher.Map {
	if c == nil {
		return nil
	}
	return c.calls
}

func (c *cluster) peers() dispatcher.Peers {
	if c == nil {
		return nil
	}
	return c.requests
}

// answer has a dispatcher serve what others ask.
func (c *cluster) answer(d *dispatcher.Dispatcher) error {
	if c == nil {
		return nil
	}
	return c.requests.Answer(d.AnswerPeer)
}

// clusterTime bounds looking at the cluster.
const clusterTime = 3 * time.Second

func (c *cluster) status() func() report.Cluster {
	if c == nil {
		return nil
	}
	return func() report.Cluster {
		ctx, cancel := context.WithTimeout(context.Background(), clusterTime)
		defer cancel()
		s := c.Status(ctx)
		doc := report.Cluster{Name: c.name, Size: s.Size, Leader: s.Leader, Replicas: c.replicas, Servers: []report.Server{}}
		for _, one := range s.Servers {
			doc.Servers = append(doc.Servers, report.Server{Name: one.Name, Seen: one.Seen, Self: one.Self, Leader: one.Name == s.Leader})
		}
		for _, m := range s.Maps {
			doc.Entries, doc.MapOpen, doc.MapError = m.Entries, m.Open, m.Error
			doc.Queued, doc.Written, doc.Dropped, doc.Retried = m.Queued, m.Written, m.Dropped, m.Retried
		}
		return doc
	}
}

func (c *cluster) close() error {
	if c == nil {
		return nil
	}
	return c.Close()
}
