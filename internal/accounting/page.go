package accounting

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	"example.org/mediaproxy/internal/report"
)

// Reader is a Backend that can give back what it stored: up to limit calls behind the one
// with this number, in the order of their numbers.
type Reader interface {
	Page(ctx context.Context, after int64, limit int) ([]report.Stored, error)
}

const (
	pageLength = 200         // calls
	pageTime   = time.Second // spent looking for one that is wanted
)

// Readable says whether one of the back-ends is a Reader.
func (a *Accounting) Readable() bool { return a.reader() != nil }

func (a *Accounting) reader() Reader {
	for _, name := range a.names {
		if r, ok := a.backends[name].Backend.(Reader); ok {
			return r
		}
	}
	return nil
}

// Page reads calls back that were stored, without those that began before since (UNIX
// seconds). Whoever asks goes on behind the last one of the page, so that one is there even
// if it is not wanted, without its document. An empty page is the end.
func (a *Accounting) Page(ctx context.Context, after, since int64, limit int) ([]report.Stored, error) {
	r := a.reader()
	if r == nil {
		return nil, errors.New("no back-end can be read")
	}
	if limit <= 0 || limit > pageLength {
		limit = pageLength
	}
	for begin := time.Now(); ; {
		all, err := r.Page(ctx, after, limit)
		if err != nil || len(all) == 0 {
			return nil, err
		}
		page := []report.Stored{}
		for _, s := range all {
			if wanted(s, since) {
				page = append(page, s)
			}
		}
		last := all[len(all)-1]
		if len(page) == 0 && time.Since(begin) < pageTime {
			after = last.ID
			continue
		}
		if len(page) == 0 || page[len(page)-1].ID != last.ID {
			page = append(page, report.Stored{ID: last.ID})
		}
		return page, nil
	}
}

// wanted says whether a call began late enough. One that cannot be read is wanted: nobody
// is to miss it.
func wanted(s report.Stored, since int64) bool {
	var call struct {
		StartTime *float64 `json:"start_time"`
	}
	if since <= 0 || s.Unreadable || json.Unmarshal(s.Call, &call) != nil {
		return true
	}
	return call.StartTime != nil && *call.StartTime >= float64(since)
}
