//! Access of proxies: the fleet's keys, the machines that may use them, and the host names for dialling this app
//! server.

use std::net::{IpAddr, SocketAddr};

use trunkline_protocol::development_key;
use trunkline_protocol::host_pattern::HostPattern;
use trunkline_protocol::key::{ACCESS_KEY_FILE_VARIABLE, ACCESS_KEY_VARIABLE, AccessKey, AccessKeys};

use crate::error::BuildError;

/// Environment variable with the host names that proxies dial, separated by commas.
const DIALLED_AS_VARIABLE: &str = "TRUNKLINE_DIALLED_AS";

#[derive(Debug)]
pub(crate) struct Access {
    /// Keys for users' tokens and for an embedded node.
    pub(crate) keys: AccessKeys,
    pub(crate) is_development: bool,
    /// Host names that proxies may dial; empty for any.
    names: Vec<HostPattern>,
}

/// Reason for refusing a peer. The text is the response.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum AccessError {
    #[error(
        "this app server has only the development key, which proxies on the same machine share: give the app server \
         and its proxies an access key (TRUNKLINE_ACCESS_KEY; `trunkline token key` makes one)"
    )]
    DevelopmentKey,
    #[error("the access key does not match this app server's: give both ends the same key (TRUNKLINE_ACCESS_KEY)")]
    Key,
    #[error(
        "the dialled name is not a name of this app server: see its `Server::dialled_as` (TRUNKLINE_DIALLED_AS), and \
         the DNS entry of the name"
    )]
    Name,
}

impl Access {
    /// Takes the keys given in code, else from the environment, else of the dialled services, else the development key.
    pub(crate) fn new(given: &[String], dialled: Vec<AccessKey>) -> Result<Self, BuildError> {
        let given: Vec<_> = given.iter().flat_map(|text| split(text)).collect();
        let texts = if given.is_empty() { from_environment()? } else { given };
        let known = if texts.is_empty() { dialled } else { parse(&texts)? };
        let is_development = known.is_empty();
        let keys = if is_development { vec![development_key()?] } else { known };
        Ok(Self { keys: AccessKeys::new(keys).map_err(BuildError::AccessKey)?, is_development, names: Vec::new() })
    }

    /// Takes the keys given in code, else a random key: for tests without peers.
    pub(crate) fn for_tests(given: &[String]) -> Result<Self, BuildError> {
        let given: Vec<_> = given.iter().flat_map(|text| split(text)).collect();
        let keys = if given.is_empty() { vec![AccessKey::random()] } else { parse(&given)? };
        let keys = AccessKeys::new(keys).map_err(BuildError::AccessKey)?;
        Ok(Self { keys, is_development: false, names: Vec::new() })
    }

    /// Takes the host names given in code, else from the environment, else any.
    pub(crate) fn named(self, given: &[String]) -> Result<Self, BuildError> {
        let given: Vec<_> = given.iter().flat_map(|text| split(text)).collect();
        let texts = if given.is_empty() { variable(DIALLED_AS_VARIABLE) } else { given };
        let parse = |host: String| match host.parse() {
            Ok(name) => Ok(name),
            Err(problem) => Err(BuildError::DialledAs { host, problem }),
        };
        Ok(Self { names: texts.into_iter().map(parse).collect::<Result<_, _>>()?, ..self })
    }

    /// Refuses a peer on another machine if only the development key is used.
    pub(crate) fn check_peer(&self, peer: Option<SocketAddr>) -> Result<(), AccessError> {
        match peer {
            Some(peer) if self.is_development && !is_loopback(peer.ip()) => Err(AccessError::DevelopmentKey),
            _ => Ok(()),
        }
    }

    /// Refuses a proxy that dialled the name of another app server.
    pub(crate) fn check_name(&self, dialled: &str) -> Result<(), AccessError> {
        let is_own = self.names.is_empty() || self.names.iter().any(|name| name.names(dialled));
        if is_own { Ok(()) } else { Err(AccessError::Name) }
    }
}

/// Reads the keys and key files of the environment, like the proxy.
fn from_environment() -> Result<Vec<String>, BuildError> {
    let in_files = variable(ACCESS_KEY_FILE_VARIABLE).into_iter().map(|path| read_secret_file(&path));
    variable(ACCESS_KEY_VARIABLE).into_iter().map(Ok).chain(in_files).collect()
}

fn variable(name: &str) -> Vec<String> {
    split(&std::env::var(name).unwrap_or_default())
}

fn read_secret_file(path: &str) -> Result<String, BuildError> {
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
        "no access key was given: the development key of this machine is used, and proxies on other machines are \
         refused"
    );
    Ok(key)
}

fn is_loopback(ip: IpAddr) -> bool {
    ip.to_canonical().is_loopback()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(hosts: &[&str]) -> Result<Access, BuildError> {
        let hosts: Vec<_> = hosts.iter().map(ToString::to_string).collect();
        Access::new(&["a key that is long enough".to_owned()], Vec::new()).unwrap().named(&hosts)
    }

    #[test]
    fn an_app_server_answers_for_the_names_that_it_was_given_or_for_all() {
        let access = named(&["shop, *.shop.svc", "10.0.0.7"]).unwrap();
        for own in ["shop:5000", "a.shop.svc:5000", "10.0.0.7:5000"] {
            assert_eq!(access.check_name(own), Ok(()), "{own}");
        }
        for other in ["chat:5000", "10.0.0.8:5000", "127.0.0.1:5000"] {
            assert_eq!(access.check_name(other), Err(AccessError::Name), "{other}");
        }
        assert_eq!(named(&[]).unwrap().check_name("chat:5000"), Ok(()));
        let wrong = named(&["shop:5000"]).unwrap_err().to_string();
        assert!(wrong.contains("dialled_as") && wrong.contains("without scheme and port"), "{wrong}");
    }

    #[test]
    fn a_key_file_with_a_mark_holds_the_key_and_one_with_a_comment_is_refused() {
        let file = std::env::temp_dir().join(format!("trunkline-sdk-marked-{}.key", std::process::id()));
        let keys_of = |text: &str| {
            std::fs::write(&file, text).unwrap();
            parse(&[read_secret_file(file.to_str().unwrap()).unwrap()])
        };
        let keys = keys_of("\u{feff}a-key-that-is-long-enough\r\n").unwrap();
        assert_eq!(keys, [AccessKey::new("a-key-that-is-long-enough").unwrap()]);
        let problem = keys_of("# ours\na-key-that-is-long-enough\n").unwrap_err().to_string();
        std::fs::remove_file(&file).unwrap();
        assert!(problem.contains("one key in a file, without comments"), "{problem}");
    }

    #[test]
    fn the_development_key_is_for_this_machine_only() {
        let access = Access {
            is_development: true,
            ..Access::new(&["a key that is long enough".to_owned()], Vec::new()).unwrap()
        };
        for local in ["127.0.0.1:1", "[::1]:1", "[::ffff:127.0.0.1]:1"] {
            assert_eq!(access.check_peer(Some(local.parse().unwrap())), Ok(()), "{local}");
        }
        let far = access.check_peer(Some("10.0.0.1:1".parse().unwrap()));
        assert_eq!(far, Err(AccessError::DevelopmentKey));
        assert!(far.unwrap_err().to_string().contains("TRUNKLINE_ACCESS_KEY"));
    }
}
