package state

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"testing"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// leaveStream makes a stream in a folder as some version of this program left it.
func leaveStream(t *testing.T, dir string, metadata map[string]string, ids ...string) {
	t.Helper()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	n, err := startNode(&server.Options{ServerName: "mediaproxy", DontListen: true, StoreDir: dir}, slog.New(slog.DiscardHandler), "outbox")
	if err != nil {
		t.Fatal(err)
	}
	defer n.close()
	_, err = n.js.CreateOrUpdateStream(t.Context(), jetstream.StreamConfig{Name: "outbox", Subjects: []string{"outbox.>"}, Storage: jetstream.FileStorage,
		Retention: jetstream.WorkQueuePolicy, MaxBytes: 4 << 30, Discard: jetstream.DiscardNew, Duplicates: sameRecord, Metadata: metadata})
	if err != nil {
		t.Fatal(err)
	}
	for _, id := range ids {
		m := &nats.Msg{Subject: "outbox.webhook", Data: []byte("data of " + id), Header: nats.Header{"Record": {id}}}
		if _, err := n.js.PublishMsg(t.Context(), m, jetstream.WithMsgID("webhook "+id)); err != nil {
			t.Fatal(err)
		}
	}
}

// What the first version left, which did not say its number, is read on.
func TestFirstLayoutIsReadOn(t *testing.T) {
	dir := t.TempDir()
	var want []string
	for i := range 20 {
		want = append(want, fmt.Sprint("r", i))
	}
	leaveStream(t, dir, nil, want...)
	o := open(t, Config{Dir: dir})
	add(t, o, "r19", "webhook") // repeated by its relay: known
	add(t, o, "new", "webhook")
	r := receive(t, o, "webhook", nil)
	eventually(t, "nothing waits", func() bool { return waiting(t, o, "webhook") == 0 })
	if got := r.ids(); !slices.Equal(got, append(want, "new")) {
		t.Errorf("got %v", got)
	}
	if got := o.store.stream.CachedInfo().Config.Metadata[metadataSchema]; got != "1" {
		t.Errorf("schema %q is noted", got)
	}
}

func TestNewerLayoutIsRefused(t *testing.T) {
	for _, version := range []string{"2", "strange"} {
		dir := t.TempDir()
		leaveStream(t, dir, map[string]string{metadataSchema: version}, "r")
		if _, err := Open(Config{Dir: dir}, slog.New(slog.DiscardHandler)); !errors.Is(err, ErrNewer) {
			t.Errorf("schema %s: error %v, want %v", version, err, ErrNewer)
		}
		leaveStream(t, dir, nil) // still there, and not spoilt
	}
}
