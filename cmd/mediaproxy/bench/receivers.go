package bench

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// hangups is the management socket of the SIP proxy: it ends every dialog that it is
// asked to end. The remove that follows comes from the load.
type hangups struct {
	conn  *net.UnixConn
	ended sync.WaitGroup
	count atomic.Uint64
}

func listenHangups(path string) (*hangups, error) {
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		return nil, fmt.Errorf("listen as a SIP proxy: %w", err)
	}
	h := &hangups{conn: conn}
	h.ended.Go(h.run)
	return h, nil
}

// run ends with the socket.
func (h *hangups) run() {
	buf := make([]byte, 16<<10)
	for {
		n, from, err := h.conn.ReadFromUnix(buf)
		if err != nil {
			return
		}
		var request struct {
			ID json.RawMessage `json:"id"`
		}
		if json.Unmarshal(buf[:n], &request) != nil || from == nil {
			continue // the dispatcher asks again, and its log says why
		}
		h.count.Add(1)
		h.conn.WriteToUnix(fmt.Appendf(nil, `{"jsonrpc":"2.0","result":"OK","id":%s}`, request.ID), from)
	}
}

func (h *hangups) close() {
	h.conn.Close()
	h.ended.Wait()
}

// webhook takes finished calls.
type webhook struct {
	url    string
	server *http.Server
	ended  sync.WaitGroup
	count  atomic.Uint64
}

func listenWebhook() (*webhook, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("listen for finished calls: %w", err)
	}
	w := &webhook{url: "http://" + l.Addr().String() + "/calls"}
	w.server = &http.Server{Handler: w, ReadHeaderTimeout: 10 * time.Second}
	w.ended.Go(func() { w.server.Serve(l) }) // ends with close
	return w, nil
}

func (w *webhook) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	if _, err := io.Copy(io.Discard, r.Body); err == nil {
		w.count.Add(1)
		rw.WriteHeader(http.StatusNoContent)
	}
}

func (w *webhook) close() {
	w.server.Close()
	w.ended.Wait()
}

// await waits until a count is reached, for at most so long.
func await(ctx context.Context, patience time.Duration, reached func() bool) bool {
	end := time.NewTimer(patience)
	defer end.Stop()
	ticker := time.NewTicker(10 * time.Millisecond)
	defer ticker.Stop()
	for !reached() {
		select {
		case <-ctx.Done():
			return false
		case <-end.C:
			return reached()
		case <-ticker.C:
		}
	}
	return true
}
