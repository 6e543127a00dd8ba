package main

import (
	"bytes"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"
)

// clockTick is the unit of times in /proc; the kernel shows 100 a second to
// everyone, whatever its own rate.
const clockTick = 10 * time.Millisecond

// cpuTime of a process, all its threads, user and system. Packets that the
// kernel delivers in the process's own context, as on loopback, are part of it.
func cpuTime(pid int) (user, system time.Duration, err error) {
	fields, err := statFields(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, 0, err
	}
	u, err1 := strconv.ParseInt(fields[utime], 10, 64)
	s, err2 := strconv.ParseInt(fields[stime], 10, 64)
	if err1 != nil || err2 != nil {
		return 0, 0, fmt.Errorf("/proc/%d/stat: times %q and %q", pid, fields[utime], fields[stime])
	}
	return time.Duration(u) * clockTick, time.Duration(s) * clockTick, nil
}

// Fields of a process in /proc, counted behind its name.
const utime, stime = 14 - 3, 15 - 3

func statFields(path string) ([]string, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	// The second field is a name in parentheses, which may contain anything.
	fields := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
	if len(fields) <= stime {
		return nil, fmt.Errorf("%s has %d fields", path, len(fields))
	}
	return fields, nil
}

// stolen is the time that processors wanted to run and the host did not let them.
func stolen() (time.Duration, error) {
	b, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0, err
	}
	line, _, _ := strings.Cut(string(b), "\n")
	const steal = 8 // cpu user nice system idle iowait irq softirq steal
	fields := strings.Fields(line)
	if len(fields) <= steal || fields[0] != "cpu" {
		return 0, fmt.Errorf("/proc/stat begins with %q", line)
	}
	ticks, err := strconv.ParseInt(fields[steal], 10, 64)
	return time.Duration(ticks) * clockTick, err
}

// resident is the memory of a process, in bytes.
func resident(pid int) (int, error) {
	fields, err := kilobytes(fmt.Sprintf("/proc/%d/status", pid))
	return fields["VmRSS"], err
}

// kernelMemory is what the kernel uses for itself, on the whole machine: it does
// not say for whom. The kernel calls inodes and names reclaimable, but those of open
// sockets are not; of the reclaimable rest a machine always has plenty, for files.
func kernelMemory() (int, error) {
	fields, err := kilobytes("/proc/meminfo")
	if err != nil {
		return 0, err
	}
	ofSockets, err := slabs("sock_inode_cache", "dentry")
	return fields["SUnreclaim"] + fields["KernelStack"] + fields["PageTables"] + fields["Percpu"] + ofSockets, err
}

// slabs is the size of all objects in some of the kernel's caches.
func slabs(names ...string) (bytes int, err error) {
	b, err := os.ReadFile("/proc/slabinfo")
	if err != nil {
		return 0, fmt.Errorf("measure sockets in the kernel (needs root): %w", err)
	}
	for line := range strings.Lines(string(b)) {
		// name, objects in use, objects, bytes for each object, ...
		fields := strings.Fields(line)
		if len(fields) < 4 || !slices.Contains(names, fields[0]) {
			continue
		}
		objects, _ := strconv.Atoi(fields[1])
		size, err := strconv.Atoi(fields[3])
		if err != nil {
			return 0, fmt.Errorf("read /proc/slabinfo: %q: %w", line, err)
		}
		bytes += objects * size
	}
	return bytes, nil
}

// kilobytes reads the lines "Name:  123 kB" of a file as bytes.
func kilobytes(path string) (map[string]int, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	out := map[string]int{}
	for line := range strings.Lines(string(b)) {
		name, rest, _ := strings.Cut(line, ":")
		if n, ok := strings.CutSuffix(strings.TrimSpace(rest), " kB"); ok {
			if kb, err := strconv.Atoi(strings.TrimSpace(n)); err == nil {
				out[name] = kb << 10
			}
		}
	}
	return out, nil
}
