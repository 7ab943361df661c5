//! Items of a connecting client's request that a webhook may receive.

use std::str::FromStr;

use http::HeaderName;
use http::header::{AUTHORIZATION, COOKIE};

/// Item of a client's request, named by the operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConnectItem {
    /// Address of the client.
    Address,
    /// Values of a header.
    Header(HeaderName),
    /// Value of a cookie.
    Cookie(String),
}

/// Error of parsing an item.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConnectItemError {
    /// Unknown kind of item.
    #[error("{0:?} is not `address`, `header:NAME` or `cookie:NAME`")]
    Kind(String),
    /// Invalid name of a header.
    #[error("{0:?} is not the name of a header")]
    Header(String),
    /// Invalid name of a cookie.
    #[error("{0:?} is not the name of a cookie")]
    Cookie(String),
    /// Credentials of all kinds at once.
    #[error("the header {0:?} is not passed on: name each cookie by `cookie:NAME`; nodes check access tokens")]
    Credentials(String),
}

impl FromStr for ConnectItem {
    type Err = ConnectItemError;

    fn from_str(text: &str) -> Result<Self, ConnectItemError> {
        let text = text.trim();
        match text.split_once(':') {
            None if text.eq_ignore_ascii_case("address") => Ok(Self::Address),
            Some(("header", name)) => {
                let header: HeaderName = name.parse().map_err(|_| ConnectItemError::Header(name.to_owned()))?;
                let is_of_node =
                    ["x-trunkline-", "x-asrs-", "asrs-"].iter().any(|prefix| header.as_str().starts_with(prefix));
                if is_of_node || [AUTHORIZATION, COOKIE].contains(&header) {
                    return Err(ConnectItemError::Credentials(name.to_owned()));
                }
                Ok(Self::Header(header))
            }
            Some(("cookie", name)) => {
                let is_token = |byte: u8| byte.is_ascii_graphic() && !b"=;,\"\\".contains(&byte);
                let is_name = !name.is_empty() && name.bytes().all(is_token);
                is_name.then(|| Self::Cookie(name.to_owned())).ok_or_else(|| ConnectItemError::Cookie(name.to_owned()))
            }
            _ => Err(ConnectItemError::Kind(text.to_owned())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_item_is_an_address_a_header_or_a_cookie() {
        let read = |text: &str| text.parse::<ConnectItem>().map_err(|error| error.to_string());
        assert_eq!(read("address"), Ok(ConnectItem::Address));
        assert_eq!(read("header:User-Agent"), Ok(ConnectItem::Header("user-agent".parse().unwrap())));
        assert_eq!(read("cookie:sid"), Ok(ConnectItem::Cookie("sid".into())));
        for (text, problem) in [
            ("sid", "\"sid\" is not `address`, `header:NAME` or `cookie:NAME`"),
            ("header:a b", "is not the name of a header"),
            ("cookie:a=b", "is not the name of a cookie"),
            ("header:Cookie", "name each cookie by `cookie:NAME`"),
            ("header:Authorization", "nodes check access tokens"),
        ] {
            let told = read(text).unwrap_err();
            assert!(told.contains(problem), "{text}: {told}");
        }
    }
}
