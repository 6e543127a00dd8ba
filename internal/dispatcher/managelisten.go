package dispatcher

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"net"
	"time"

	"example.org/mediaproxy/internal/report"
	"example.org/mediaproxy/internal/wire/manage"
)

// answerTimeout bounds the write of an answer, or of a page of it.
const answerTimeout = 30 * time.Second

// serveManager answers one operator's connection.
func (d *Dispatcher) serveManager(conn net.Conn) {
	if !d.managerConns.add(conn) {
		return
	}
	defer d.managerConns.remove(conn)
	if secure, ok := conn.(*tls.Conn); ok {
		ctx, cancel := context.WithTimeout(context.Background(), handshakeTimeout)
		defer cancel()
		if err := secure.HandshakeContext(ctx); err != nil {
			d.log.Warn("management connection refused", "peer", conn.RemoteAddr().String(), "reason", err)
			return
		}
		if d.cfg.TrackManager != nil {
			defer d.cfg.TrackManager(secure)()
		}
	}
	in := &lineReader{conn: conn}
	for !d.isStopping() {
		line, err := in.next(manage.MaxLine)
		if err != nil {
			return
		}
		req, err := manage.ParseRequest(line)
		if err == nil && req == (manage.Request{Verb: manage.Sessions}) {
			if d.writeSessions(conn) != nil {
				return
			}
			continue
		}
		answer, goOn := d.command(req, err)
		if !goOn || writeAnswer(conn, answer) != nil {
			return
		}
	}
}

// command runs one command and returns its answer; goOn is false for quit.
func (d *Dispatcher) command(req manage.Request, err error) (answer []byte, goOn bool) {
	var syntax *manage.SyntaxError
	switch {
	case errors.As(err, &syntax):
		return manage.AppendError(nil, syntax.Text), true
	case err != nil:
		return manage.AppendError(nil, ""), true
	case req.Verb == manage.Quit:
		return nil, false
	case req.Verb == manage.Version:
		return manage.AppendText(nil, d.Version()), true
	}
	docs, err := d.documents(req)
	if err != nil {
		return manage.AppendError(nil, err.Error()), true
	}
	return manage.AppendDocs(nil, d.cfg.ManagementFormat, docs), true
}

// documents runs a command that is answered with documents.
func (d *Dispatcher) documents(req manage.Request) (docs []json.RawMessage, err error) {
	defer d.recovered("management command "+string(req.Verb), req.CallID, &err)
	switch req.Verb {
	case manage.Summary:
		return d.summaryDocs()
	case manage.Sessions:
		return encode(d.Sessions(req.Filter))
	case manage.Session:
		list, err := d.Session(req.CallID)
		if err != nil {
			return nil, err
		}
		return encode(list)
	case manage.Explain:
		return d.Explain(req.CallID)
	case manage.Terminate:
		n, err := d.Terminate(req.CallID)
		if err != nil {
			return nil, err
		}
		return encode([]struct {
			Terminated int `json:"terminated"`
		}{{n}})
	case manage.Accounting:
		return d.accounting()
	case manage.Cluster:
		return d.cluster()
	case manage.Stored:
		if d.cfg.Stored == nil {
			return nil, errNothingStored
		}
		list, err := d.cfg.Stored(req.Page.After, req.Page.Since, req.Page.Limit)
		if err != nil {
			return nil, err
		}
		return encode(list)
	case manage.Drain:
		status, err := d.Drain(req.Relay, req.Cancel)
		if err != nil {
			return nil, err
		}
		return encode([]struct {
			Status string `json:"status"`
		}{{status}})
	}
	return nil, errUnknownCommand
}

var errNothingStored = errors.New("finished calls are not in a database: name database in accounting, section [Dispatcher], and set dburi in section [Database]")

// accounting is how those do that store finished calls.
func (d *Dispatcher) accounting() ([]json.RawMessage, error) {
	if d.cfg.Accounting == nil {
		return nil, nil
	}
	list, err := d.cfg.Accounting()
	if err != nil {
		return nil, err
	}
	return encode(list)
}

// cluster is how the cluster does, and what this dispatcher has of it.
func (d *Dispatcher) cluster() ([]json.RawMessage, error) {
	if d.cfg.Cluster == nil {
		return nil, nil
	}
	c := d.cfg.Cluster()
	n := &d.count
	c.Located, c.Hinted, c.TakenOver, c.Elsewhere, c.ForPeers = n.located.Load(), n.hinted.Load(), n.released.Load(), n.elsewhere.Load(), n.forPeers.Load()
	return encode([]report.Cluster{c})
}

// summaryDocs passes the relays' documents on as they wrote them; a relay that
// fails gets the document that existing readers look for.
func (d *Dispatcher) summaryDocs() ([]json.RawMessage, error) {
	var docs []json.RawMessage
	for _, s := range d.Summary() {
		if s.Err == nil {
			docs = append(docs, s.Raw)
			continue
		}
		d.log.Warn("relay did not answer summary", "relay", s.Name, "error", s.Err)
		failed, err := encode([]struct {
			Status string `json:"status"`
			IP     string `json:"ip"`
		}{{"error", s.IP.String()}})
		if err != nil {
			return nil, err
		}
		docs = append(docs, failed...)
	}
	return docs, nil
}

func encode[T any](list []T) ([]json.RawMessage, error) {
	docs := make([]json.RawMessage, len(list))
	for i, doc := range list {
		line, err := report.Append(nil, doc)
		if err != nil {
			return nil, err
		}
		docs[i] = line
	}
	return docs, nil
}
