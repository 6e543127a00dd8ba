// Package servers starts real database servers for tests: each is a process of its own with
// its own data, on loopback and a UNIX socket, and is gone after the test. A server that is
// not installed fails the test.
package servers

import (
	"bytes"
	"context"
	"database/sql"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/go-sql-driver/mysql"
	_ "github.com/jackc/pgx/v5/stdlib" // for Admin
)

// startTime is how long a server may take to start, to recover, or to make its files.
const startTime = 2 * time.Minute

// Server is one database server.
type Server struct {
	Port int    // on 127.0.0.1
	Dir  string // with its socket

	// Admin may do everything.
	Admin *sql.DB

	t       testing.TB
	command []string
	output  bytes.Buffer
	process *exec.Cmd
	ended   chan struct{}
	quit    syscall.Signal // ends it at once, as a crash would
	account *user.User     // nil: our own
}

// MariaDB starts one. The package is mariadb-server.
func MariaDB(t testing.TB) *Server {
	t.Helper()
	s := prepare(t, "mysql", syscall.SIGKILL)
	data := filepath.Join(s.Dir, "data")
	s.run(find(t, "mariadb-server", "mariadb-install-db"), "--no-defaults", "--datadir="+data, "--auth-root-authentication-method=normal", "--skip-test-db")
	s.command = []string{find(t, "mariadb-server", "mariadbd"), "--no-defaults", "--datadir=" + data, "--socket=" + s.Socket(), "--pid-file=" + filepath.Join(s.Dir, "pid"),
		"--bind-address=127.0.0.1", "--port=" + strconv.Itoa(s.Port), "--innodb-buffer-pool-size=16M", "--skip-name-resolve"}
	_ = mysql.SetLogger(&mysql.NopLogger{}) // connections of Admin end when the server is killed
	s.open("mysql", "root@unix("+s.Socket()+")/?multiStatements=true")
	return s
}

// Postgres starts one. The package is postgresql.
func Postgres(t testing.TB) *Server {
	t.Helper()
	s := prepare(t, "postgres", syscall.SIGQUIT)
	data := filepath.Join(s.Dir, "data")
	s.run(find(t, "postgresql", "initdb"), "-D", data, "-U", "postgres", "-E", "UTF8", "--locale=C", "--auth-local=trust", "--auth-host=scram-sha-256")
	s.command = []string{find(t, "postgresql", "postgres"), "-D", data, "-k", s.Dir, "-p", strconv.Itoa(s.Port), "-c", "listen_addresses=127.0.0.1", "-c", "shared_buffers=16MB"}
	s.open("pgx", fmt.Sprintf("host=%s port=%d user=postgres dbname=postgres", s.Dir, s.Port))
	return s
}

// Socket is where MariaDB listens.
func (s *Server) Socket() string { return filepath.Join(s.Dir, "s.sock") }

func find(t testing.TB, debianPackage, program string) string {
	t.Helper()
	if path, err := exec.LookPath(program); err == nil {
		return path
	}
	for _, pattern := range []string{"/usr/sbin/" + program, "/usr/lib/postgresql/*/bin/" + program} {
		if paths, _ := filepath.Glob(pattern); len(paths) > 0 {
			return paths[len(paths)-1]
		}
	}
	t.Fatalf("%s is not installed: apt-get install %s", program, debianPackage)
	return ""
}

// prepare makes a folder that the server's user owns: servers refuse to be root.
func prepare(t testing.TB, account string, quit syscall.Signal) *Server {
	t.Helper()
	dir, err := os.MkdirTemp("", "mpdb") // short, because the paths of sockets have to be
	if err != nil {
		t.Fatal(err)
	}
	s := &Server{Dir: dir, t: t, quit: quit}
	t.Cleanup(func() {
		s.Kill()
		os.RemoveAll(dir)
	})
	if os.Getuid() == 0 {
		if s.account, err = user.Lookup(account); err != nil {
			t.Fatalf("the server's user: %v", err)
		}
		uid, gid := s.ids()
		if err := os.Chown(dir, int(uid), int(gid)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s.Port = l.Addr().(*net.TCPAddr).Port
	l.Close()
	return s
}

func (s *Server) ids() (uid, gid uint64) {
	uid, _ = strconv.ParseUint(s.account.Uid, 10, 32)
	gid, _ = strconv.ParseUint(s.account.Gid, 10, 32)
	return uid, gid
}

// cmd runs a program as the server's user, in a folder that it may enter.
func (s *Server) cmd(program string, args ...string) *exec.Cmd {
	cmd := exec.Command(program, args...)
	cmd.Dir = s.Dir
	cmd.SysProcAttr = attributes(s)
	return cmd
}

func (s *Server) run(program string, args ...string) {
	s.t.Helper()
	if out, err := s.cmd(program, args...).CombinedOutput(); err != nil {
		s.t.Fatalf("%s: %v\n%s", program, err, out)
	}
}

func (s *Server) open(driver, dsn string) {
	s.t.Helper()
	var err error
	if s.Admin, err = sql.Open(driver, dsn); err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { s.Admin.Close() })
	s.Start()
}

// Start starts a server that was killed, and waits until it answers.
func (s *Server) Start() {
	s.t.Helper()
	for deadline := time.Now().Add(startTime); ; time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			s.t.Fatalf("%s did not start within %v:\n%s", s.command[0], startTime, s.output.String())
		}
		if s.process == nil {
			s.launch()
		}
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		err := s.Admin.PingContext(ctx)
		cancel()
		if err == nil {
			return
		}
		select {
		case <-s.ended: // what the last one left is still in use, for example
			s.process = nil
		default:
		}
	}
}

func (s *Server) launch() {
	s.t.Helper()
	s.output.Reset()
	s.process = s.cmd(s.command[0], s.command[1:]...)
	s.process.Stdout, s.process.Stderr = &s.output, &s.output
	if err := s.process.Start(); err != nil {
		s.t.Fatal(err)
	}
	s.ended = make(chan struct{})
	go func(cmd *exec.Cmd, ended chan struct{}) {
		defer close(ended)
		_ = cmd.Wait() // it is killed in the end
	}(s.process, s.ended)
}

// Kill ends the server as a crash does.
func (s *Server) Kill() {
	if s.process == nil {
		return
	}
	_ = s.process.Process.Signal(syscall.SIGCONT) // it may be frozen, or have ended by itself
	_ = s.process.Process.Signal(s.quit)
	<-s.ended
	s.process = nil
}

// Freeze has the server accept connections and answer nothing.
func (s *Server) Freeze() {
	s.t.Helper()
	s.signal(syscall.SIGSTOP)
	tasks := fmt.Sprintf("/proc/%d/task/*/stat", s.process.Process.Pid)
	for deadline := time.Now().Add(startTime); ; time.Sleep(time.Millisecond) {
		paths, err := filepath.Glob(tasks)
		if err != nil || len(paths) == 0 || time.Now().After(deadline) {
			s.t.Fatalf("not frozen: %v %v", paths, err)
		}
		running := slices.ContainsFunc(paths, func(path string) bool {
			stat, err := os.ReadFile(path)
			_, state, _ := bytes.Cut(stat, []byte(") "))
			return err == nil && !bytes.HasPrefix(state, []byte("T"))
		})
		if !running {
			return
		}
	}
}

// Thaw ends that.
func (s *Server) Thaw() { s.signal(syscall.SIGCONT) }

// signal reaches the processes that serve connections too.
func (s *Server) signal(sig syscall.Signal) {
	s.t.Helper()
	pid := s.process.Process.Pid
	if err := syscall.Kill(pid, sig); err != nil {
		s.t.Fatal(err)
	}
	children, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
	if err != nil {
		s.t.Fatal(err)
	}
	for _, child := range strings.Fields(string(children)) {
		if pid, err := strconv.Atoi(child); err == nil {
			_ = syscall.Kill(pid, sig) // it may have ended
		}
	}
}

// DoIn is Do in another database of PostgreSQL.
func (s *Server) DoIn(database string, statements ...string) {
	s.t.Helper()
	admin := s.Admin
	defer func() { s.Admin = admin }()
	var err error
	if s.Admin, err = sql.Open("pgx", fmt.Sprintf("host=%s port=%d user=postgres dbname=%s", s.Dir, s.Port, database)); err != nil {
		s.t.Fatal(err)
	}
	defer s.Admin.Close()
	s.Do(statements...)
}

// Do runs statements as the administrator.
func (s *Server) Do(statements ...string) {
	s.t.Helper()
	for _, statement := range statements {
		if _, err := s.Admin.ExecContext(s.t.Context(), statement); err != nil {
			s.t.Fatalf("%s: %v", statement, err)
		}
	}
}
