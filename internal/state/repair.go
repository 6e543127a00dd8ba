package state

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/minio/highwayhash"
)

// The server gives up all of a block behind the first damage, and a wrong number in it may
// cost more memory than there is. So blocks are looked through before it reads them, and
// what is damaged is cut out; the file as it was is kept beside.
//
// A block is a sequence of records, integers little-endian:
//
//	0  length of the whole record, highest bit: it has headers
//	4  number in the stream, highest bits: what it notes (an erased record, a removal)
//	12 time
//	20 length of the subject, then the subject
//	   with headers: their length (4 bytes), the headers
//	   message
//	-8 HighwayHash-64 of bytes 4 to 20, subject, headers and message,
//	   keyed with SHA-256 of "STREAM-BLOCK"
const (
	recordHead = 22
	recordHash = 8
	withHeader = 1 << 31
	mostRecord = 32 << 20
)

// blockReader finds the intact records of one block.
type blockReader struct {
	key    [sha256.Size]byte
	prefix []byte // of all subjects
}

func newBlockReader(stream, prefix string, block int) *blockReader {
	return &blockReader{sha256.Sum256(fmt.Appendf(nil, "%s-%d", stream, block)), []byte(prefix)}
}

// at returns the length of the record at the beginning of b; 0: there is no intact one.
func (r *blockReader) at(b []byte) int {
	if len(b) < recordHead+recordHash {
		return 0
	}
	size := binary.LittleEndian.Uint32(b)
	headers := size&withHeader != 0
	size &^= withHeader
	subject := int(binary.LittleEndian.Uint16(b[20:]))
	if size > mostRecord || int(size) > len(b) || int(size) < recordHead+subject+recordHash {
		return 0
	}
	text := b[recordHead : size-recordHash]
	if subject > 0 && !bytes.HasPrefix(text[:subject], r.prefix) { // cheap, where there is none
		return 0
	}
	hash, err := highwayhash.New64(r.key[:])
	if err != nil {
		return 0
	}
	hash.Write(b[4:20])
	hash.Write(text[:subject])
	text = text[subject:]
	if headers {
		if len(text) < 4 {
			return 0
		}
		size := binary.LittleEndian.Uint32(text) // which the hash does not cover
		if text = text[4:]; int(size) > len(text) || !bytes.HasSuffix(text[:size], []byte("\r\n\r\n")) {
			return 0
		}
	}
	hash.Write(text)
	if !bytes.Equal(hash.Sum(nil), b[size-recordHash:size]) {
		return 0
	}
	return int(size)
}

// mend returns the intact records of a block. places counts where there is something else
// between them; what the end of a block has too much, a process left that died while it
// wrote.
func (r *blockReader) mend(b []byte) (intact []byte, records, places, torn int) {
	for i := 0; i < len(b); {
		if n := r.at(b[i:]); n > 0 {
			intact = append(intact, b[i:i+n]...)
			records++
			i += n
			continue
		}
		from := i
		for i++; i < len(b) && r.at(b[i:]) == 0; i++ {
		}
		if i == len(b) {
			return intact, records, places, len(b) - from
		}
		places++
	}
	return intact, records, places, 0
}

// repair looks through the blocks of a stream in a server's folder.
func repair(dir, stream, prefix string, log *slog.Logger) error {
	folder := filepath.Join(streamFolder(dir, stream), "msgs")
	files, err := os.ReadDir(folder)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	var errs []error
	for _, f := range files {
		name, isBlock := strings.CutSuffix(f.Name(), ".blk")
		if number, err := strconv.Atoi(name); isBlock && err == nil {
			errs = append(errs, repairBlock(filepath.Join(folder, f.Name()), dir, newBlockReader(stream, prefix, number), log))
		}
	}
	return errors.Join(errs...)
}

// putNotesAside moves what a server noted of the receivers of a stream to where it does not
// look; empty: there is nothing.
func putNotesAside(dir, stream string) (to string, err error) {
	to = filepath.Join(dir, fmt.Sprintf("damaged-%d-receivers", time.Now().UnixNano()))
	err = os.Rename(filepath.Join(streamFolder(dir, stream), "obs"), to)
	if errors.Is(err, os.ErrNotExist) {
		return "", nil
	}
	return to, err
}

func streamFolder(dir, stream string) string {
	return filepath.Join(dir, "jetstream", "$G", "streams", stream)
}

func repairBlock(path, dir string, r *blockReader, log *slog.Logger) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	intact, records, places, torn := r.mend(b)
	if len(intact) == len(b) {
		return nil
	}
	if places > 0 {
		kept := filepath.Join(dir, fmt.Sprintf("damaged-%d-%s", time.Now().UnixNano(), filepath.Base(path)))
		if err := os.WriteFile(kept, b, 0o600); err != nil {
			return fmt.Errorf("keep a damaged block of the outbox: %w", err)
		}
		log.Error("a block of the outbox is damaged: finished calls in it are lost, look after the disk", "block", path,
			"places", places, "intact_records", records, "copy", kept, "hint", "the copy may still show what the lost calls were")
	} else {
		log.Warn("the end of a block of the outbox is cut off: it was being written when the former process died", "block", path, "bytes", torn)
	}
	if err := os.WriteFile(path+".mended", intact, 0o600); err != nil {
		return err
	}
	if err := os.Rename(path+".mended", path); err != nil {
		return err
	}
	// What the server noted of its blocks is no longer true; it finds that out anew.
	if err := os.Remove(filepath.Join(filepath.Dir(path), "index.db")); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}
