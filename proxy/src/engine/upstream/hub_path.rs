//! Path of a hub in a request. Escapes are decoded once, as in ASP.NET Core and in route rules.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;

/// Decodes the escapes of a path, except escaped slashes. A path with invalid UTF-8 stays unchanged.
pub(crate) fn decode(path: &str) -> Cow<'_, str> {
    if !path.contains('%') {
        return Cow::Borrowed(path);
    }
    let kept = path.replace("%2f", "%252f").replace("%2F", "%252F");
    let decoded = percent_decode_str(&kept).decode_utf8().map(Cow::into_owned);
    decoded.map_or(Cow::Borrowed(path), Cow::Owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_are_decoded_once_except_those_of_slashes() {
        for (path, expected) in [
            ("/bench", "/bench"),
            ("/b%65nch", "/bench"),
            ("/%7Eann%40home", "/~ann@home"),
            ("/caf%C3%A9", "/café"),
            ("/a%2Fb%2fc", "/a%2Fb%2fc"),
            ("/b%2565nch", "/b%65nch"),
            ("/%ff", "/%ff"),
            ("/100%", "/100%"),
        ] {
            assert_eq!(decode(path), expected, "{path}");
        }
    }
}
