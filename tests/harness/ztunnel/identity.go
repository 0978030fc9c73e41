package ztunnel

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"math/big"
	"net/url"
	"time"
)

// trustDomain is Istio's default.
const trustDomain = "cluster.local"

// CA is the mesh's certificate authority: an X.509 certificate and its PKCS #8 key, both DER. It lives in
// memory only.
type CA struct {
	Certificate []byte
	Key         []byte
}

// NewCA makes an authority for a day.
func NewCA() (CA, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return CA{}, fmt.Errorf("make the mesh's key: %w", err)
	}
	template := &x509.Certificate{
		SerialNumber:          big.NewInt(1),
		Subject:               pkix.Name{Organization: []string{trustDomain}},
		NotBefore:             time.Now().Add(-time.Hour),
		NotAfter:              time.Now().Add(24 * time.Hour),
		IsCA:                  true,
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageCertSign,
	}
	certificate, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return CA{}, fmt.Errorf("make the mesh's certificate: %w", err)
	}
	encoded, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return CA{}, fmt.Errorf("encode the mesh's key: %w", err)
	}
	return CA{Certificate: certificate, Key: encoded}, nil
}

// config issues a certificate for the service account named after the pod and returns the TLS settings of
// both ends: TLS 1.3, each demanding a certificate of this mesh.
func (ca CA) config(pod string) (*tls.Config, error) {
	authority, err := x509.ParseCertificate(ca.Certificate)
	if err != nil {
		return nil, fmt.Errorf("read the mesh's certificate: %w", err)
	}
	signer, err := x509.ParsePKCS8PrivateKey(ca.Key)
	if err != nil {
		return nil, fmt.Errorf("read the mesh's key: %w", err)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make the pod's key: %w", err)
	}
	id := &url.URL{Scheme: "spiffe", Host: trustDomain, Path: "/ns/default/sa/" + pod}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()),
		NotBefore:    authority.NotBefore,
		NotAfter:     authority.NotAfter,
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
		URIs:         []*url.URL{id},
	}
	leaf, err := x509.CreateCertificate(rand.Reader, template, authority, key.Public(), signer)
	if err != nil {
		return nil, fmt.Errorf("make the pod's certificate: %w", err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(authority)
	return &tls.Config{
		Certificates:           []tls.Certificate{{Certificate: [][]byte{leaf}, PrivateKey: key}},
		MinVersion:             tls.VersionTLS13,
		NextProtos:             []string{"h2"},
		CurvePreferences:       []tls.CurveID{tls.X25519},
		ClientAuth:             tls.RequireAndVerifyClientCert,
		ClientCAs:              roots,
		SessionTicketsDisabled: true,
		// One record for a frame from the start, as the real one sends them.
		DynamicRecordSizingDisabled: true,
		// The peer is named by a SPIFFE URI, which the package's own verification does not know.
		InsecureSkipVerify: true,
		VerifyConnection: func(state tls.ConnectionState) error {
			return verifyPeer(state, roots)
		},
	}, nil
}

func verifyPeer(state tls.ConnectionState, roots *x509.CertPool) error {
	if len(state.PeerCertificates) == 0 {
		return errors.New("verify the peer: it sent no certificate")
	}
	leaf := state.PeerCertificates[0]
	if _, err := leaf.Verify(x509.VerifyOptions{Roots: roots, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}}); err != nil {
		return fmt.Errorf("verify the peer: %w", err)
	}
	if len(leaf.URIs) != 1 || leaf.URIs[0].Scheme != "spiffe" || leaf.URIs[0].Host != trustDomain {
		return fmt.Errorf("verify the peer: %v is no identity of trust domain %s", leaf.URIs, trustDomain)
	}
	return nil
}
