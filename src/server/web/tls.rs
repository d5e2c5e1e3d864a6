//! The server's side of TLS: certificates, versions and suites, and what clients have to show.

use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use rustls::crypto::{CryptoProvider, SupportedKxGroup, ring};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{DistinguishedName, RootCertStore, ServerConfig, SupportedCipherSuite};

use crate::config::web::{ClientAuth, ServerTls};
use crate::config::{Credential, TlsVersion};

/// What the transport needs for connections.
///
/// # Errors
/// A file that cannot be read or is not what it should be, or a name of a suite, curve or
/// certificate that means nothing here.
pub(super) fn build(tls: &ServerTls) -> Result<ServerConfig, String> {
    let provider = Arc::new(provider(tls)?);
    let versions: Vec<_> = [
        (TlsVersion::Tls12, &rustls::version::TLS12),
        (TlsVersion::Tls13, &rustls::version::TLS13),
    ]
    .into_iter()
    .filter(|(version, _)| (tls.min_version..=tls.max_version).contains(version))
    .map(|(_, version)| version)
    .collect();
    let verifier = verifier(tls, &provider)?;
    let (certificate, key) = (pem(&tls.certificate, "cert")?, pem(&tls.key, "key")?);
    let chain = certificates(&certificate, "cert")?;
    let key = PrivateKeyDer::from_pem_slice(&key)
        .map_err(|error| format!("tls_server_config: key holds no private key in PEM: {error}"))?;
    let builder = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&versions)
        .map_err(|error| format!("tls_server_config: {error}"))?;
    let builder = match verifier {
        None => builder.with_no_client_auth(),
        Some(verifier) => builder.with_client_cert_verifier(verifier),
    };
    let mut config = builder
        .with_single_cert(chain, key)
        .map_err(|error| format!("tls_server_config: cert and key do not fit: {error}"))?;
    config.ignore_client_order = tls.prefer_server_cipher_suites;
    if tls.client_auth != ClientAuth::None {
        // A session that is taken up again would skip the look at the client's certificate.
        config.session_storage = Arc::new(NoServerSessionStorage {});
    }
    Ok(config)
}

/// The suites and groups that are wished for.
fn provider(tls: &ServerTls) -> Result<CryptoProvider, String> {
    let mut provider = ring::default_provider();
    if !tls.cipher_suites.is_empty() {
        let (newer, older): (Vec<_>, Vec<_>) = provider
            .cipher_suites
            .iter()
            .copied()
            .partition(|suite| matches!(suite, SupportedCipherSuite::Tls13(_)));
        // Those of TLS 1.3 are all safe and not chosen, as in Go.
        let mut chosen = newer.clone();
        for name in &tls.cipher_suites {
            let named = |suite: &&SupportedCipherSuite| go_name(suite) == *name;
            if newer.iter().any(|suite| named(&suite)) {
                continue;
            }
            let Some(suite) = older.iter().find(named) else {
                let known: Vec<_> = older.iter().map(go_name).collect();
                return Err(format!(
                    "tls_server_config.cipher_suites: {name} is not spoken; use {}",
                    known.join(", ")
                ));
            };
            chosen.push(*suite);
        }
        provider.cipher_suites = chosen;
    }
    if !tls.curve_preferences.is_empty() {
        let chosen = tls.curve_preferences.iter().map(|name| curve(name));
        provider.kx_groups = chosen.collect::<Result<_, _>>()?;
    }
    Ok(provider)
}

fn go_name(suite: &SupportedCipherSuite) -> String {
    format!("{:?}", suite.suite()).replacen("TLS13_", "TLS_", 1)
}

fn curve(name: &str) -> Result<&'static dyn SupportedKxGroup, String> {
    match name {
        "X25519" => Ok(ring::kx_group::X25519),
        "CurveP256" => Ok(ring::kx_group::SECP256R1),
        "CurveP384" => Ok(ring::kx_group::SECP384R1),
        _ => Err(format!(
            "tls_server_config.curve_preferences: {name} is not spoken; use X25519, CurveP256 or \
             CurveP384"
        )),
    }
}

fn pem(credential: &Credential, key: &str) -> Result<Vec<u8>, String> {
    let unreadable = |path: &Path, error: std::io::Error| {
        format!("tls_server_config.{key}_file: cannot read {}: {error}", path.display())
    };
    match credential {
        Credential::Inline(secret) => Ok(secret.reveal().as_bytes().to_vec()),
        Credential::File(path) => std::fs::read(path).map_err(|error| unreadable(path, error)),
    }
}

fn certificates(pem: &[u8], key: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let read =
        read.map_err(|error| format!("tls_server_config: {key} cannot be read as PEM: {error}"))?;
    if read.is_empty() {
        return Err(format!("tls_server_config: {key} holds no certificate in PEM"));
    }
    Ok(read)
}

/// Who looks at the certificates of clients; nobody where none is asked for.
fn verifier(
    tls: &ServerTls,
    provider: &Arc<CryptoProvider>,
) -> Result<Option<Arc<dyn ClientCertVerifier>>, String> {
    let verifier: Arc<dyn ClientCertVerifier> = match tls.client_auth {
        ClientAuth::None => {
            let names = &tls.client_allowed_sans;
            if !names.is_empty() {
                let message = "client_allowed_sans is given, and client_auth_type asks for nothing";
                return Err(format!("tls_server_config: {message}"));
            }
            return Ok(None);
        }
        ClientAuth::Request | ClientAuth::RequireAny => Arc::new(AnyCertificate {
            is_mandatory: tls.client_auth == ClientAuth::RequireAny,
            provider: Arc::clone(provider),
        }),
        ClientAuth::VerifyIfGiven | ClientAuth::RequireAndVerify => {
            let mut roots = RootCertStore::empty();
            if let Some(ca) = &tls.client_ca {
                for certificate in certificates(&pem(ca, "client_ca")?, "client_ca")? {
                    roots
                        .add(certificate)
                        .map_err(|error| format!("tls_server_config: client_ca: {error}"))?;
                }
            }
            let builder =
                WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider));
            let builder = match tls.client_auth {
                ClientAuth::VerifyIfGiven => builder.allow_unauthenticated(),
                _ => builder,
            };
            builder.build().map_err(|error| format!("tls_server_config: client_ca: {error}"))?
        }
    };
    if tls.client_allowed_sans.is_empty() {
        return Ok(Some(verifier));
    }
    let names = tls.client_allowed_sans.iter().map(|name| AllowedName::parse(name));
    let names = names.collect::<Result<_, _>>()?;
    Ok(Some(Arc::new(NamedCertificate { verifier, names })))
}

/// Takes every certificate whose private key the client has.
#[derive(Debug)]
struct AnyCertificate {
    is_mandatory: bool,
    provider: Arc<CryptoProvider>,
}

impl ClientCertVerifier for AnyCertificate {
    fn client_auth_mandatory(&self) -> bool {
        self.is_mandatory
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// A name that a client may have.
#[derive(Debug, PartialEq, Eq)]
enum AllowedName {
    /// A host name or a URI.
    Text(String),
    Address(IpAddr),
}

impl AllowedName {
    fn parse(name: &str) -> Result<Self, String> {
        if let Ok(address) = name.parse() {
            return Ok(Self::Address(address));
        }
        if name.contains('@') && !name.contains("://") {
            return Err(format!(
                "tls_server_config.client_allowed_sans: mail addresses such as {name} cannot be \
                 looked for; use host names, URIs or IP addresses"
            ));
        }
        Ok(Self::Text(name.to_owned()))
    }

    fn is_in(&self, certificate: &webpki::EndEntityCert<'_>) -> bool {
        match self {
            Self::Text(wanted) => certificate
                .valid_dns_names()
                .chain(certificate.valid_uri_names())
                .any(|name| name == wanted),
            Self::Address(address) => {
                let name = ServerName::IpAddress((*address).into());
                certificate.verify_is_valid_for_subject_name(&name).is_ok()
            }
        }
    }
}

/// Takes certificates that another verifier takes, where they are for one of the names.
#[derive(Debug)]
struct NamedCertificate {
    verifier: Arc<dyn ClientCertVerifier>,
    names: Vec<AllowedName>,
}

impl ClientCertVerifier for NamedCertificate {
    fn client_auth_mandatory(&self) -> bool {
        self.verifier.client_auth_mandatory()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.verifier.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        let verified = self.verifier.verify_client_cert(end_entity, intermediates, now)?;
        let certificate = webpki::EndEntityCert::try_from(end_entity)
            .map_err(|error| rustls::Error::General(error.to_string()))?;
        if self.names.iter().any(|name| name.is_in(&certificate)) {
            return Ok(verified);
        }
        let found: Vec<_> =
            certificate.valid_dns_names().chain(certificate.valid_uri_names()).collect();
        Err(rustls::Error::General(format!(
            "the client's certificate is for none of the allowed names, but for {found:?}"
        )))
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        self.verifier.verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        self.verifier.verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        self.verifier.supported_verify_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Secret;

    fn tls() -> ServerTls {
        let inline = |text: &str| Credential::Inline(Secret::new(text));
        ServerTls {
            certificate: inline("x"),
            key: inline("y"),
            client_auth: ClientAuth::None,
            client_ca: None,
            client_allowed_sans: Vec::new(),
            min_version: TlsVersion::Tls12,
            max_version: TlsVersion::Tls13,
            cipher_suites: Vec::new(),
            prefer_server_cipher_suites: true,
            curve_preferences: Vec::new(),
        }
    }

    #[test]
    fn suites_are_chosen_by_the_names_of_go() {
        let name = "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256";
        let chosen = ["TLS_AES_128_GCM_SHA256".to_owned(), name.to_owned()];
        let provider = provider(&ServerTls { cipher_suites: chosen.into(), ..tls() }).unwrap();
        let names: Vec<_> = provider.cipher_suites.iter().map(go_name).collect();
        assert_eq!(names.len(), 4, "{names:?}");
        assert_eq!(names[3], name);
    }

    #[test]
    fn what_is_not_spoken_is_refused_with_what_is() {
        let suites = vec!["TLS_RSA_WITH_AES_128_CBC_SHA".to_owned()];
        let error = provider(&ServerTls { cipher_suites: suites, ..tls() }).unwrap_err();
        assert!(error.contains("CBC_SHA is not spoken; use TLS_ECDHE_"), "{error}");
        let curves = vec!["CurveP521".to_owned()];
        let error = provider(&ServerTls { curve_preferences: curves, ..tls() }).unwrap_err();
        assert!(error.contains("CurveP521 is not spoken; use X25519"), "{error}");
        let error = AllowedName::parse("a@example.org").unwrap_err();
        assert!(error.contains("mail addresses"), "{error}");
    }

    #[test]
    fn what_is_no_certificate_is_told_without_showing_it() {
        let error = build(&tls()).unwrap_err();
        assert_eq!(error, "tls_server_config: cert holds no certificate in PEM");
        let missing = Credential::File("/nowhere/a.crt".into());
        let error = build(&ServerTls { certificate: missing, ..tls() }).unwrap_err();
        assert!(error.starts_with("tls_server_config.cert_file: cannot read /nowhere/a.crt"));
    }
}
