//! What a client asks of the certificates that it is shown, where the configuration names
//! authorities or the server.

use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
    SupportedProtocolVersion,
};

use super::client::{ClientError, pem};
use crate::config::{Credential, TlsConfig, TlsVersion};

/// TLS as `tls` has it; `None` where nothing in it needs more than the HTTP client does by itself.
///
/// # Errors
/// A certificate or key cannot be read or is none, or the server's name is none.
pub(super) fn client_config(
    tls: &TlsConfig,
    http2: bool,
) -> Result<Option<ClientConfig>, ClientError> {
    // What is configured must be good, even where it is not asked.
    let trusted = tls.ca.as_ref().map(authorities).transpose()?;
    if tls.insecure_skip_verify || (trusted.is_none() && tls.server_name.is_none()) {
        return Ok(None);
    }
    let failed = |what: &str, error: &dyn std::fmt::Display| {
        ClientError::text(format!("tls_config: {what}: {error}"))
    };
    let provider = Arc::new(ring::default_provider());
    let verifier = Verifier::new(tls, trusted, &provider)?;
    let builder = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&versions(tls))
        .map_err(|error| failed("min_version and max_version", &error))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier));
    let mut config = match &tls.identity {
        None => builder.with_no_client_auth(),
        Some((certificate, key)) => {
            let chain = certificates(&pem(certificate)?);
            let chain = chain.map_err(|error| failed("cert and key", &error))?;
            let key = PrivateKeyDer::from_pem_slice(&pem(key)?);
            let key = key.map_err(|error| failed("cert and key", &error))?;
            let config = builder.with_client_auth_cert(chain, key);
            config.map_err(|error| failed("cert and key", &error))?
        }
    };
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    if http2 {
        config.alpn_protocols.insert(0, b"h2".to_vec());
    }
    Ok(Some(config))
}

fn versions(tls: &TlsConfig) -> Vec<&'static SupportedProtocolVersion> {
    let all = [
        (TlsVersion::Tls12, &rustls::version::TLS12),
        (TlsVersion::Tls13, &rustls::version::TLS13),
    ];
    let spoken = |version: TlsVersion| {
        tls.min_version.is_none_or(|min| min <= version)
            && tls.max_version.is_none_or(|max| version <= max)
    };
    all.into_iter().filter(|(version, _)| spoken(*version)).map(|(_, spoken)| spoken).collect()
}

fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, rustls::pki_types::pem::Error> {
    CertificateDer::pem_slice_iter(pem).collect()
}

/// Looks at the certificates of servers as the usual verifier does, except for two things that Go
/// has and its library has not: the name that a certificate is for may be another one than the
/// URL's, and a certificate that is itself among the trusted ones need not be anybody's.
#[derive(Debug)]
struct Verifier {
    usual: Arc<WebPkiServerVerifier>,
    /// Those that are trusted by name of the configuration.
    trusted: Vec<CertificateDer<'static>>,
    name: Option<ServerName<'static>>,
}

/// The certificates in the PEM of `ca`, all of which can be trusted.
fn authorities(
    ca: &Credential,
) -> Result<(Vec<CertificateDer<'static>>, RootCertStore), ClientError> {
    let failed = |text: String| ClientError::text(format!("tls_config: ca{text}"));
    let trusted = certificates(&pem(ca)?).map_err(|error| failed(format!(": {error}")))?;
    let mut roots = RootCertStore::empty();
    for certificate in &trusted {
        roots.add(certificate.clone()).map_err(|error| failed(format!(": {error}")))?;
    }
    if roots.is_empty() {
        return Err(failed(" holds no certificate".to_owned()));
    }
    Ok((trusted, roots))
}

/// Those that the system trusts.
fn authorities_of_the_system() -> Result<RootCertStore, ClientError> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        let errors: Vec<_> = found.errors.iter().map(ToString::to_string).collect();
        let errors = errors.join(", ");
        return Err(ClientError::text(format!("the system has no authorities: {errors}")));
    }
    Ok(roots)
}

impl Verifier {
    fn new(
        tls: &TlsConfig,
        trusted: Option<(Vec<CertificateDer<'static>>, RootCertStore)>,
        provider: &Arc<CryptoProvider>,
    ) -> Result<Self, ClientError> {
        let failed = |text: String| ClientError::text(format!("tls_config: {text}"));
        let (trusted, roots) = match trusted {
            Some(trusted) => trusted,
            None => (Vec::new(), authorities_of_the_system()?),
        };
        let name = tls.server_name.clone().map(ServerName::try_from).transpose();
        let name =
            name.map_err(|_| failed("server_name is neither a host nor an address".into()))?;
        let usual = WebPkiServerVerifier::builder_with_provider(roots.into(), Arc::clone(provider));
        let usual = usual.build().map_err(|error| failed(format!("ca: {error}")))?;
        Ok(Self { usual, trusted, name })
    }

    /// Whether `error` says of `certificate` only that it belongs to an authority, and the
    /// configuration trusts this very certificate. Its time was looked at before that was found.
    fn is_trusted_itself(&self, certificate: &CertificateDer<'_>, error: &Error) -> bool {
        let is_authority = match error {
            Error::InvalidCertificate(CertificateError::Other(other)) => matches!(
                other.0.downcast_ref::<webpki::Error>(),
                Some(webpki::Error::CaUsedAsEndEntity)
            ),
            _ => false,
        };
        is_authority && self.trusted.iter().any(|trusted| trusted == certificate)
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let name = self.name.as_ref().unwrap_or(server_name);
        let verified =
            self.usual.verify_server_cert(end_entity, intermediates, name, ocsp_response, now);
        let error = match verified {
            Err(error) if self.is_trusted_itself(end_entity, &error) => error,
            verified => return verified,
        };
        let certificate = webpki::EndEntityCert::try_from(end_entity).map_err(|_| error)?;
        certificate.verify_is_valid_for_subject_name(name).map_err(|_| {
            CertificateError::NotValidForNameContext {
                expected: name.to_owned(),
                presented: certificate.valid_dns_names().map(str::to_owned).collect(),
            }
        })?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.usual.verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.usual.verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.usual.supported_verify_schemes()
    }
}

#[cfg(test)]
mod tests {
    use reqwest::Method;
    use rustls::ServerConfig;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::super::Client;
    use super::*;
    use crate::config::{HttpConfig, Secret};

    const CA: &str = include_str!("../../tests/certificates/ca.crt");
    const SERVER: (&str, &str) = (
        include_str!("../../tests/certificates/server.crt"),
        include_str!("../../tests/certificates/server.key"),
    );
    const CLIENT: (&str, &str) = (
        include_str!("../../tests/certificates/client.crt"),
        include_str!("../../tests/certificates/client.key"),
    );
    /// Of an authority, signed by itself, as `openssl req -x509` makes them.
    const OWN: (&str, &str) = (
        include_str!("../../tests/certificates/self.crt"),
        include_str!("../../tests/certificates/self.key"),
    );
    /// The same, and over.
    const EXPIRED: (&str, &str) = (
        include_str!("../../tests/certificates/expired.crt"),
        include_str!("../../tests/certificates/expired.key"),
    );

    /// A server with this certificate, which answers everything with "good".
    async fn server((certificate, key): (&str, &str)) -> String {
        let provider = Arc::new(ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(
                certificates(certificate.as_bytes()).unwrap(),
                PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap(),
            )
            .unwrap();
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://{}/", listener.local_addr().unwrap());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let Ok(mut stream) = acceptor.accept(stream).await else { continue };
                let mut head = [0; 4096];
                let _ = stream.read(&mut head).await.unwrap();
                let answer =
                    "HTTP/1.1 200 OK\r\ncontent-length: 4\r\nconnection: close\r\n\r\ngood";
                stream.write_all(answer.as_bytes()).await.unwrap();
                stream.shutdown().await.unwrap();
            }
        });
        url
    }

    fn inline(text: &str) -> Credential {
        Credential::Inline(Secret::new(text))
    }

    fn trusting(ca: &str) -> TlsConfig {
        TlsConfig { ca: Some(inline(ca)), ..TlsConfig::default() }
    }

    /// What the server says, or why it is not trusted.
    async fn ask(url: &str, tls: TlsConfig) -> Result<String, String> {
        let client = Client::new(&HttpConfig { tls, ..HttpConfig::default() }, "test/1").unwrap();
        let request = client.request(Method::GET, url).await.unwrap();
        match request.send().await {
            Ok(answer) => Ok(answer.text().await.unwrap()),
            Err(error) => Err(super::super::explain(&error)),
        }
    }

    #[tokio::test]
    async fn a_certificate_of_a_trusted_authority_is_good() {
        let url = server(SERVER).await;
        assert_eq!(ask(&url, trusting(CA)).await, Ok("good".to_owned()));
        let strange = ask(&url, trusting(OWN.0)).await.unwrap_err();
        assert!(strange.contains("UnknownIssuer"), "{strange}");
        let identity = Some((inline(CLIENT.0), inline(CLIENT.1)));
        let max_version = Some(TlsVersion::Tls12);
        let tls = TlsConfig { identity, max_version, ..trusting(CA) };
        assert_eq!(ask(&url, tls).await, Ok("good".to_owned()));
    }

    #[tokio::test]
    async fn a_certificate_that_is_trusted_itself_need_not_be_of_an_authority() {
        let url = server(OWN).await;
        assert_eq!(ask(&url, trusting(OWN.0)).await, Ok("good".to_owned()));
        // In a file of several, too.
        let both = format!("{CA}\n{}", OWN.0);
        assert_eq!(ask(&url, trusting(&both)).await, Ok("good".to_owned()));
        ask(&url, trusting(CA)).await.unwrap_err();
        let by_name = url.replace("127.0.0.1", "localhost");
        let other = ask(&by_name, trusting(OWN.0)).await.unwrap_err();
        assert!(other.contains("localhost"), "it has another name: {other}");
        let late = ask(&server(EXPIRED).await, trusting(EXPIRED.0)).await.unwrap_err();
        assert!(late.contains("expired"), "{late}");
    }

    #[tokio::test]
    async fn a_name_may_be_given_in_place_of_the_urls() {
        let named =
            |name: &str, ca: &str| TlsConfig { server_name: Some(name.to_owned()), ..trusting(ca) };
        let by_name = server(SERVER).await.replace("127.0.0.1", "localhost");
        assert_eq!(ask(&by_name, named("127.0.0.1", CA)).await, Ok("good".to_owned()));
        let other = ask(&by_name, named("other.example", CA)).await.unwrap_err();
        assert!(other.contains("other.example"), "{other}");
        let url = server(OWN).await;
        assert_eq!(ask(&url, named("self.example", OWN.0)).await, Ok("good".to_owned()));
        let other = ask(&url, named("other.example", OWN.0)).await.unwrap_err();
        assert!(other.contains("other.example"), "{other}");
        // Without authorities of its own, those of the system count.
        let tls =
            TlsConfig { server_name: Some("self.example".to_owned()), ..TlsConfig::default() };
        ask(&url, tls).await.unwrap_err();
        let tls = TlsConfig { insecure_skip_verify: true, ..named("other.example", CA) };
        assert_eq!(ask(&url, tls).await, Ok("good".to_owned()));
    }

    #[test]
    fn what_cannot_be_used_is_refused() {
        let refuse = |tls: TlsConfig, text: &str| {
            let error = client_config(&tls, true).unwrap_err().to_string();
            assert!(error.contains(text), "{error}");
        };
        refuse(trusting("x"), "ca holds no certificate");
        refuse(trusting(CLIENT.1), "ca holds no certificate");
        let garbage = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        refuse(trusting(garbage), "tls_config: ca: ");
        refuse(TlsConfig { server_name: Some("a b".into()), ..trusting(CA) }, "server_name");
        let foreign = Some((inline(CLIENT.0), inline(SERVER.1)));
        refuse(TlsConfig { identity: foreign, ..trusting(CA) }, "cert and key");
        refuse(
            TlsConfig { insecure_skip_verify: true, ..trusting("x") },
            "ca holds no certificate",
        );
        assert!(client_config(&TlsConfig::default(), true).unwrap().is_none());
    }
}
