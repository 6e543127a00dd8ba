package session

import (
	"cmp"
	"slices"
)

// queue holds sessions in the order of their creation. Who reads it in parts goes
// on where it was, whatever came and went in between.
type queue struct {
	places []place // by order
	holes  int     // places whose session left
}

type place struct {
	order   uint64
	session *Session // nil: it left
}

// fewHoles are not worth the clearing up.
const fewHoles = 64

// add puts a session at the end; its order must be the highest.
func (q *queue) add(s *Session) { q.places = append(q.places, place{s.order, s}) }

// sort puts the places in order after sessions were added in any.
func (q *queue) sort() {
	slices.SortFunc(q.places, func(a, b place) int { return cmp.Compare(a.order, b.order) })
}

// remove takes a session out, if it is there.
func (q *queue) remove(s *Session) {
	i, found := q.find(s.order)
	if !found || q.places[i].session != s {
		return
	}
	q.places[i].session = nil
	if q.holes++; q.holes > fewHoles && q.holes > len(q.places)/2 {
		q.places = slices.DeleteFunc(q.places, func(p place) bool { return p.session == nil })
		q.holes = 0
	}
}

func (q *queue) find(order uint64) (int, bool) {
	return slices.BinarySearchFunc(q.places, order, func(p place, order uint64) int { return cmp.Compare(p.order, order) })
}

// after appends at most limit sessions to dst, those that come after an order;
// more says that others follow them.
func (q *queue) after(dst []*Session, order uint64, limit int) (_ []*Session, more bool) {
	i, found := q.find(order)
	if found {
		i++
	}
	for _, p := range q.places[i:] {
		switch {
		case p.session == nil:
		case limit == 0:
			return dst, true
		default:
			dst = append(dst, p.session)
			limit--
		}
	}
	return dst, false
}
