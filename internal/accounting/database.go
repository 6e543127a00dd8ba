package accounting

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"log/slog"

	"example.org/mediaproxy/internal/accounting/database"
	"example.org/mediaproxy/internal/config"
	"example.org/mediaproxy/internal/report"
)

// sqlTable keeps finished calls in a table of an SQL database.
type sqlTable struct{ db *database.DB }

func newSQLTable(c config.Database, log *slog.Logger) (*sqlTable, error) {
	if c.URI == "" {
		return nil, errors.New("set dburi in section [Database], for example to sqlite:/var/lib/mediaproxy/calls.db")
	}
	db, err := database.Open(c.URI, database.Table{
		Name: c.SessionsTable, CallID: c.CallIDColumn, FromTag: c.FromTagColumn, ToTag: c.ToTagColumn, Info: c.InfoColumn,
	}, merge, log)
	if err != nil {
		return nil, err
	}
	return &sqlTable{db}, nil
}

// Store inserts one call.
func (t *sqlTable) Store(ctx context.Context, r Record) error { return t.StoreAll(ctx, []Record{r}) }

// StoreAll inserts calls in one transaction. A call that is there already is known by its
// id.
func (t *sqlTable) StoreAll(ctx context.Context, records []Record) error {
	rows := make([]database.Row, len(records))
	for i, r := range records {
		row, err := rowOf(r)
		if err != nil {
			return err
		}
		rows[i] = row
	}
	return t.db.Store(ctx, rows)
}

func rowOf(r Record) (database.Row, error) {
	info, err := report.Append(nil, json.RawMessage(r.JSON)) // in the form that readers of the original know
	if err != nil {
		return database.Row{}, err
	}
	var more struct {
		Partial bool `json:"partial"`
	}
	if err := json.Unmarshal(r.JSON, &more); err != nil {
		return database.Row{}, err
	}
	return database.Row{
		// A partial record has an id of its own in the outbox; its document has that of the call.
		RecordID: cmp.Or(r.Session.RecordID, r.ID), CallID: r.Session.CallID, FromTag: r.Session.FromTag, ToTag: r.Session.ToTag, Info: info, Partial: more.Partial,
	}, nil
}

// Page reads up to limit calls behind the one with this number, in the order in which they
// were stored.
func (t *sqlTable) Page(ctx context.Context, after int64, limit int) ([]report.Stored, error) {
	rows, err := t.db.Page(ctx, after, limit)
	if err != nil {
		return nil, err
	}
	page := make([]report.Stored, len(rows))
	for i, row := range rows {
		page[i] = report.Stored{ID: row.ID}
		if call, err := report.Append(nil, json.RawMessage(row.Info)); err == nil {
			page[i].Call = call
		} else {
			page[i].Unreadable = true
		}
	}
	return page, nil
}

func (t *sqlTable) Close() error { return t.db.Close() }
