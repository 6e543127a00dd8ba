package main

import (
	"bufio"
	"net"
	"strings"
	"testing"
)

// The word counts wherever the parts that arrive meet, and the answer's end is found.
func TestCount(t *testing.T) {
	const word = "\"call_id\""
	for _, answer := range []string{
		"[]", word, "[{" + word + ": 1}, {" + word + ": 2}]", strings.Repeat(word, 50), strings.Repeat("x", 15) + word, strings.Repeat(`"call_i`, 9) + word + "x",
	} {
		for size := 16; size < 40; size++ { // 16 is the smallest buffer
			ours, theirs := net.Pipe()
			go func() {
				line, _ := bufio.NewReader(theirs).ReadString('\n')
				theirs.Write([]byte(answer + "\r\n" + line))
				theirs.Close()
			}()
			m := &manager{ours, bufio.NewReaderSize(ours, size)}
			if n, err := m.count("sessions", word); err != nil || n != strings.Count(answer, word) {
				t.Errorf("%q through %d bytes: %d, %v", answer, size, n, err)
			}
			if rest, err := m.r.ReadString('\n'); err != nil || rest != "sessions\r\n" {
				t.Errorf("%q through %d bytes: then %q, %v", answer, size, rest, err)
			}
			ours.Close()
		}
	}
}
