package state

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"github.com/nats-io/nats.go/jetstream"
)

// ErrNewer: a newer version of this program has written what is there.
var ErrNewer = errors.New("written by a newer version of this program: run that one, or a newer")

// schema is the version of what streams and maps hold: 1 is a document for each receiver
// under the subject PREFIX.RECEIVER, with the header Record. A change that this version
// could not read takes the next number.
const schema = 1

// metadataSchema is where a stream says which version it has. One without it is of the
// first, which did not say.
const metadataSchema = "mediaproxy-schema"

func schemaMetadata() map[string]string {
	return map[string]string{metadataSchema: strconv.Itoa(schema)}
}

// checkSchema refuses a stream that this version could not read or would spoil.
func checkSchema(ctx context.Context, js jetstream.JetStream, name string) error {
	stream, err := js.Stream(ctx, name)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	return readable(stream.CachedInfo().Config)
}

func readable(c jetstream.StreamConfig) error {
	text, said := c.Metadata[metadataSchema]
	if !said {
		return nil
	}
	if n, err := strconv.Atoi(text); err != nil || n > schema {
		return fmt.Errorf("%s has schema %.20q, this program knows %d: %w", c.Name, text, schema, ErrNewer)
	}
	return nil
}
