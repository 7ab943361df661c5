//! Flags of access tokens.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use http::Uri;
use tracing::warn;
use trunkline_protocol::limits::CLOCK_SKEW_S;
use trunkline_proxy::parts::{
    ClientTls, JwksError, JwksSource, SecretFileError, TokenKeySources, TokenPolicy, is_loopback_host,
};

use super::value_parser::{bytes, seconds, whole_seconds};
use crate::logging::LOG_TARGET;
use crate::quantity::duration_text;

#[derive(Debug, Clone, Args)]
pub(crate) struct TokenArgs {
    /// A file with a secret that signs access tokens by HS256, beside the access keys, which do so too. May be given
    /// several times: so a secret is changed without a gap. The files are read again when they change, and on SIGHUP.
    #[arg(long = "jwt-secret-file", env = "TRUNKLINE_JWT_SECRET_FILE", value_name = "FILE", value_delimiter = ',')]
    pub jwt_secret_files: Vec<PathBuf>,

    /// A PEM file with a public key that verifies access tokens: RS256 for an RSA key, ES256 for one on the curve
    /// P-256. May be given several times. The files are read again when they change, and on SIGHUP.
    #[arg(long = "jwt-public-key", env = "TRUNKLINE_JWT_PUBLIC_KEY", value_name = "FILE", value_delimiter = ',')]
    pub jwt_public_keys: Vec<PathBuf>,

    /// A file or an https:// URL with the public keys of an issuer (JWKS), for RS256 and ES256. With the issuer before
    /// it, as in `https://issuer.example=https://issuer.example/jwks.json`, the keys verify tokens of this `iss` alone,
    /// and no other keys do. May be given several times.
    #[arg(long = "jwt-jwks", env = "TRUNKLINE_JWT_JWKS", value_name = "[ISSUER=]FILE|URL", value_delimiter = ',')]
    pub jwt_jwks: Vec<String>,

    /// Certificates that https:// issuers of key sets may be signed by, a PEM file. May be given several times.
    /// [default: those that the system trusts]
    #[arg(long = "jwt-jwks-ca", env = "TRUNKLINE_JWT_JWKS_CA", value_name = "FILE", value_delimiter = ',')]
    pub jwt_jwks_cas: Vec<PathBuf>,

    /// How often key sets are read again. When that fails, the last good keys are kept.
    #[arg(long, env = "TRUNKLINE_JWT_JWKS_REFRESH", value_name = "SECONDS", default_value = "5m",
          value_parser = seconds(1..=86_400))]
    pub jwt_jwks_refresh: Duration,

    /// A token with a key id that is in no set makes the sets be read early, but only this long after the last time.
    #[arg(long, env = "TRUNKLINE_JWT_JWKS_REFETCH", value_name = "SECONDS", default_value = "10s",
          value_parser = seconds(0..=86_400))]
    pub jwt_jwks_refetch: Duration,

    #[arg(
        help = "Who may issue access tokens (`iss`), those signed with access keys included, beside the issuers that \
              --jwt-jwks names. May be given several times. \
              [default: anybody]",
        long = "jwt-issuer",
        env = "TRUNKLINE_JWT_ISSUER",
        value_name = "ISSUER",
        value_delimiter = ','
    )]
    pub jwt_issuers: Vec<String>,

    /// For whom access tokens may be (`aud`), those signed with access keys included. May be given several times.
    /// [default: for anybody]
    #[arg(long = "jwt-audience", env = "TRUNKLINE_JWT_AUDIENCE", value_name = "AUDIENCE", value_delimiter = ',')]
    pub jwt_audiences: Vec<String>,

    /// How far the clock of an issuer may differ.
    #[arg(long, env = "TRUNKLINE_JWT_CLOCK_SKEW", value_name = "SECONDS", default_value = duration_text(Duration::from_secs(CLOCK_SKEW_S)),
          value_parser = whole_seconds::<u64>(0..=3600))]
    pub jwt_clock_skew: u64,

    /// Largest access token that is taken.
    #[arg(long, env = "TRUNKLINE_JWT_MAX_BYTES", value_name = "BYTES", default_value = "8KiB",
          value_parser = bytes::<u16>(256..=24 * 1024))]
    pub jwt_max_bytes: u16,

    /// The claim that holds the user id. Given several times, the first that is there counts. [default: nameid, sub,
    /// and the long name of .NET's `ClaimTypes.NameIdentifier`]
    #[arg(long = "user-claim", env = "TRUNKLINE_USER_CLAIM", value_name = "CLAIM", value_delimiter = ',')]
    pub user_claims: Vec<String>,

    /// Lets nobody in without a user, whatever the hubs say.
    #[arg(long, env = "TRUNKLINE_REQUIRE_AUTHENTICATION")]
    pub require_authentication: bool,
}

/// Error in the flags of access tokens.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TokenArgsError {
    #[error(transparent)]
    KeyFile(#[from] SecretFileError),
    #[error("--jwt-jwks {path} {source}")]
    Jwks { path: PathBuf, source: JwksError },
    #[error("--jwt-jwks {value:?} is neither a file nor a URL like https://issuer.example/jwks.json")]
    Url { value: String },
}

impl TokenArgs {
    /// Returns the key files.
    pub(super) fn sources(&self) -> TokenKeySources {
        TokenKeySources { secrets: self.jwt_secret_files.clone(), public_keys: self.jwt_public_keys.clone() }
    }

    /// Returns the TLS settings for issuers of key sets.
    pub(super) fn issuer_tls(&self) -> ClientTls {
        ClientTls { roots: self.jwt_jwks_cas.clone(), identity: None }
    }
}

impl TryFrom<TokenArgs> for TokenPolicy {
    type Error = TokenArgsError;

    fn try_from(args: TokenArgs) -> Result<Self, TokenArgsError> {
        let keys = args.sources().read()?;
        let jwks = args.jwt_jwks.into_iter().map(jwks).collect::<Result<Vec<_>, _>>()?;
        let (sources, issuers) = (keys.len() + jwks.len(), args.jwt_issuers.len());
        if sources > 1 && issuers > 1 && jwks.iter().all(|(issuer, _)| issuer.is_none()) {
            warn!(
                target: LOG_TARGET, sources, issuers,
                "each source of keys may sign for each --jwt-issuer: name the issuer of a set by --jwt-jwks ISSUER=URL"
            );
        }
        let user_claims = if args.user_claims.is_empty() { Self::default_user_claims() } else { args.user_claims };
        Ok(Self {
            keys,
            jwks,
            jwks_refresh: args.jwt_jwks_refresh,
            jwks_refetch: args.jwt_jwks_refetch,
            issuers: args.jwt_issuers,
            audiences: args.jwt_audiences,
            clock_skew_s: args.jwt_clock_skew,
            user_claims,
            max_bytes: args.jwt_max_bytes.into(),
            is_required: args.require_authentication,
        })
    }
}

/// Returns the part of a rejected URL that is safe to show: the query may contain a key, and the part before `@` a
/// password.
fn shown(value: &str) -> String {
    let (scheme, rest) = value.split_once("://").unwrap_or(("", value));
    let rest = rest.split(['?', '#']).next().unwrap_or_default();
    format!("{scheme}://{}", rest.rsplit('@').next().unwrap_or_default())
}

/// Parses a source of a key set, and the optional issuer before it. A `=` in a query or file name is not a separator.
fn jwks(value: String) -> Result<(Option<String>, JwksSource), TokenArgsError> {
    let (issuer, source) = value.split_once('=').unwrap_or_default();
    match issuer.is_empty() || issuer.contains('?') || Path::new(&value).exists() {
        true => Ok((None, key_set(value)?)),
        false => Ok((Some(issuer.trim().to_owned()), key_set(source.trim().to_owned())?)),
    }
}

/// Parses a source of a key set. A file must be valid at startup; an issuer may become available later.
fn key_set(value: String) -> Result<JwksSource, TokenArgsError> {
    if !value.contains("://") {
        let path = PathBuf::from(value);
        let source = JwksSource::File(path.clone());
        source.read_file().map_err(|source| TokenArgsError::Jwks { path, source })?;
        return Ok(source);
    }
    let url = value.parse::<Uri>().ok().filter(|url| matches!(url.scheme_str(), Some("http" | "https")));
    // A user name would not be sent, and its password would appear in logs.
    let host =
        url.as_ref().and_then(Uri::authority).filter(|host| !host.host().is_empty() && !host.as_str().contains('@'));
    let Some((url, host)) = url.as_ref().zip(host) else { return Err(TokenArgsError::Url { value: shown(&value) }) };
    let source = JwksSource::Url(url.clone());
    if url.scheme_str() == Some("http") && !is_loopback_host(host.as_str()) {
        warn!(target: LOG_TARGET, jwks = %source, "keys are fetched without TLS: whoever is on the way can let in whom he wants");
    }
    Ok(source)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_issuer_is_what_stands_before_the_first_equals_sign_of_no_query_and_no_file() {
        let parsed = |text: &str| jwks(text.to_owned()).map(|(issuer, source)| (issuer, source.to_string()));
        for alone in ["https://a.example/keys", "https://a.example/keys?v=1&u=https://b.example"] {
            assert_eq!(parsed(alone).unwrap().0, None, "{alone}");
        }
        let named = parsed("https://a.example/t = https://b.example/keys?v=1").unwrap();
        assert_eq!(named, (Some("https://a.example/t".to_owned()), "https://b.example/keys?…".to_owned()));
        let point = ("MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4", "4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM");
        let set = format!(r#"{{"keys":[{{"kty":"EC","crv":"P-256","x":"{}","y":"{}"}}]}}"#, point.0, point.1);
        let file = std::env::temp_dir().join(format!("trunkline-key=set-{}", std::process::id()));
        std::fs::write(&file, set).unwrap();
        let file = file.to_str().unwrap();
        assert_eq!(parsed(file).unwrap(), (None, file.to_owned()));
        assert_eq!(parsed(&format!("https://a.example={file}")).unwrap().0.as_deref(), Some("https://a.example"));
        std::fs::remove_file(file).unwrap();
        assert!(parsed(file).is_err() && parsed("=keys.json").is_err());
    }
}
