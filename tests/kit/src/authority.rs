//! A private certificate authority, such as that of a company.

use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};

/// The name of 127.0.0.1 in the configuration of the tests' proxies. No resolver resolves it.
pub const NAME: &str = "upstream.test";

/// A certificate authority with its own key.
#[derive(Debug)]
pub struct Authority {
    /// Its own certificate.
    pub pem: String,
    issuer: rcgen::Issuer<'static, rcgen::KeyPair>,
}

impl Authority {
    /// Creates an authority.
    ///
    /// # Panics
    /// If the system has no random numbers.
    #[must_use]
    pub fn new() -> Authority {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        params.distinguished_name.push(rcgen::DnType::CommonName, "a private authority");
        let pem = params.self_signed(&key).unwrap().pem();
        Authority { pem, issuer: rcgen::Issuer::new(params, key) }
    }

    /// Returns its certificate and its key, for a proxy that issues certificates itself.
    #[must_use]
    pub fn with_key(&self) -> String {
        self.pem.clone() + &self.issuer.key().serialize_pem()
    }

    /// Issues a certificate, and returns it with its key, in PEM.
    ///
    /// # Panics
    /// If a name is invalid in a certificate.
    #[must_use]
    pub fn issue(&self, names: &[&str]) -> (String, String) {
        let key = rcgen::KeyPair::generate().unwrap();
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let params = rcgen::CertificateParams::new(names).unwrap();
        (params.signed_by(&key, &self.issuer).unwrap().pem(), key.serialize_pem())
    }

    /// Returns the configuration of a server on 127.0.0.1. If `mutual` is true, it requires a client certificate of
    /// this authority.
    ///
    /// # Panics
    /// If rustls and rcgen disagree about certificates.
    #[must_use]
    pub fn server(&self, mutual: bool) -> Arc<ServerConfig> {
        let (certificate, key) = self.issue(&["127.0.0.1", NAME]);
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.pem.as_bytes()).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let clients =
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone()).build().unwrap();
        let config =
            ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let chain = vec![CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()];
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
        let config =
            if mutual { config.with_client_cert_verifier(clients) } else { config.with_no_client_auth() };
        Arc::new(config.with_single_cert(chain, key).unwrap())
    }
}

impl Default for Authority {
    fn default() -> Self {
        Authority::new()
    }
}
