package exporter

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
)

// certificates are files of an authority and of a pair that serves for both ends.
type certificates struct {
	authority, cert, key string
	pool                 *x509.CertPool
	pair                 tls.Certificate
}

func makeCertificates(t *testing.T) certificates {
	t.Helper()
	fail := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	dir := t.TempDir()
	write := func(name, kind string, der []byte) string {
		file := filepath.Join(dir, name)
		fail(os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600))
		return file
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	fail(err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	fail(err)
	keyDER, err := x509.MarshalECPrivateKey(key)
	fail(err)
	c := certificates{
		cert: write("cert.pem", "CERTIFICATE", der), key: write("key.pem", "EC PRIVATE KEY", keyDER), pool: x509.NewCertPool(),
	}
	c.authority = c.cert
	c.pair, err = tls.LoadX509KeyPair(c.cert, c.key)
	fail(err)
	parsed, err := x509.ParseCertificate(der)
	fail(err)
	c.pool.AddCert(parsed)
	return c
}

func (c certificates) server() *tls.Config {
	return &tls.Config{Certificates: []tls.Certificate{c.pair}, ClientCAs: c.pool, ClientAuth: tls.RequireAndVerifyClientCert}
}

func (c certificates) setEnvironment(t *testing.T) {
	t.Setenv("OTEL_EXPORTER_OTLP_CERTIFICATE", c.authority)
	t.Setenv("OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE", c.cert)
	t.Setenv("OTEL_EXPORTER_OTLP_CLIENT_KEY", c.key)
}

func TestGRPCFollowsTheEnvironment(t *testing.T) {
	certs := makeCertificates(t)
	c := startCollector(t, nil, grpc.Creds(credentials.NewTLS(certs.server())))
	clearEnvironment(t)
	certs.setEnvironment(t)
	t.Setenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "https://"+c.addr)
	t.Setenv("OTEL_EXPORTER_OTLP_HEADERS", "x-tenant=blue%20team")
	t.Setenv("OTEL_EXPORTER_OTLP_TRACES_COMPRESSION", "gzip")
	cfg := quick("")
	cfg.Endpoint = ""
	o := startOTLPHere(t, cfg)
	addSpans(o, 0, 10)
	if err := o.Flush(context.Background()); err != nil {
		t.Fatal(err)
	}
	if s := exact(t, o); s.Exported != 10 {
		t.Errorf("stats are %+v", s)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if got := c.header.Get("x-tenant"); len(got) != 1 || got[0] != "blue team" {
		t.Errorf("headers are %v", c.header)
	}
	if got := c.header.Get("grpc-accept-encoding"); len(got) == 0 {
		t.Errorf("headers are %v", c.header)
	}
}

func TestHTTPUsesTheCertificatesOfTheEnvironment(t *testing.T) {
	certs := makeCertificates(t)
	c := &httpCollector{paths: make(map[string]int)}
	c.Server = httptest.NewUnstartedServer(c)
	c.TLS = certs.server()
	c.StartTLS()
	t.Cleanup(c.Close)
	clearEnvironment(t)
	certs.setEnvironment(t)
	o := startOTLPHere(t, quickHTTP(c))
	addSpans(o, 0, 10)
	if err := o.Flush(context.Background()); err != nil {
		t.Fatal(err)
	}
	if s := exact(t, o); s.Exported != 10 || s.LastError != "" {
		t.Errorf("stats are %+v", s)
	}
}

func TestWithoutTheAuthorityNothingIsSent(t *testing.T) {
	certs := makeCertificates(t)
	c := startCollector(t, nil, grpc.Creds(credentials.NewTLS(certs.server())))
	cfg := quick("")
	cfg.Endpoint = "https://" + c.addr
	o := startOTLP(t, cfg)
	addSpans(o, 0, 10)
	eventually(t, "attempts fail", func() bool { return o.Stats().Retries > 2 })
	if s := exact(t, o); s.Exported != 0 || s.Queued != 10 {
		t.Errorf("stats are %+v", s)
	}
}

func TestAnOptionWithHTTPIsPlainWhateverCertificatesAreSet(t *testing.T) {
	certs := makeCertificates(t)
	clearEnvironment(t)
	certs.setEnvironment(t)
	plain := startCollector(t, nil)
	web := newHTTPCollector(t, nil)
	for _, cfg := range []OTLPConfig{quick(plain.addr), quickHTTP(web)} {
		o := startOTLPHere(t, cfg)
		addSpans(o, 0, 10)
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		if err := o.Flush(ctx); err != nil {
			t.Errorf("%s: %v", o.Stats().Protocol, err)
		}
	}
}
