package main

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"text/tabwriter"
)

// verdict of a row; one without a bound has none.
type verdict string

const (
	none verdict = ""
	pass verdict = "ok"
	fail verdict = "FAIL"
)

// row is one line of the table: a figure, what it is compared with, its bound.
type row struct {
	name    string
	value   string
	peer    string
	bound   string
	verdict verdict
}

func judge(ok bool) verdict {
	if ok {
		return pass
	}
	return fail
}

func printTable(w io.Writer, rows []row) {
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	fmt.Fprintln(t, "measurement\tfigure\tpeer in the same run\tbound\t")
	for _, r := range rows {
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\n", r.name, r.value, r.peer, r.bound, r.verdict)
	}
	t.Flush()
}

// median of values, which must not be empty.
func median(values []float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	n := len(sorted)
	if n%2 == 1 {
		return sorted[n/2]
	}
	return (sorted[n/2-1] + sorted[n/2]) / 2
}

// quantile of values, which must not be empty.
func quantile[T cmp.Ordered](values []T, q float64) T {
	sorted := slices.Sorted(slices.Values(values))
	return sorted[min(int(q*float64(len(sorted))), len(sorted)-1)]
}

// ratios of two measurements taken in turns, round by round.
func ratios(a, b []float64) []float64 {
	out := make([]float64, len(a))
	for i := range a {
		out[i] = a[i] / b[i]
	}
	return out
}
