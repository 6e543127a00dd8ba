// Package pki makes and uses the certificates with which dispatchers, relays
// and operators prove to each other who they are.
//
// One private authority signs everything. A folder holds, in PEM, under names
// that the original programs use too:
//
//	ca.pem          the authority; several certificates while one replaces another
//	ca.key          its key; stays on the machine where certificates are made
//	crl.pem         the certificates it has taken back; mandatory, may be empty of entries
//	dispatcher.crt  dispatcher.key
//	relay.crt       relay.key
//	NAME.crt        NAME.key   further relays and operators
//
// [Open] reads such a folder for one of the names and gives TLS configurations
// for both directions: TLS 1.2 or later, a certificate demanded from either
// side. Host names are never checked; a peer is who the authority says it is,
// and a [Passport] narrows that down by the subject of its certificate.
//
// [Store.Watch] reads the folder again at every interval and verifies every
// tracked connection anew, so that a revoked or expired certificate loses the
// connections it already has. New files that are broken are refused and logged;
// what was loaded before stays in use.
//
// [Create], [Renew], [Issue] and [Revoke] are the authority's side.
package pki

import (
	"errors"
	"io/fs"
	"path/filepath"
)

// The fixed file names of a certificate folder.
const (
	CAFile    = "ca.pem"
	CAKeyFile = "ca.key"
	CRLFile   = "crl.pem"
)

// The names of the two pairs that every folder made by Create has.
const (
	Dispatcher = "dispatcher"
	Relay      = "relay"
)

// Reasons for which a peer is refused. They are wrapped with details.
var (
	ErrNoCertificate = errors.New("no certificate")
	ErrUntrusted     = errors.New("not issued by the authority in " + CAFile)
	ErrDates         = errors.New("certificate not valid at this time")
	ErrRevoked       = errors.New("certificate revoked")
	ErrPassport      = errors.New("passport does not match")
)

// FileError says which file of a folder is unusable, why, and what to do.
type FileError struct {
	Path string
	Err  error
	Hint string
}

func (e *FileError) Error() string {
	text := e.Path + ": " + reason(e.Err)
	if e.Hint != "" {
		text += "; " + e.Hint
	}
	return text
}

func (e *FileError) Unwrap() error { return e.Err }

// reason drops the path that package os puts into its errors: FileError
// already names it.
func reason(err error) string {
	var pathError *fs.PathError
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "there is no such file"
	case errors.As(err, &pathError):
		return pathError.Op + ": " + pathError.Err.Error()
	default:
		return err.Error()
	}
}

// CertFile and KeyFile are the file names of one pair.
func CertFile(name string) string { return name + ".crt" }
func KeyFile(name string) string  { return name + ".key" }

// Hints are shared by loading and making, so that one mistake reads the same
// wherever it is met.
func hintCreate(dir string) string {
	return "make a set with: mediaproxy certs " + dir
}

func hintRenew(dir string) string {
	return "on the machine that holds " + CAKeyFile + ", run: mediaproxy certs renew " + dir + ", and copy the new files here"
}

func hintReadable(path string) string {
	return "let the user of this program read " + filepath.Base(path) + ", for example with chown"
}
