package accounting

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"

	"example.org/mediaproxy/internal/config"
)

// webhook posts each finished call to a URL. It is the example of a back-end: all that one
// has to do is here.
type webhook struct {
	url, token string
	shown      string // url without its password
	client     *http.Client
}

const webhookTime = 10 * time.Second // for one request

func newWebhook(c config.Webhook) (*webhook, error) {
	if c.URL == "" {
		return nil, errors.New("set url in section [Webhook]")
	}
	u, err := url.Parse(c.URL)
	if err != nil {
		return nil, errors.New("url in section [Webhook] cannot be read") // the reason would show it
	}
	return &webhook{url: c.URL, token: c.Token, shown: u.Redacted(), client: &http.Client{Timeout: webhookTime}}, nil
}

// Store posts the document. The ID goes along in a header of its own, because a record can
// come twice: when the answer to the first time was lost. Any answer of 200 to 299 means that
// it is stored.
func (w *webhook) Store(ctx context.Context, r Record) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, w.url, bytes.NewReader(r.JSON))
	if err != nil {
		return fmt.Errorf("post to %s: %w", w.shown, err)
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Idempotency-Key", r.ID) // a partial record's differs from the full one's
	if w.token != "" {
		req.Header.Set("Authorization", "Bearer "+w.token)
	}
	resp, err := w.client.Do(req)
	if err != nil {
		return err // names the URL and what is wrong
	}
	defer resp.Body.Close()
	answer, _ := io.ReadAll(io.LimitReader(resp.Body, 200)) // also lets the connection be used again
	if resp.StatusCode < 200 || resp.StatusCode > 299 {
		return fmt.Errorf("%s answered %s: %q", w.shown, resp.Status, answer)
	}
	return nil
}

// Close ends idle connections.
func (w *webhook) Close() error {
	w.client.CloseIdleConnections()
	return nil
}
