package state

import (
	"context"
	"time"

	"github.com/nats-io/nats.go"
)

// Questions go to all other dispatchers of a cluster. They need no leader and no majority:
// who is connected answers.
type Questions struct {
	cluster *Cluster
	subject string
}

const (
	headerKnown   = "Known"
	answersAtOnce = 64                    // questions that are answered at the same time; more are left to others
	repeatAsking  = 50 * time.Millisecond // until somebody is heard: a server that starts has no connections yet
)

// Questions opens a topic.
func (c *Cluster) Questions(topic string) *Questions {
	return &Questions{cluster: c, subject: "mediaproxy.ask." + topic}
}

// Answer has questions answered until the cluster is left. nil means: not known here.
func (q *Questions) Answer(answer func(ctx context.Context, question []byte) []byte) error {
	c := q.cluster
	turns := make(chan struct{}, answersAtOnce)
	sub, err := c.node.conn.SubscribeSync(q.subject)
	if err != nil {
		return err
	}
	c.wg.Go(func() {
		for {
			m, err := sub.NextMsgWithContext(c.ctx)
			if c.ctx.Err() != nil || err == nats.ErrConnectionClosed || err == nats.ErrBadSubscription {
				return
			}
			if err != nil {
				continue // slow for a moment
			}
			select {
			case turns <- struct{}{}:
			default:
				continue
			}
			c.wg.Go(func() {
				defer func() { <-turns }()
				ctx, cancel := context.WithTimeout(c.ctx, askTime)
				defer cancel()
				reply := &nats.Msg{Subject: m.Reply, Header: nats.Header{}}
				if reply.Data = answer(ctx, m.Data); reply.Data != nil {
					reply.Header.Set(headerKnown, "yes")
				}
				_ = c.node.conn.PublishMsg(reply) // who asked asks again
			})
		}
	})
	return nil
}

// settled is how long after joining a cluster one is still waiting for its servers.
const settled = 5 * time.Second

// others is how many other dispatchers can be heard now; -1: not known.
func (c *Cluster) others() int {
	if c.node.server == nil {
		return -1
	}
	return len(c.routes()) - 1
}

// Ask returns the first answer of another dispatcher that knows one, as soon as there is one
// or all that are connected have said no. heard: somebody said anything.
func (q *Questions) Ask(ctx context.Context, question []byte) (answer []byte, heard bool) {
	c := q.cluster
	if c.others() == 0 && time.Since(c.joined) > settled {
		return nil, false
	}
	inbox := c.node.conn.NewInbox()
	sub, err := c.node.conn.SubscribeSync(inbox)
	if err != nil {
		return nil, false
	}
	defer sub.Unsubscribe()
	unknown := 0
	for ctx.Err() == nil {
		if !heard {
			if err := c.node.conn.PublishRequest(q.subject, inbox, question); err != nil {
				return nil, false
			}
		}
		limited, cancel := context.WithTimeout(ctx, repeatAsking)
		m, err := sub.NextMsgWithContext(limited)
		cancel()
		if err != nil {
			continue
		}
		heard = true
		if m.Header.Get(headerKnown) != "" {
			return m.Data, true
		}
		if unknown++; unknown == c.others() {
			return nil, true
		}
	}
	return nil, heard
}
