package fallback

import (
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
)

// unitCalls are the numbers of the system calls that the unit of the relay allows.
func unitCalls(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile("../../systemd/media-relay.service")
	if err != nil {
		t.Fatal(err)
	}
	_, words, ok := strings.Cut(string(text), "\nSystemCallFilter=")
	if !ok {
		t.Fatal("the unit has no SystemCallFilter")
	}
	words, _, _ = strings.Cut(words, "\n")
	numbers := callNumbers(t)
	allowed := map[string]bool{}
	for _, word := range strings.Fields(words) {
		allowCalls(t, word, numbers, allowed)
	}
	if len(allowed) < 100 || !allowed[numbers["bpf"]] {
		t.Fatalf("SystemCallFilter=%s allows %d calls; bpf: %v", words, len(allowed), allowed[numbers["bpf"]])
	}
	var list []string
	for n := range allowed {
		list = append(list, n)
	}
	return strings.Join(list, ",")
}

// allowCalls adds a call, or those of a group, as systemd knows it.
func allowCalls(t *testing.T, word string, numbers map[string]string, allowed map[string]bool) {
	t.Helper()
	if !strings.HasPrefix(word, "@") {
		if n, ok := numbers[word]; ok { // groups have calls of all processors
			allowed[n] = true
		}
		return
	}
	out, err := exec.Command("systemd-analyze", "syscall-filter", word).Output()
	if err != nil {
		t.Fatalf("systemd-analyze syscall-filter %s: %v", word, err)
	}
	for line := range strings.Lines(string(out)) {
		if name, ok := strings.CutPrefix(strings.TrimRight(line, "\n"), "    "); ok && !strings.HasPrefix(name, "#") {
			allowCalls(t, name, numbers, allowed)
		}
	}
}

// callNumbers asks the C compiler for the system calls of this processor.
func callNumbers(t *testing.T) map[string]string {
	t.Helper()
	cmd := exec.Command("gcc", "-E", "-dM", "-")
	cmd.Stdin = strings.NewReader("#include <asm/unistd.h>\n")
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("gcc: %v", err)
	}
	numbers := map[string]string{}
	for _, m := range regexp.MustCompile(`(?m)^#define __NR_(\w+) (\d+)$`).FindAllStringSubmatch(string(out), -1) {
		numbers[m[1]] = m[2]
	}
	return numbers
}
