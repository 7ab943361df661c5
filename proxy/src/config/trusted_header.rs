//! Trusted headers: which headers of trusted load balancers are believed.
//!
//! A header is worth something only where the balancer writes it itself. Nearly all balancers write `X-Forwarded-For`
//! and `-Proto`; many of them pass on all others as the client has sent them.

use std::sync::Arc;

/// Header by which a load balancer tells about a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TrustedHeader {
    /// `X-Forwarded-For`: the client's address.
    For,
    /// `X-Forwarded-Proto`: the scheme that the client uses.
    Proto,
    /// `X-Forwarded-Host`: the host that the client asked for.
    Host,
    /// `X-Forwarded-Prefix`: the path prefix that the balancer removed.
    Prefix,
    /// `Forwarded` (RFC 7239): address, scheme and host at once.
    Forwarded,
}

impl TrustedHeader {
    /// All of them, in the order of the documentation.
    pub const ALL: [Self; 5] = [Self::For, Self::Proto, Self::Host, Self::Prefix, Self::Forwarded];

    /// Returns the header's name in `--trust-headers`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::For => "for",
            Self::Proto => "proto",
            Self::Host => "host",
            Self::Prefix => "prefix",
            Self::Forwarded => "forwarded",
        }
    }

    /// Returns the header of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|header| header.name() == name)
    }
}

/// Error for headers that tell the same, of which a client writes the one that the balancer leaves alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "has forwarded beside for, proto or host, which tell the same: a load balancer writes one of them, and a client the \
     other. Name forwarded alone or with prefix, or leave it away"
)]
pub struct AmbiguousHeaders;

/// Headers that are believed; by default `X-Forwarded-For` and `X-Forwarded-Proto`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrustedHeaders(Arc<[TrustedHeader]>);

impl Default for TrustedHeaders {
    fn default() -> Self {
        Self([TrustedHeader::For, TrustedHeader::Proto].into())
    }
}

impl TrustedHeaders {
    /// Checks a list of headers.
    ///
    /// # Errors
    /// When two of them tell the same.
    pub fn new(headers: &[TrustedHeader]) -> Result<Self, AmbiguousHeaders> {
        let same = [TrustedHeader::For, TrustedHeader::Proto, TrustedHeader::Host];
        let is_ambiguous = headers.contains(&TrustedHeader::Forwarded) && same.iter().any(|one| headers.contains(one));
        if is_ambiguous { Err(AmbiguousHeaders) } else { Ok(Self(headers.into())) }
    }

    /// Tells whether a header is believed.
    #[must_use]
    pub fn contains(&self, header: TrustedHeader) -> bool {
        self.0.contains(&header)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn address_and_scheme_are_believed_by_default() {
        let believed = TrustedHeaders::default();
        assert!(believed.contains(TrustedHeader::For) && believed.contains(TrustedHeader::Proto));
        for header in [TrustedHeader::Host, TrustedHeader::Prefix, TrustedHeader::Forwarded] {
            assert!(!believed.contains(header), "{header:?}");
        }
    }

    #[test]
    fn the_standard_header_stands_for_itself() {
        assert!(TrustedHeaders::new(&[TrustedHeader::Forwarded, TrustedHeader::Prefix]).is_ok());
        for other in [TrustedHeader::For, TrustedHeader::Proto, TrustedHeader::Host] {
            assert_eq!(TrustedHeaders::new(&[other, TrustedHeader::Forwarded]), Err(AmbiguousHeaders), "{other:?}");
        }
    }
}
