//! Terms of a client's token: the user and the settings of the connection, as plain values.

use std::time::Duration;

use bytestring::ByteString;
use trunkline_protocol::manifest::Transport;

/// Claims with the user id in tokens of dial-in. The first claim present is used.
pub(crate) const SERVICE_USER_CLAIMS: [&str; 3] = ["asrs.s.uid", "nameid", "sub"];

/// Long form of `nameid`, which app servers may use outside of tokens.
const LONG_USER_CLAIM: &str = "http://schemas.xmlsoap.org/ws/2005/05/identity/claims/nameidentifier";

/// Range of the hub handshake timeout that a claim may set, in seconds.
const HANDSHAKE_SECONDS: std::ops::RangeInclusive<u64> = 1..=30;

/// Range of the poll timeout that a claim may set, in seconds.
const POLL_SECONDS: std::ops::RangeInclusive<u64> = 1..=300;

/// Connection settings in a client's token, apart from the user.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct ClientTerms {
    /// Timeout of the hub handshake.
    pub handshake_timeout: Option<Duration>,
    /// Timeout of a poll.
    pub poll_timeout: Option<Duration>,
    /// Allowed transports as a bit mask; `None` for all.
    transports: Option<u64>,
    /// Whether the connection closes when its authentication expires.
    pub closes_on_expiry: bool,
    /// Expiry of the authentication in seconds since 1970, if it differs from the token's expiry.
    pub authentication_ends_s: Option<u64>,
    /// Required or preferred app server.
    pub server: Option<StickyServer>,
}

/// App server that a client is bound to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StickyServer {
    pub instance: String,
    /// Whether no other app server is allowed.
    pub is_required: bool,
}

impl ClientTerms {
    /// Reads the settings from the claims of a token. Invalid values are ignored.
    pub(crate) fn of(claims: &[(impl AsRef<str>, impl AsRef<str>)]) -> Self {
        let named = |wanted: &str| claims.iter().find(|(name, _)| name.as_ref() == wanted);
        let text = |wanted: &str| named(wanted).map(|(_, value)| value.as_ref());
        let number = |wanted| text(wanted).and_then(|value| value.parse::<u64>().ok());
        let is = |wanted| text(wanted).is_some_and(|value| value.eq_ignore_ascii_case("true"));
        let seconds = |wanted, range: std::ops::RangeInclusive<u64>| {
            number(wanted).filter(|seconds| range.contains(seconds)).map(Duration::from_secs)
        };
        let sticky = text("asrs.s.ssticky").zip(text("asrs.s.sn"));
        Self {
            handshake_timeout: seconds("asrs.s.cht", HANDSHAKE_SECONDS),
            poll_timeout: seconds("asrs.s.ttl", POLL_SECONDS),
            transports: number("asrs.s.htt"),
            closes_on_expiry: is("asrs.s.coae"),
            authentication_ends_s: number("asrs.s.aeo"),
            server: sticky.map(|(mode, instance)| StickyServer {
                instance: instance.to_owned(),
                is_required: mode.eq_ignore_ascii_case("required"),
            }),
        }
    }

    pub(crate) fn allow(&self, transport: Transport) -> bool {
        let bit = match transport {
            Transport::WebSockets => 1,
            Transport::ServerSentEvents => 2,
            Transport::LongPolling => 4,
        };
        self.transports.is_none_or(|allowed| allowed & bit != 0)
    }
}

/// Returns the user id in claims that an app server sends outside of a token.
pub(crate) fn user_in_claims(claims: &[(ByteString, ByteString)]) -> Option<&str> {
    let [id, name_id, subject] = SERVICE_USER_CLAIMS;
    let value = |wanted: &str| claims.iter().find(|(name, value)| name == wanted && !value.is_empty());
    let found = [id, name_id, LONG_USER_CLAIM, subject].into_iter().find_map(value);
    found.map(|(_, value)| &**value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terms_are_read_and_those_without_sense_are_left_out() {
        let claims = |pairs: &[(&str, &str)]| {
            ClientTerms::of(
                &pairs.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect::<Vec<(String, String)>>(),
            )
        };
        let terms = claims(&[
            ("asrs.s.cht", "20"),
            ("asrs.s.ttl", "5"),
            ("asrs.s.htt", "5"),
            ("asrs.s.coae", "True"),
            ("asrs.s.aeo", "77"),
            ("asrs.s.sn", "vm_1"),
            ("asrs.s.ssticky", "Required"),
        ]);
        assert_eq!(terms.handshake_timeout, Some(Duration::from_secs(20)));
        assert_eq!(terms.poll_timeout, Some(Duration::from_secs(5)));
        assert_eq!(Transport::ALL.map(|transport| terms.allow(transport)), [true, false, true]);
        assert!(terms.closes_on_expiry && terms.server.unwrap().is_required);
        let none = claims(&[("asrs.s.cht", "31"), ("asrs.s.ttl", "0"), ("asrs.s.sn", "vm_1")]);
        assert_eq!(none, ClientTerms::default());
        assert!(Transport::ALL.iter().all(|transport| none.allow(*transport)));
    }
}
