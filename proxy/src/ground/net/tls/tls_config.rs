//! TLS configuration of the listener (certificates by name, reloaded while clients stay connected) and of connections
//! to app servers, other nodes and issuers.

use std::path::Path;
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::client::ClientConfig;
use rustls::crypto::aws_lc_rs::Ticketer;
use rustls::pki_types::ServerName;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{RootCertStore, ServerConfig};

use super::ClientTls;
use super::pem::{self, IdentityFiles, TlsError, provider};
use super::validity::{self, PresentedChain};

/// ALPN protocols, preferred first.
const PROTOCOLS: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// Certificates of the listener, chosen by the client's requested host.
#[derive(Debug)]
pub(crate) struct Certificates {
    files: Vec<IdentityFiles>,
    identities: ArcSwap<Vec<Arc<CertifiedKey>>>,
}

impl Certificates {
    pub(crate) fn read(files: Vec<IdentityFiles>) -> Result<Arc<Self>, TlsError> {
        let identities = ArcSwap::from_pointee(read_all(&files)?);
        Ok(Arc::new(Self { files, identities }))
    }

    /// Reloads the files, for future handshakes. Fails if a file is missing or unusable; all old certificates stay in
    /// use.
    pub(crate) fn read_again(&self) -> Result<(), TlsError> {
        self.identities.store(Arc::new(read_all(&self.files)?));
        Ok(())
    }

    pub(crate) fn files(&self) -> impl Iterator<Item = &Path> {
        self.files.iter().flat_map(|files| [files.certificate.as_path(), &files.key])
    }

    /// Chains of the certificates in use.
    pub(crate) fn chains(&self) -> Vec<PresentedChain> {
        let identities = self.identities.load();
        let chain = |(files, identity): (&IdentityFiles, &Arc<CertifiedKey>)| PresentedChain {
            file: files.certificate.clone(),
            role: "listener",
            certificates: identity.cert.clone(),
        };
        self.files.iter().zip(identities.iter()).map(chain).collect()
    }

    /// Returns the first certificate that names the host, or else the first one.
    fn find(&self, host: Option<&str>) -> Option<Arc<CertifiedKey>> {
        let identities = self.identities.load();
        let named = match (host.map(ServerName::try_from), identities.len()) {
            (Some(Ok(host)), 2..) => identities.iter().find(|identity| pem::names_host(identity, &host)),
            _ => None,
        };
        named.or_else(|| identities.first()).cloned()
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.find(hello.server_name())
    }
}

fn read_all(files: &[IdentityFiles]) -> Result<Vec<Arc<CertifiedKey>>, TlsError> {
    files.iter().map(pem::read_identity).collect()
}

/// Builds the listener's configuration: TLS 1.2 and 1.3, with sessions resumable at any shard. Fails if the library
/// rejects it.
pub(crate) fn server_config(certificates: Arc<Certificates>) -> Result<ServerConfig, TlsError> {
    let builder = ServerConfig::builder_with_provider(provider()).with_safe_default_protocol_versions()?;
    let mut config = builder.with_no_client_auth().with_cert_resolver(certificates);
    config.alpn_protocols = PROTOCOLS.map(<[u8]>::to_vec).into();
    // Sealed tickets instead of a table: sessions of disconnected clients use no memory.
    config.ticketer = Ticketer::new()?;
    Ok(config)
}

/// Fails if a file is missing or unusable, or if there is no root certificate.
pub(crate) fn client_config(settings: &ClientTls) -> Result<ClientConfig, TlsError> {
    let builder = ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions()?;
    let builder = builder.with_root_certificates(roots(settings)?);
    let mut config = match &settings.identity {
        None => builder.with_no_client_auth(),
        Some(files) => {
            let identity = SingleCertAndKey::from(pem::read_identity(files)?);
            builder.with_client_cert_resolver(Arc::new(identity))
        }
    };
    // Links are WebSockets over HTTP/1.1.
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

pub(super) fn roots(settings: &ClientTls) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for path in &settings.roots {
        let certificates = pem::certificates(path)?;
        validity::warn_of_all(path, &certificates);
        for certificate in certificates {
            roots.add(certificate).map_err(|source| TlsError::Root { path: path.clone(), source })?;
        }
    }
    if settings.roots.is_empty() {
        // Systems often have some certificates that the library can't parse; the rest suffice.
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    }
    if roots.is_empty() { Err(TlsError::NoRoots) } else { Ok(roots) }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::PathBuf;

    use rcgen::generate_simple_self_signed;

    use super::*;

    /// Folder that is removed with the test.
    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("trunkline-{}-{name}", std::process::id()));
            fs::create_dir_all(&path).unwrap();
            Self(path)
        }

        fn identity(&self, host: &str) -> IdentityFiles {
            let identity = generate_simple_self_signed([host.into()]).unwrap();
            let name = host.replace('*', "any");
            let (certificate, key) = (self.0.join(format!("{name}.pem")), self.0.join(format!("{name}.key")));
            fs::write(&certificate, identity.cert.pem()).unwrap();
            fs::write(&key, identity.signing_key.serialize_pem()).unwrap();
            IdentityFiles { certificate, key }
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            drop(fs::remove_dir_all(&self.0));
        }
    }

    #[test]
    fn a_client_gets_the_first_certificate_that_names_the_host_else_the_first() {
        let folder = Folder::new("by-name");
        let hosts = ["chat.example", "*.apps.example", "two.apps.example"];
        let certificates = Certificates::read(hosts.map(|host| folder.identity(host)).into()).unwrap();
        let all = certificates.identities.load_full();
        for (host, place) in [
            (Some("chat.example"), 0),
            (Some("one.apps.example"), 1),
            (Some("TWO.apps.example"), 1),
            (Some("a.b.apps.example"), 0),
            (Some("other.example"), 0),
            (None, 0),
        ] {
            assert!(Arc::ptr_eq(&certificates.find(host).unwrap(), &all[place]), "{host:?}");
        }
    }

    #[test]
    fn a_broken_new_file_leaves_all_old_certificates_in_use() {
        let folder = Folder::new("reload");
        let files = ["a.example", "b.example"].map(|host| folder.identity(host));
        let certificates = Certificates::read(files.to_vec()).unwrap();
        let old = certificates.identities.load_full();
        folder.identity("a.example");
        fs::write(&files[1].key, "nonsense").unwrap();
        assert!(matches!(certificates.read_again(), Err(TlsError::File { .. })));
        assert!(Arc::ptr_eq(&certificates.identities.load(), &old));
        let b = folder.identity("b.example");
        certificates.read_again().unwrap();
        assert_ne!(certificates.find(None).unwrap().cert, old[0].cert);
        // Key of another certificate.
        fs::copy(&b.key, &files[0].key).unwrap();
        assert!(matches!(certificates.read_again(), Err(TlsError::Identity { .. })));
    }
}
