//! TLS in tests: a certificate authority, manual connections, and a TLS endpoint in front of a server.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::client::TlsStream;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::harness::scenario::Fixture;

/// Certificate authority only for tests.
#[derive(Debug)]
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    folder: PathBuf,
    /// Its own certificate as a PEM file.
    pub file: PathBuf,
}

/// Certificate and key as PEM files.
#[derive(Debug, Clone)]
pub struct Identity {
    /// File of the certificate.
    pub certificate: PathBuf,
    /// File of the key.
    pub key: PathBuf,
}

impl Authority {
    /// Creates an authority with this name.
    pub fn new(fixture: &Fixture, name: &str) -> Result<Self> {
        let mut params = CertificateParams::new([])?;
        // Issuer and subject must have different names.
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
        let folder = fixture.folder().join(name);
        fs::create_dir_all(&folder)?;
        let file = folder.join("authority.pem");
        fs::write(&file, issuer.pem())?;
        Ok(Self { issuer, folder, file })
    }

    /// Signs a certificate for these hosts. An existing file name is overwritten.
    pub fn sign(&self, name: &str, hosts: &[&str]) -> Result<Identity> {
        let key = KeyPair::generate()?;
        let hosts: Vec<String> = hosts.iter().map(ToString::to_string).collect();
        let certificate = CertificateParams::new(hosts)?.signed_by(&key, &self.issuer)?;
        let identity = Identity {
            certificate: self.folder.join(format!("{name}.pem")),
            key: self.folder.join(format!("{name}.key")),
        };
        fs::write(&identity.certificate, certificate.pem())?;
        // Readable only by the owner, because programs warn otherwise.
        let mut file = File::options().write(true).create(true).truncate(true).mode(0o600).open(&identity.key)?;
        file.write_all(key.serialize_pem().as_bytes())?;
        Ok(identity)
    }

    fn roots(&self) -> Result<RootCertStore> {
        let mut roots = RootCertStore::empty();
        roots.add(self.issuer.der().clone())?;
        Ok(roots)
    }

    /// Opens a TLS connection to a server with a certificate for `localhost` by this authority.
    pub async fn connect(&self, address: &str, protocol: &str) -> Result<TlsStream<TcpStream>> {
        self.connect_over(TcpStream::connect(address).await?, protocol).await
    }

    /// Performs a TLS handshake over an open connection.
    pub async fn connect_over(&self, stream: TcpStream, protocol: &str) -> Result<TlsStream<TcpStream>> {
        let mut config = ClientConfig::builder().with_root_certificates(self.roots()?).with_no_client_auth();
        config.alpn_protocols = vec![protocol.as_bytes().to_vec()];
        let host = ServerName::try_from("localhost")?;
        TlsConnector::from(Arc::new(config)).connect(host, stream).await.context("the TLS handshake")
    }
}

impl Identity {
    /// Paths as command line arguments.
    pub fn arguments(&self) -> Result<(&str, &str)> {
        Ok((text(&self.certificate)?, text(&self.key)?))
    }
}

/// Path as text.
///
/// # Errors
/// If it is not UTF-8.
pub fn text(path: &Path) -> Result<&str> {
    path.to_str().context("a path that is no text")
}

/// Terminates TLS in front of a server.
#[derive(Debug)]
pub struct TlsEnd {
    address: String,
    _tasks: JoinSet<()>,
}

impl TlsEnd {
    /// Listens on a free loopback port and forwards all bytes to `target`.
    pub async fn start(identity: &Identity, target: &str) -> Result<Self> {
        Self::with(WebPkiClientVerifier::no_client_auth(), identity, target).await
    }

    /// Starts an endpoint that accepts only clients with a certificate by the authority.
    pub async fn for_clients_of(authority: &Authority, identity: &Identity, target: &str) -> Result<Self> {
        let verifier = WebPkiClientVerifier::builder(Arc::new(authority.roots()?)).build()?;
        Self::with(verifier, identity, target).await
    }

    async fn with(verifier: Arc<dyn ClientCertVerifier>, identity: &Identity, target: &str) -> Result<Self> {
        let chain = CertificateDer::pem_file_iter(&identity.certificate)?.collect::<Result<Vec<_>, _>>()?;
        let config = ServerConfig::builder()
            .with_client_cert_verifier(verifier)
            .with_single_cert(chain, PrivateKeyDer::from_pem_file(&identity.key)?)?;
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?.to_string();
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(listener, TlsAcceptor::from(Arc::new(config)), target.to_owned()));
        Ok(Self { address, _tasks: tasks })
    }

    /// Listen address as `host:port`.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }
}

async fn accept(listener: TcpListener, acceptor: TlsAcceptor, target: String) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let (acceptor, target) = (acceptor.clone(), target.clone());
        connections.spawn(async move {
            let mut near = acceptor.accept(stream).await?;
            let mut far = TcpStream::connect(target).await?;
            copy_bidirectional(&mut near, &mut far).await
        });
    }
}
