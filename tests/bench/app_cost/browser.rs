//! Connect requests: minimal for a WebSocket, or as large as Chromium's with an authenticated user.

use std::net::SocketAddr;

use anyhow::Result;
use clap::ValueEnum;
use serde::Serialize;
use serde_json::{Value, json};
use trunkline_tests::harness::fleet::ACCESS_KEY;
use trunkline_tests::harness::token;

const HUB: &str = "/bench";

/// Headers and token of clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Dress {
    /// Required WebSocket headers, without a user.
    Minimal,
    /// Chromium's headers, and an access token with ten individual claims.
    Chromium,
}

impl Dress {
    /// Target and additional headers of a client's request.
    pub(crate) fn request(self, client: u32, address: SocketAddr) -> Result<(String, String)> {
        if self == Self::Minimal {
            return Ok((HUB.into(), String::new()));
        }
        let token = token::signed(ACCESS_KEY, &claims(client))?;
        // Browsers can't set WebSocket headers, so the official client uses the query.
        Ok((format!("{HUB}?access_token={token}"), headers(address)))
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Minimal => "minimal",
            Self::Chromium => "chromium",
        }
    }
}

fn headers(address: SocketAddr) -> String {
    format!(
        "Pragma: no-cache\r\nCache-Control: no-cache\r\n\
         User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 \
         Safari/537.36\r\n\
         Origin: http://{address}\r\nAccept-Encoding: gzip, deflate, br, zstd\r\n\
         Accept-Language: en-GB,en-US;q=0.9,en;q=0.8\r\n\
         Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n"
    )
}

fn claims(client: u32) -> Value {
    json!({
        "nameid": format!("user-{client:06}"),
        "name": format!("Ann Example {client:06}"),
        "email": format!("ann.{client:06}@mail.example"),
        "given_name": format!("Ann {client:06}"),
        "family_name": format!("Example {client:06}"),
        "role": format!("reader-{client:06}"),
        "tid": format!("72f988bf-86f1-41af-91ab-{client:012}"),
        "oid": format!("4b1f6a52-0c3d-4f0e-9a77-{client:012}"),
        "sid": format!("9d2c7e10-5b8a-4c46-8e21-{client:012}"),
        "device": format!("device-{client:06}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_claim_is_the_same_for_two_clients() {
        let (one, other) = (claims(1), claims(2));
        let (one, other) = (one.as_object().unwrap(), other.as_object().unwrap());
        assert_eq!(one.len(), 10);
        assert!(one.iter().all(|(name, value)| other[name] != *value));
    }
}
