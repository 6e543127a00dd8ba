package bench

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"example.org/mediaproxy/internal/pki"
	"example.org/mediaproxy/internal/wire/relaylink"
)

const (
	starting = 30 * time.Second // for a dispatcher to be ready
	stopping = 30 * time.Second // for it to end by itself
)

// target is the dispatcher that is measured.
type target struct {
	socket  string
	connect string
	tls     *tls.Config
	pid     int
	child   *child   // nil: an existing one
	hangups *hangups // of the child
	webhook *webhook // of the child, with accounting
	dir     string   // of the child; removed at the end
}

// openTarget starts a dispatcher, or finds the one that the flags name.
func openTarget(ctx context.Context, s settings) (*target, error) {
	if s.socket != "" {
		return existing(s)
	}
	t := &target{}
	if err := t.start(ctx, s); err != nil {
		return nil, errors.Join(err, t.close())
	}
	return t, nil
}

func existing(s settings) (*target, error) {
	t := &target{socket: s.socket, connect: s.connect}
	var err error
	if t.tls, err = relayTLS(s.certs); err != nil {
		return nil, err
	}
	t.pid, err = ownerOf(s.socket)
	return t, err
}

func relayTLS(dir string) (*tls.Config, error) {
	store, err := pki.Open(pki.Config{Dir: dir, Name: pki.Relay})
	if err != nil {
		return nil, fmt.Errorf("certificates of the relays: %w", err)
	}
	return store.ClientConfig(pki.Passport{}, relaylink.ALPN), nil
}

// start runs this program's dispatcher in a folder of its own.
func (t *target) start(ctx context.Context, s settings) (err error) {
	if t.dir, err = os.MkdirTemp("", "mpbench-"); err != nil {
		return fmt.Errorf("make a folder (TMPDIR names another place): %w", err)
	}
	certs := filepath.Join(t.dir, "tls")
	if _, err = pki.Create(certs, pki.Options{}); err != nil {
		return fmt.Errorf("make certificates: %w", err)
	}
	if t.tls, err = relayTLS(certs); err != nil {
		return err
	}
	proxy := filepath.Join(t.dir, "proxy.sock")
	if t.hangups, err = listenHangups(proxy); err != nil {
		return err
	}
	accounting := ""
	if s.accounting == "webhook" {
		if t.webhook, err = listenWebhook(); err != nil {
			return err
		}
		accounting = "accounting = webhook\n[Webhook]\nurl = " + t.webhook.url + "\n"
	}
	// Percent signs of TMPDIR are written twice, as everywhere in this file.
	text := strings.ReplaceAll(fmt.Sprintf(`[TLS]
certs_path = %s
[Hangup]
socket_path = %s
[Dispatcher]
listen = 127.0.0.1:0
listen_management = 127.0.0.1:0
log_format = json
state_dir = %s
%s`, certs, proxy, filepath.Join(t.dir, "state"), accounting), "%", "%%")
	if err := os.WriteFile(filepath.Join(t.dir, "config.ini"), []byte(text), 0o600); err != nil {
		return err
	}
	if t.child, err = startChild(t.dir); err != nil {
		return err
	}
	t.pid, t.socket = t.child.cmd.Process.Pid, filepath.Join(t.dir, "run", "dispatcher.sock")
	select {
	case t.connect = <-t.child.ready:
		return nil
	case <-t.child.done:
		return t.child.failure()
	case <-time.After(starting):
		return fmt.Errorf("the dispatcher is not ready after %v:\n%s", starting, t.child.tail())
	case <-ctx.Done():
		return ctx.Err()
	}
}

// guard ends the context when the dispatcher ends, with its last words as the cause.
func (t *target) guard(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	if t.child != nil {
		go func() { // ends with the context at the latest
			select {
			case <-t.child.done:
				cancel(t.child.failure())
			case <-ctx.Done():
			}
		}()
	}
	return ctx, func() { cancel(nil) }
}

// close ends the dispatcher and removes what was made for it.
func (t *target) close() error {
	var errs []error
	if t.child != nil {
		errs = append(errs, t.child.stop())
	}
	if t.hangups != nil {
		t.hangups.close()
	}
	if t.webhook != nil {
		t.webhook.close()
	}
	if t.dir != "" {
		errs = append(errs, os.RemoveAll(t.dir))
	}
	return errors.Join(errs...)
}

// child is the dispatcher's process and what it logs.
type child struct {
	cmd   *exec.Cmd
	ready chan string   // gets the address for relays
	done  chan struct{} // closed when it has ended
	// warnings of its log, and errors
	warnings, errors atomic.Uint64

	mu    sync.Mutex // guards what follows
	lines []string   // the last ones that are not about a single call
	err   error      // of its end
}

func startChild(dir string) (*child, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find this program's file: %w", err)
	}
	c := &child{ready: make(chan string, 1), done: make(chan struct{})}
	c.cmd = exec.Command(self, "dispatcher", "--config-dir", dir, "--runtime-dir", filepath.Join(dir, "run"), "--alone")
	c.cmd.Args[0] = "mediaproxy"
	c.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // Ctrl-C is for us, and we end it in order
	out, err := c.cmd.StderrPipe()
	if err != nil {
		return nil, err
	}
	if err := c.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start a dispatcher: %w", err)
	}
	go func() { // ends with the process; stop waits for it
		defer close(c.done)
		c.read(out)
		err := c.cmd.Wait()
		c.mu.Lock()
		defer c.mu.Unlock()
		c.err = err
	}()
	return c, nil
}

// read follows the log: a dispatcher must not wait for a pipe that nobody empties.
func (c *child) read(out io.Reader) {
	in := bufio.NewReaderSize(out, 64<<10)
	for {
		line, err := in.ReadBytes('\n')
		c.line(line)
		if err != nil {
			return
		}
	}
}

func (c *child) line(line []byte) {
	switch {
	case bytes.Contains(line, []byte(`"level":"ERROR"`)):
		c.errors.Add(1)
	case bytes.Contains(line, []byte(`"level":"WARN"`)):
		c.warnings.Add(1)
	case bytes.Contains(line, []byte(`"level":"INFO"`)):
		if bytes.Contains(line, []byte(`"msg":"dispatcher ready"`)) {
			var ready struct{ Relays string }
			if json.Unmarshal(line, &ready) == nil {
				c.ready <- ready.Relays
			}
		}
		return
	}
	const enough = 5
	c.mu.Lock()
	defer c.mu.Unlock()
	if text := strings.TrimSpace(string(line)); text != "" {
		c.lines = append(c.lines[max(0, len(c.lines)-enough+1):], text)
	}
}

// tail is what it logged last, without what is usual.
func (c *child) tail() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return strings.Join(c.lines, "\n")
}

// forget begins a new count of what it complains of.
func (c *child) forget() {
	c.warnings.Store(0)
	c.errors.Store(0)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.lines = nil
}

func (c *child) failure() error {
	c.mu.Lock()
	err := c.err
	c.mu.Unlock()
	return fmt.Errorf("the dispatcher ended by itself (%v):\n%s", err, c.tail())
}

// stop ends it in good order, or else at once.
func (c *child) stop() error {
	c.cmd.Process.Signal(syscall.SIGTERM) // it may have ended
	select {
	case <-c.done:
		return nil
	case <-time.After(stopping):
		c.cmd.Process.Kill()
		<-c.done
		return fmt.Errorf("the dispatcher did not end within %v and was killed:\n%s", stopping, c.tail())
	}
}
