package service

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"syscall"
)

// A Go program cannot fork, so the background copy is a new process of the same
// program. Parent and copy are joined by a pipe: the copy writes what a person at the
// terminal should read, and a zero byte at the end if it is ready.
//
//	parent                          copy
//	Spawn ── starts ──────────────▶ Background
//	  │ ◀─ text for the terminal ───  Say
//	  │ ◀─ zero byte ───────────────  Ready     or the end of the pipe: it is gone
//	exit 0 or 1                     goes on

// readyVariable tells the copy the number of its end of the pipe.
const readyVariable = "MEDIAPROXY_READY_FD"

const readyByte = 0

// ErrNotStarted says that the copy in the background ended before it was ready. What it
// had to say about that has been printed.
var ErrNotStarted = errors.New("the program in the background did not start")

// Spawn starts this program again, detached from the terminal, and returns when it is
// ready to serve. Messages of the copy go to stderr.
func Spawn(args []string, stderr io.Writer) error {
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find the program to start in the background: %w", err)
	}
	read, write, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("make a pipe to the background: %w", err)
	}
	defer read.Close()
	const fd = 3 // the first of ExtraFiles
	copied := exec.Cmd{
		Path: self, Args: args, ExtraFiles: []*os.File{write},
		Env:         append(os.Environ(), readyVariable+"="+strconv.Itoa(fd)),
		SysProcAttr: &syscall.SysProcAttr{Setsid: true},
	}
	err = copied.Start()
	write.Close() // or the end of the pipe would never come
	if err != nil {
		return fmt.Errorf("start %s in the background: %w", self, err)
	}
	said, err := io.ReadAll(read)
	if err != nil {
		return fmt.Errorf("wait for the background: %w", err)
	}
	text, ready := bytes.CutSuffix(said, []byte{readyByte})
	stderr.Write(text)
	if !ready {
		if err := copied.Wait(); len(text) == 0 {
			return fmt.Errorf("%w: %v", ErrNotStarted, err)
		}
		return ErrNotStarted
	}
	return copied.Process.Release()
}

// Foreground is the copy's way to the terminal it was started from.
type Foreground struct{ pipe *os.File }

// Background returns nil in a program that was not started by Spawn. Otherwise it
// leaves the folder of the terminal, so that nothing stays busy.
func Background() (*Foreground, error) {
	value := os.Getenv(readyVariable)
	if value == "" {
		return nil, nil
	}
	if err := os.Unsetenv(readyVariable); err != nil {
		return nil, err
	}
	fd, err := strconv.Atoi(value)
	if err != nil || fd < 3 {
		return nil, fmt.Errorf("%s=%s is not the number of a pipe", readyVariable, value)
	}
	syscall.CloseOnExec(fd)
	return &Foreground{os.NewFile(uintptr(fd), "ready pipe")}, os.Chdir("/")
}

// Write shows text at the terminal, until Ready. It never fails: nobody may be there.
func (f *Foreground) Write(text []byte) (int, error) {
	f.pipe.Write(text)
	return len(text), nil
}

// Ready lets the program at the terminal end well. The terminal is gone afterwards.
func (f *Foreground) Ready() {
	f.pipe.Write([]byte{readyByte})
	f.pipe.Close()
}
