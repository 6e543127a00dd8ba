package database

import (
	"cmp"
	"database/sql"
	"errors"
	"fmt"
	"net"
	"strconv"

	"github.com/go-sql-driver/mysql"
	"github.com/huandu/go-sqlbuilder"

	"example.org/mediaproxy/internal/config"
)

var mysqlDialect = &dialect{
	server: "MySQL", flavor: sqlbuilder.MySQL, connections: 2, lock: true,
	open: openMySQL, define: defineMySQL, code: mysqlFault,
	lengths: "SELECT column_name, character_maximum_length, character_set_name FROM information_schema.columns WHERE table_schema = DATABASE() AND table_name = ?",
	unique: "SELECT COUNT(*) FROM (SELECT index_name FROM information_schema.statistics WHERE table_schema = DATABASE() AND table_name = ? AND non_unique = 0 " +
		"GROUP BY index_name HAVING COUNT(*) = 1 AND MAX(column_name) = ?) AS indexes",
	// Not INSERT IGNORE, which also makes mistakes in values pass.
	once: "ON DUPLICATE KEY UPDATE `id` = `id`",
	rights: func(db *DB) string {
		return fmt.Sprintf("GRANT SELECT, INSERT, UPDATE ON %s.%s TO the user of dburi", db.dialect.raw(db.uri.Name), db.dialect.raw(db.table.Name))
	},
}

func openMySQL(u config.DatabaseURI) (*sql.DB, error) {
	c := mysql.NewConfig()
	c.User, c.Passwd, c.DBName = u.User, u.Password, u.Name
	c.Net, c.Addr = "tcp", net.JoinHostPort(cmp.Or(u.Host, "localhost"), strconv.Itoa(int(cmp.Or(u.Port, 3306))))
	if path := u.Params["unix_socket"]; path != "" {
		c.Net, c.Addr = "unix", path
	}
	c.TLSConfig = u.Params["tls"]
	c.Timeout, c.ReadTimeout, c.WriteTimeout = connectTime, workTime+connectTime, workTime+connectTime // contexts end sooner
	c.Logger = &mysql.NopLogger{}                                                                      // its errors come back as such
	// Too much for a column is an error, never cut by the server.
	c.Params = map[string]string{"sql_mode": "'STRICT_ALL_TABLES'"}
	if err := c.Apply(mysql.Charset("utf8mb4", "")); err != nil {
		return nil, err
	}
	connector, err := mysql.NewConnector(c)
	if err != nil {
		return nil, errors.New("tls may be true, skip-verify, preferred or false") // all else was checked
	}
	return sql.OpenDB(connector), nil
}

// defineMySQL: keys are compared byte by byte, and the index fits what old row formats
// take of a column, 767 bytes.
func defineMySQL(db *DB) []string {
	t, q := db.table, db.dialect.raw
	return []string{fmt.Sprintf("CREATE TABLE IF NOT EXISTS %s (\n  `id` BIGINT NOT NULL AUTO_INCREMENT PRIMARY KEY,\n"+
		"  `record_id` VARCHAR(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL UNIQUE,\n"+
		"  %s VARCHAR(255) NOT NULL,\n  %s VARCHAR(64) NOT NULL,\n  %s VARCHAR(64) NULL,\n  %s MEDIUMBLOB NOT NULL,\n"+
		"  INDEX %s (%s(191), %s, %s)\n) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin",
		q(t.Name), q(t.CallID), q(t.FromTag), q(t.ToTag), q(t.Info), q(db.indexName()), q(t.CallID), q(t.FromTag), q(t.ToTag))}
}

func mysqlFault(err error) (fault, bool) {
	var e *mysql.MySQLError
	if !errors.As(err, &e) {
		return other, false
	}
	switch e.Number {
	case 1146:
		return noTable, true
	case 1054:
		return noColumn, true
	case 1050:
		return exists, true
	case 1142, 1143, 1227, 1370:
		return denied, true
	case 1044, 1045, 1130, 1698:
		return login, true
	case 1049:
		return noDatabase, true
	case 1062:
		return duplicate, true
	case 1290, 1836, 1021, 1114:
		return readOnly, true
	case 1205, 1213:
		return busy, true
	case 1153:
		return tooLarge, true
	}
	return other, true
}
