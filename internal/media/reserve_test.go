package media

import (
	"strings"
	"testing"
)

// Adding twice changes nothing the second time, and the list stays short.
func FuzzAddReserved(f *testing.F) {
	for _, s := range []string{"", "8080", "1-2,4", "40000-59999", "a,b-", "5-1"} {
		f.Add(s, uint16(40000), uint16(59999))
	}
	f.Fuzz(func(t *testing.T, list string, first, last uint16) {
		if first > last {
			first, last = last, first
		}
		merged, changed := AddReserved(list, first, last)
		if !changed {
			return
		}
		if again, changed := AddReserved(merged, first, last); changed {
			t.Errorf("%q became %q, then %q", list, merged, again)
		}
		if strings.Count(merged, ",") > strings.Count(list, ",")+1 {
			t.Errorf("%q grew to %q", list, merged)
		}
	})
}

func TestAddReserved(t *testing.T) {
	for _, c := range []struct {
		list    string
		want    string
		changed bool
	}{
		{"", "40000-59999", true},
		{"8080", "8080,40000-59999", true},
		{"40000-59999", "40000-59999", false},
		{"1000,30000-65535", "1000,30000-65535", false},
		{"39000-39999,50000", "39000-59999", true},
		{"60000,61000-61005", "40000-60000,61000-61005", true},
	} {
		if got, changed := AddReserved(c.list, 40000, 59999); got != c.want || changed != c.changed {
			t.Errorf("%q: got %q %v, want %q %v", c.list, got, changed, c.want, c.changed)
		}
	}
}
