//! Flags of access tokens.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{anyhow, bail};
use clap::Args;
use trunkline_protocol::limits::CLOCK_SKEW_S;
use trunkline_proxy::parts::{ClientTls, JwksSource, TokenKeySources, TokenPolicy};

use super::value_parser::{bytes, seconds, whole_seconds};
use crate::quantity::duration_text;

#[derive(Debug, Clone, Args)]
pub(crate) struct TokenArgs {
    /// File with a secret that signs access tokens with HS256, in addition to the access keys. May be given several
    /// times, for a rotation without interruption. Reloaded when it changes, and on SIGHUP.
    #[arg(long = "jwt-secret-file", env = "TRUNKLINE_JWT_SECRET_FILE", value_name = "FILE", value_delimiter = ',')]
    pub jwt_secret_files: Vec<PathBuf>,

    /// PEM file with a public key that verifies access tokens: RSA (RS256 to PS512), P-256 (ES256), P-384 (ES384) or
    /// Ed25519 (EdDSA). May be given several times. Reloaded when it changes, and on SIGHUP.
    #[arg(long = "jwt-public-key", env = "TRUNKLINE_JWT_PUBLIC_KEY", value_name = "FILE", value_delimiter = ',')]
    pub jwt_public_keys: Vec<PathBuf>,

    /// File or https:// URL with the public keys of the issuer (JWKS). May be given several times. Files are reloaded
    /// when they change, and all sets on SIGHUP. A second issuer needs a table `[issuers.NAME]` in the configuration
    /// file.
    #[arg(long = "jwt-jwks", env = "TRUNKLINE_JWT_JWKS", value_name = "FILE|URL", value_delimiter = ',')]
    pub jwt_jwks: Vec<String>,

    /// PEM file with CA certificates for https:// URLs of key sets. May be given several times. [default: those that
    /// the system trusts]
    #[arg(long = "jwt-jwks-ca", env = "TRUNKLINE_JWT_JWKS_CA", value_name = "FILE", value_delimiter = ',')]
    pub jwt_jwks_cas: Vec<PathBuf>,

    /// Interval at which key sets are read again. If that fails, the last good keys are kept.
    #[arg(long, env = "TRUNKLINE_JWT_JWKS_REFRESH", value_name = "SECONDS", default_value = "5m",
          value_parser = seconds(1..=86_400))]
    pub jwt_jwks_refresh: Duration,

    /// Minimum interval between early refetches of key sets, which tokens with an unknown key id cause.
    #[arg(long, env = "TRUNKLINE_JWT_JWKS_REFETCH", value_name = "SECONDS", default_value = "10s",
          value_parser = seconds(0..=86_400))]
    pub jwt_jwks_refetch: Duration,

    #[arg(
        help = "The issuer (`iss`) that access tokens must have, those signed with access keys included. Further \
              issuers have tables `[issuers.NAME]` in the configuration file. [default: any that has no table]",
        long = "jwt-issuer",
        env = "TRUNKLINE_JWT_ISSUER",
        value_name = "ISSUER",
        value_delimiter = '\n'
    )]
    pub jwt_issuers: Vec<String>,

    /// Accepted audience (`aud`) of access tokens, including tokens signed with access keys. May be given several
    /// times, in the environment variable one on each line: a comma is part of the audience. [default: any]
    #[arg(long = "jwt-audience", env = "TRUNKLINE_JWT_AUDIENCE", value_name = "AUDIENCE", value_delimiter = '\n')]
    pub jwt_audiences: Vec<String>,

    /// Tolerated difference between the clocks of an issuer and this node.
    #[arg(long, env = "TRUNKLINE_JWT_CLOCK_SKEW", value_name = "SECONDS", default_value = duration_text(Duration::from_secs(CLOCK_SKEW_S)),
          value_parser = whole_seconds::<u64>(0..=3600))]
    pub jwt_clock_skew: u64,

    /// Maximum size of an access token.
    #[arg(long, env = "TRUNKLINE_JWT_MAX_BYTES", value_name = "BYTES", default_value = "8KiB",
          value_parser = bytes::<u16>(256..=24 * 1024))]
    pub jwt_max_bytes: u16,

    /// Claim that holds the user id. May be given several times, in the environment variable one on each line: the
    /// first one in a token is used. [default: nameid, sub, and the long name of .NET's `ClaimTypes.NameIdentifier`]
    #[arg(long = "user-claim", env = "TRUNKLINE_USER_CLAIM", value_name = "CLAIM", value_delimiter = '\n')]
    pub user_claims: Vec<String>,

    /// Refuse clients without a user, even if their hub allows them.
    #[arg(long, env = "TRUNKLINE_REQUIRE_AUTHENTICATION")]
    pub require_authentication: bool,
}

impl TokenArgs {
    pub(super) fn sources(&self) -> TokenKeySources {
        let key_sets = self.jwt_jwks.iter().filter(|source| !source.contains("://")).map(PathBuf::from).collect();
        TokenKeySources { secrets: self.jwt_secret_files.clone(), public_keys: self.jwt_public_keys.clone(), key_sets }
    }

    pub(super) fn issuer_tls(&self) -> ClientTls {
        ClientTls { roots: self.jwt_jwks_cas.clone(), identity: None }
    }
}

impl TryFrom<TokenArgs> for TokenPolicy {
    type Error = anyhow::Error;

    fn try_from(args: TokenArgs) -> anyhow::Result<Self> {
        let keys = args.sources().read()?;
        let wrong = |problem: String| anyhow!("--jwt-jwks {problem}");
        let jwks = args.jwt_jwks.iter().map(|text| text.parse().map_err(wrong));
        let jwks = jwks.collect::<anyhow::Result<Vec<JwksSource>>>()?;
        let mut issuers = args.jwt_issuers.into_iter();
        let issuer = issuers.next();
        if let Some((one, other)) = issuer.clone().zip(issuers.next()) {
            // A second issuer has keys of its own, and flags make no pairs.
            bail!(
                "--jwt-issuer is {one:?} and {other:?}, but flags describe one issuer: define further issuers by tables \
                 [issuers.NAME] with issuer, keys or jwks, audiences and hubs in the file of --config"
            );
        }
        let user_claims = if args.user_claims.is_empty() { Self::default_user_claims() } else { args.user_claims };
        Ok(Self {
            keys,
            jwks,
            jwks_refresh: args.jwt_jwks_refresh,
            jwks_refetch: args.jwt_jwks_refetch,
            issuer,
            audiences: args.jwt_audiences,
            clock_skew_s: args.jwt_clock_skew,
            user_claims,
            max_bytes: args.jwt_max_bytes.into(),
            is_required: args.require_authentication,
        })
    }
}
