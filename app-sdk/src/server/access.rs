//! Access of proxies: the keys of this fleet, and the check of link credentials.

use std::net::{IpAddr, SocketAddr};
use std::time::SystemTime;

use http::HeaderMap;
use http::header::AUTHORIZATION;
use trunkline_protocol::development_key;
use trunkline_protocol::key::{ACCESS_KEY_FILE_VARIABLE, ACCESS_KEY_VARIABLE, AccessKey, AccessKeys};
use trunkline_protocol::token::LinkCredential;
use trunkline_protocol::unix_time::unix_seconds;
use trunkline_protocol::wire::bearer;

use crate::error::BuildError;

/// The keys of this app server.
#[derive(Debug)]
pub(crate) struct Access {
    keys: AccessKeys,
    is_development: bool,
}

/// Reason to refuse a peer; the text is its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum AccessError {
    #[error(
        "this app server has only the development key, which is good for proxies on the same machine: give the app server and its proxies an access key (TRUNKLINE_ACCESS_KEY; `trunkline token key` makes one)"
    )]
    DevelopmentKey,
    #[error("a link credential is needed: `Authorization: Bearer`, sealed with the access key of this fleet")]
    Credential,
}

impl Access {
    /// Takes the keys that were given in code, else those of the environment, else the development key.
    pub(crate) fn new(given: &[String]) -> Result<Self, BuildError> {
        let given: Vec<_> = given.iter().flat_map(|text| split(text)).collect();
        let texts = if given.is_empty() { from_environment()? } else { given };
        let is_development = texts.is_empty();
        let keys = if is_development { vec![development_key()?] } else { parse(&texts)? };
        Ok(Self { keys: AccessKeys::new(keys).map_err(BuildError::AccessKey)?, is_development })
    }

    /// Takes the keys that were given in code, else a random one: for tests, which have no peers.
    pub(crate) fn for_tests(given: &[String]) -> Result<Self, BuildError> {
        let given: Vec<_> = given.iter().flat_map(|text| split(text)).collect();
        let keys = if given.is_empty() { vec![AccessKey::random()] } else { parse(&given)? };
        Ok(Self { keys: AccessKeys::new(keys).map_err(BuildError::AccessKey)?, is_development: false })
    }

    /// Whether the development key of this machine is used.
    pub(crate) fn is_development(&self) -> bool {
        self.is_development
    }

    /// The keys, for users' tokens and for a node inside this process.
    pub(crate) fn keys(&self) -> &AccessKeys {
        &self.keys
    }

    /// Checks the link credential of a proxy.
    pub(crate) fn check(&self, peer: Option<SocketAddr>, headers: &HeaderMap) -> Result<(), AccessError> {
        if self.is_development && peer.is_some_and(|peer| !is_loopback(peer.ip())) {
            return Err(AccessError::DevelopmentKey);
        }
        let sealed = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok()).and_then(bearer);
        let now_s = unix_seconds(SystemTime::now());
        match sealed.map(|sealed| LinkCredential::open(sealed, &self.keys, now_s)) {
            Some(Ok(_)) => Ok(()),
            Some(Err(_)) | None => Err(AccessError::Credential),
        }
    }
}

/// Reads the keys and the key files of the environment, as the proxy does.
fn from_environment() -> Result<Vec<String>, BuildError> {
    let variable = |name| split(&std::env::var(name).unwrap_or_default());
    let in_files = variable(ACCESS_KEY_FILE_VARIABLE).into_iter().map(|path| read(&path));
    variable(ACCESS_KEY_VARIABLE).into_iter().map(Ok).chain(in_files).collect()
}

fn read(path: &str) -> Result<String, BuildError> {
    std::fs::read_to_string(path).map_err(|source| BuildError::AccessKeyFile { path: path.into(), source })
}

fn split(text: &str) -> Vec<String> {
    text.split(',').map(str::trim).filter(|key| !key.is_empty()).map(str::to_owned).collect()
}

fn parse(texts: &[String]) -> Result<Vec<AccessKey>, BuildError> {
    texts.iter().map(|text| AccessKey::new(text)).collect::<Result<_, _>>().map_err(BuildError::AccessKey)
}

fn development_key() -> Result<AccessKey, BuildError> {
    let path = development_key::path().map_err(BuildError::DevelopmentKey)?;
    let key = development_key::read_or_make(&path).map_err(BuildError::DevelopmentKey)?;
    tracing::warn!(
        file = %path.display(),
        "no access key was given: the development key of this machine is used, and proxies on other machines are refused"
    );
    Ok(key)
}

fn is_loopback(ip: IpAddr) -> bool {
    ip.to_canonical().is_loopback()
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: &str = "the old key of the fleet";
    const NEW: &str = "the new key of the fleet";

    fn headers(key: &str, expires: u64) -> HeaderMap {
        let keys = AccessKeys::new(vec![AccessKey::new(key).unwrap()]).unwrap();
        let sealed = LinkCredential { node: "proxy".into(), expires }.seal(&keys);
        HeaderMap::from_iter([(AUTHORIZATION, format!("Bearer {sealed}").parse().unwrap())])
    }

    #[test]
    fn all_keys_of_a_rotation_are_accepted() {
        let access = Access::new(&[format!("{NEW}, {OLD}")]).unwrap();
        for key in [OLD, NEW] {
            assert_eq!(access.check(None, &headers(key, u64::MAX)), Ok(()));
        }
        assert_eq!(access.check(None, &headers("the key of another fleet", u64::MAX)), Err(AccessError::Credential));
        assert_eq!(access.check(None, &headers(NEW, 1)), Err(AccessError::Credential), "it has expired");
        assert_eq!(access.check(None, &HeaderMap::new()), Err(AccessError::Credential));
    }

    #[test]
    fn the_development_key_is_for_this_machine_only() {
        let access = Access { is_development: true, ..Access::new(&[NEW.to_owned()]).unwrap() };
        let headers = headers(NEW, u64::MAX);
        for local in ["127.0.0.1:1", "[::1]:1", "[::ffff:127.0.0.1]:1"] {
            assert_eq!(access.check(Some(local.parse().unwrap()), &headers), Ok(()), "{local}");
        }
        let far = access.check(Some("10.0.0.1:1".parse().unwrap()), &headers);
        assert_eq!(far, Err(AccessError::DevelopmentKey));
        assert!(far.unwrap_err().to_string().contains("TRUNKLINE_ACCESS_KEY"));
    }
}
