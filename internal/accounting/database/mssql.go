package database

import (
	"cmp"
	"database/sql"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strconv"
	"strings"

	"github.com/huandu/go-sqlbuilder"
	mssql "github.com/microsoft/go-mssqldb"

	"example.org/mediaproxy/internal/config"
)

var mssqlDialect = &dialect{
	server: "SQL Server", flavor: sqlbuilder.SQLServer, connections: 2,
	open: openMSSQL, define: defineMSSQL, code: mssqlFault,
	lengths: "SELECT column_name, character_maximum_length, CASE WHEN data_type LIKE 'n%' THEN 'utf8mb4' ELSE 'other' END " +
		"FROM information_schema.columns WHERE table_schema = SCHEMA_NAME() AND table_name = @p1",
	rights: func(db *DB) string {
		return fmt.Sprintf("GRANT SELECT, INSERT, UPDATE ON %s TO %s", db.dialect.raw(db.table.Name), db.dialect.raw(db.uri.User))
	},
}

func openMSSQL(u config.DatabaseURI) (*sql.DB, error) {
	q := url.Values{"database": {u.Name}, "app name": {"mediaproxy"},
		"dial timeout": {strconv.Itoa(int(connectTime.Seconds()))}, "connection timeout": {strconv.Itoa(int(workTime.Seconds()))}}
	for name, value := range u.Params {
		q.Set(name, value)
	}
	dsn := url.URL{Scheme: "sqlserver", User: url.UserPassword(u.User, u.Password), RawQuery: q.Encode(),
		Host: net.JoinHostPort(cmp.Or(u.Host, "localhost"), strconv.Itoa(int(cmp.Or(u.Port, 1433))))}
	connector, err := mssql.NewConnector(dsn.String())
	if err != nil {
		return nil, errors.New("encrypt, TrustServerCertificate or certificate is wrong") // the reason may show all of it
	}
	return sql.OpenDB(connector), nil
}

func defineMSSQL(db *DB) []string {
	t, q := db.table, db.dialect.raw
	return []string{fmt.Sprintf("CREATE TABLE %s (\n  \"id\" BIGINT IDENTITY(1,1) PRIMARY KEY,\n  \"record_id\" VARCHAR(64) COLLATE Latin1_General_BIN2 NOT NULL UNIQUE,\n"+
		"  %s NVARCHAR(255) COLLATE Latin1_General_BIN2 NOT NULL,\n  %s NVARCHAR(64) COLLATE Latin1_General_BIN2 NOT NULL,\n"+
		"  %s NVARCHAR(64) COLLATE Latin1_General_BIN2 NULL,\n  %s VARBINARY(MAX) NOT NULL,\n  INDEX %s (%s)\n)",
		q(t.Name), q(t.CallID), q(t.FromTag), q(t.ToTag), q(t.Info), q(db.indexName()), db.dialect.rawAll(t.CallID, t.FromTag, t.ToTag))}
}

// conditionalInserts is for a server whose INSERT has no word for a record that is there
// already. The locks keep others out between the condition and the row.
func (db *DB) conditionalInserts(l *layout, rows []Row) []statement {
	d, t := db.dialect, db.table
	query := fmt.Sprintf("INSERT INTO %s (%s) SELECT @p1, @p2, @p3, @p4, @p5 WHERE NOT EXISTS (SELECT 1 FROM %s WITH (UPDLOCK, HOLDLOCK) WHERE %s = @p1)",
		d.raw(t.Name), d.rawAll(recordColumn, t.CallID, t.FromTag, t.ToTag, t.Info), d.raw(t.Name), d.raw(recordColumn))
	var statements []statement
	for _, r := range rows {
		statements = append(statements, statement{query, db.values(l, r)})
	}
	return statements
}

func mssqlFault(err error) (fault, bool) {
	var e mssql.Error
	if !errors.As(err, &e) {
		// A login is refused in an error of another type.
		if err != nil && strings.Contains(err.Error(), "Login failed") {
			return login, true
		}
		return other, false
	}
	switch e.Number {
	case 208:
		return noTable, true
	case 207:
		return noColumn, true
	case 2714:
		return exists, true
	case 229, 230, 262:
		return denied, true
	case 18456:
		return login, true
	case 4060:
		return noDatabase, true
	case 2601, 2627:
		return duplicate, true
	case 3906, 1105:
		return readOnly, true
	case 1205, 1222:
		return busy, true
	}
	return other, true
}
