package config

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// maxWeight is far above any real ratio of two machines, and far from overflow.
const maxWeight = 1_000_000

// weights is a list of relay=weight; relays are named as they name themselves, or by address.
var weights = kind[map[string]int]{
	word:  "list of relay=weight",
	parse: parseWeights,
	print: func(m map[string]int) string {
		return printList(slices.Sorted(maps.Keys(m)), func(k string) string { return fmt.Sprintf("%s=%d", k, m[k]) })
	},
}

func parseWeights(s string) (map[string]int, error) {
	out := map[string]int{}
	for _, item := range splitList(s) {
		relay, weight, _ := strings.Cut(item, "=")
		n, err := strconv.Atoi(weight)
		if relay == "" || err != nil || n < 0 || n > maxWeight {
			return nil, fmt.Errorf("%q: want relay=weight, the weight a whole number from 0 to %d", item, maxWeight)
		}
		if _, twice := out[relay]; twice {
			return nil, errors.New("want one weight for " + relay)
		}
		out[relay] = n
	}
	return out, nil
}
