package pki

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"strings"
	"time"
)

const (
	pemCertificate = "CERTIFICATE"
	pemCRL         = "X509 CRL"
	pemECKey       = "EC PRIVATE KEY"
)

// parseCertificates reads every certificate of a PEM file. Text around the
// blocks is allowed, as openssl writes it.
func parseCertificates(data []byte) ([]*x509.Certificate, error) {
	var certs []*x509.Certificate
	for rest := data; ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		if block.Type != pemCertificate {
			continue
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("certificate %d: %w", len(certs)+1, err)
		}
		certs = append(certs, cert)
	}
	if len(certs) == 0 {
		return nil, notPEM(data, pemCertificate)
	}
	return certs, nil
}

// parseKey reads the first private key of a PEM file, in any of the forms that
// GnuTLS and OpenSSL write without a passphrase.
func parseKey(data []byte) (crypto.Signer, error) {
	for rest := data; ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			return nil, notPEM(data, "PRIVATE KEY")
		}
		if !strings.HasSuffix(block.Type, "PRIVATE KEY") {
			continue
		}
		if block.Type == "ENCRYPTED PRIVATE KEY" || strings.Contains(block.Headers["Proc-Type"], "ENCRYPTED") {
			return nil, errors.New("the key is protected by a passphrase; remove it with: openssl pkey -in FILE -out FILE")
		}
		return parseKeyDER(block.Bytes)
	}
}

func parseKeyDER(der []byte) (crypto.Signer, error) {
	if key, err := x509.ParseECPrivateKey(der); err == nil {
		return key, nil
	}
	if key, err := x509.ParsePKCS1PrivateKey(der); err == nil {
		return key, nil
	}
	key, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return nil, fmt.Errorf("parse private key: %w", err)
	}
	signer, ok := key.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("a %T cannot sign", key)
	}
	return signer, nil
}

// A revocationList is a CRL of version 1 or 2, of which only what matters here
// is kept.
type revocationList struct {
	issued, expires time.Time // expires is zero if the list does not say
	number          *big.Int  // nil in version 1
	entries         []x509.RevocationListEntry

	// signedBy verifies the signature with the authority's key. Key usage is
	// not looked at: authorities made with plain openssl often lack the bit.
	signedBy func(ca *x509.Certificate) error
}

// parseCRLs reads every list of a PEM file.
func parseCRLs(data []byte) ([]revocationList, error) {
	var lists []revocationList
	for rest := data; ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		if block.Type != pemCRL {
			continue
		}
		list, err := parseCRL(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("list %d: %w", len(lists)+1, err)
		}
		lists = append(lists, list)
	}
	if len(lists) == 0 {
		return nil, notPEM(data, pemCRL)
	}
	return lists, nil
}

func parseCRL(der []byte) (revocationList, error) {
	list, err := x509.ParseRevocationList(der)
	if err != nil {
		old, oldErr := parseCRLVersion1(der)
		if oldErr != nil {
			return revocationList{}, err
		}
		return old, nil
	}
	return revocationList{
		issued:  list.ThisUpdate,
		expires: list.NextUpdate,
		number:  list.Number,
		entries: list.RevokedCertificateEntries,
		signedBy: func(ca *x509.Certificate) error {
			return ca.CheckSignature(list.SignatureAlgorithm, list.RawTBSRevocationList, list.Signature)
		},
	}, nil
}

func parseCRLVersion1(der []byte) (revocationList, error) {
	//lint:ignore SA1019 ParseRevocationList refuses lists of version 1, which the original's tools make
	old, err := x509.ParseDERCRL(der)
	if err != nil {
		return revocationList{}, err
	}
	if old.TBSCertList.Version != 0 {
		return revocationList{}, errors.New("not a list of version 1")
	}
	list := revocationList{
		issued:  old.TBSCertList.ThisUpdate,
		expires: old.TBSCertList.NextUpdate,
		signedBy: func(ca *x509.Certificate) error {
			//lint:ignore SA1019 the only check for lists of version 1
			return ca.CheckCRLSignature(old)
		},
	}
	for _, revoked := range old.TBSCertList.RevokedCertificates {
		list.entries = append(list.entries, x509.RevocationListEntry{
			SerialNumber: revoked.SerialNumber, RevocationTime: revoked.RevocationTime})
	}
	return list, nil
}

// notPEM describes a file without the block that was looked for.
func notPEM(data []byte, want string) error {
	switch {
	case len(bytes.TrimSpace(data)) == 0:
		return errors.New("the file is empty")
	case bytes.Contains(data, []byte("-----BEGIN")) && !bytes.Contains(data, []byte("-----END")):
		return fmt.Errorf("the %s in it is cut off", want)
	case bytes.Contains(data, []byte("-----BEGIN")):
		return fmt.Errorf("no complete PEM block %q in it", want)
	default:
		return fmt.Errorf("not PEM: no line -----BEGIN %s-----", want)
	}
}
