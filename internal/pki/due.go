package pki

import (
	"errors"
	"os"
	"time"
)

// RenewDue is Renew for programs that look after a folder of their own: it does
// so only if the list or a certificate expires within a month, or has expired,
// and else returns nothing. Folders without the authority's key are somebody
// else's to renew and left alone.
func RenewDue(dir string, o Options) ([]Made, error) {
	o = o.withDefaults()
	ca, err := loadAuthority(dir, o.Now())
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	list, err := ca.loadCRL()
	if err != nil {
		return nil, err
	}
	due := func(expires time.Time) bool { return !o.Now().Before(expires.Add(-expiryWarning)) }
	anyDue := !list.expires.IsZero() && due(list.expires)
	pairs, err := ca.pairs()
	if err != nil {
		return nil, err
	}
	for _, pair := range pairs {
		anyDue = anyDue || due(pair.cert.NotAfter)
	}
	if !anyDue {
		return nil, nil
	}
	return Renew(dir, o)
}
