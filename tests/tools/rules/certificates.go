package main

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"slices"
	"time"
)

// A certificate as the table describes it.
type description struct {
	Name string `json:"name"`
	// P256 (the default), P384, P521, RSA or Ed25519.
	Key string `json:"key"`
	// The issuer: the name of an earlier certificate; the certificate itself, if empty.
	By string `json:"by"`
	// The signature algorithm of the issuer, as named by `crypto/x509`, such as `ECDSA-SHA512`.
	Signature string `json:"signature"`
	// Whether it is a CA; no basic constraints, if absent.
	CA *bool `json:"ca"`
	// The path length constraint; none, if absent.
	PathLen *int `json:"pathLen"`
	// Its names and addresses.
	DNS []string `json:"dns"`
	IP  []string `json:"ip"`
	// The common name, if it differs from the name.
	CommonName string `json:"commonName"`
	// `server` or `client`; any, if empty.
	Usage string `json:"usage"`
	// `digitalSignature` or `keyCertSign`; none, if empty.
	KeyUsage string `json:"keyUsage"`
	// 1, which has no extensions, for P256 keys; 3, if absent.
	Version int `json:"version"`
	// The domains for which a CA may issue.
	Permitted []string `json:"permitted"`
	// The start and end of its validity, in days from now: -1 and 30, if absent.
	Days []int `json:"days"`
}

type certificateCase struct {
	Certificates []description `json:"certificates"`
	// The names of the certificates that the server sends, with its own first, and of those that the
	// client trusts.
	Sends  []string `json:"sends"`
	Trusts []string `json:"trusts"`
	Host   string   `json:"host"`
}

type certificateDecision struct {
	Trusted bool              `json:"trusted"`
	Why     string            `json:"why"`
	PEM     map[string]string `json:"pem"`
}

type made struct {
	certificate *x509.Certificate
	key         crypto.Signer
}

// verdict creates the certificates of a case, and returns whether a Go client trusts the server.
func verdict(given certificateCase) (certificateDecision, error) {
	all := map[string]made{}
	decision := certificateDecision{PEM: map[string]string{}}
	for number, wanted := range given.Certificates {
		one, err := wanted.make(all, int64(number)+1)
		if err != nil {
			return decision, fmt.Errorf("%s: %w", wanted.Name, err)
		}
		all[wanted.Name] = one
		block := pem.Block{Type: "CERTIFICATE", Bytes: one.certificate.Raw}
		decision.PEM[wanted.Name] = string(pem.EncodeToMemory(&block))
	}
	options := x509.VerifyOptions{
		DNSName: given.Host, Roots: x509.NewCertPool(), Intermediates: x509.NewCertPool(),
	}
	for _, name := range given.Trusts {
		options.Roots.AddCert(all[name].certificate)
	}
	for _, name := range given.Sends[1:] {
		options.Intermediates.AddCert(all[name].certificate)
	}
	_, err := all[given.Sends[0]].certificate.Verify(options)
	decision.Trusted = err == nil
	if err != nil {
		decision.Why = err.Error()
	}
	return decision, nil
}

func (wanted description) make(all map[string]made, serial int64) (made, error) {
	key, err := newKey(wanted.Key)
	if err != nil {
		return made{}, err
	}
	days := wanted.Days
	if days == nil {
		days = []int{-1, 30}
	}
	common := wanted.CommonName
	if common == "" {
		common = wanted.Name
	}
	template := x509.Certificate{
		SerialNumber: big.NewInt(serial),
		Subject:      pkix.Name{CommonName: common},
		NotBefore:    time.Now().AddDate(0, 0, days[0]),
		NotAfter:     time.Now().AddDate(0, 0, days[1]),
		DNSNames:     wanted.DNS,
	}
	for _, address := range wanted.IP {
		template.IPAddresses = append(template.IPAddresses, net.ParseIP(address))
	}
	switch wanted.Usage {
	case "server":
		template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	case "client":
		template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	}
	switch wanted.KeyUsage {
	case "digitalSignature":
		template.KeyUsage = x509.KeyUsageDigitalSignature
	case "keyCertSign":
		template.KeyUsage = x509.KeyUsageCertSign
	}
	if wanted.CA != nil {
		template.BasicConstraintsValid, template.IsCA = true, *wanted.CA
	}
	if wanted.PathLen != nil {
		template.MaxPathLen, template.MaxPathLenZero = *wanted.PathLen, *wanted.PathLen == 0
	}
	if wanted.Permitted != nil {
		template.PermittedDNSDomainsCritical, template.PermittedDNSDomains = true, wanted.Permitted
	}
	if template.SignatureAlgorithm, err = algorithm(wanted.Signature); err != nil {
		return made{}, err
	}
	issuer := made{&template, key}
	if wanted.By != "" {
		known, ok := all[wanted.By]
		if !ok {
			return made{}, fmt.Errorf("there is no earlier certificate %q", wanted.By)
		}
		issuer = known
	}
	raw, err := x509.CreateCertificate(rand.Reader, &template, issuer.certificate, key.Public(), issuer.key)
	if err != nil {
		return made{}, err
	}
	if wanted.Version == 1 {
		if raw, err = asVersion1(raw, issuer.key); err != nil {
			return made{}, err
		}
	}
	certificate, err := x509.ParseCertificate(raw)
	return made{certificate, key}, err
}

// asVersion1 removes version and extensions, which Go cannot do, and signs again with ECDSA and SHA-256.
func asVersion1(raw []byte, key crypto.Signer) ([]byte, error) {
	var whole struct {
		Signed struct {
			Version                              int `asn1:"explicit,tag:0"`
			Serial                               *big.Int
			Algorithm                            pkix.AlgorithmIdentifier
			Issuer, Validity, Subject, PublicKey asn1.RawValue
			Extensions                           asn1.RawValue `asn1:"optional,explicit,tag:3"`
		}
		Algorithm pkix.AlgorithmIdentifier
		Signature asn1.BitString
	}
	if _, err := asn1.Unmarshal(raw, &whole); err != nil {
		return nil, err
	}
	of := whole.Signed
	signed, err := asn1.Marshal(struct {
		Serial                               *big.Int
		Algorithm                            pkix.AlgorithmIdentifier
		Issuer, Validity, Subject, PublicKey asn1.RawValue
	}{of.Serial, of.Algorithm, of.Issuer, of.Validity, of.Subject, of.PublicKey})
	if err != nil {
		return nil, err
	}
	digest := sha256.Sum256(signed)
	signature, err := key.Sign(rand.Reader, digest[:], crypto.SHA256)
	if err != nil {
		return nil, err
	}
	return asn1.Marshal(struct {
		Signed    asn1.RawValue
		Algorithm pkix.AlgorithmIdentifier
		Signature asn1.BitString
	}{asn1.RawValue{FullBytes: signed}, whole.Algorithm, asn1.BitString{Bytes: signature, BitLength: 8 * len(signature)}})
}

func newKey(kind string) (crypto.Signer, error) {
	switch kind {
	case "", "P256":
		return ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case "P384":
		return ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	case "P521":
		return ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	case "RSA":
		return rsa.GenerateKey(rand.Reader, 2048)
	case "Ed25519":
		_, key, err := ed25519.GenerateKey(rand.Reader)
		return key, err
	}
	return nil, fmt.Errorf("there is no key %q", kind)
}

// algorithm returns the signature algorithm of this name. If the name is empty, the key determines it.
func algorithm(name string) (x509.SignatureAlgorithm, error) {
	all := []x509.SignatureAlgorithm{
		x509.SHA256WithRSA, x509.SHA384WithRSA, x509.SHA512WithRSA, x509.SHA256WithRSAPSS,
		x509.ECDSAWithSHA256, x509.ECDSAWithSHA384, x509.ECDSAWithSHA512, x509.PureEd25519,
	}
	if name == "" {
		return x509.UnknownSignatureAlgorithm, nil
	}
	at := slices.IndexFunc(all, func(one x509.SignatureAlgorithm) bool { return one.String() == name })
	if at < 0 {
		return 0, fmt.Errorf("there is no signature %q", name)
	}
	return all[at], nil
}
