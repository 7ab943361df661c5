//! Trusted headers: the headers accepted from trusted load balancers.
//!
//! A header is trustworthy only if the balancer sets it. Nearly all balancers set `X-Forwarded-For` and `-Proto`; many
//! pass other headers through from the client unchanged.

use std::sync::Arc;

/// Header with which a load balancer describes a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TrustedHeader {
    /// `X-Forwarded-For`: address of the client.
    For,
    /// `X-Forwarded-Proto`: scheme of the client's request.
    Proto,
    /// `X-Forwarded-Host`: host of the client's request.
    Host,
    /// `X-Forwarded-Prefix`: path prefix removed by the balancer.
    Prefix,
    /// `Forwarded` (RFC 7239): address, scheme and host together.
    Forwarded,
}

impl TrustedHeader {
    /// All headers in the order of the documentation.
    pub const ALL: [Self; 5] = [Self::For, Self::Proto, Self::Host, Self::Prefix, Self::Forwarded];

    /// Returns the name used in `--trust-headers`.
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

    /// Returns the header with this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|header| header.name() == name)
    }
}

/// Error for headers with overlapping content: a client could set the header that the balancer does not overwrite.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "has forwarded together with for, proto or host, which mean the same: a load balancer writes one kind, and a \
     client could forge the other. Use forwarded alone or with prefix, or omit it"
)]
pub struct AmbiguousHeaders;

/// Trusted headers; `X-Forwarded-For` and `X-Forwarded-Proto` by default.
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
    /// If two headers overlap.
    pub fn new(headers: &[TrustedHeader]) -> Result<Self, AmbiguousHeaders> {
        let same = [TrustedHeader::For, TrustedHeader::Proto, TrustedHeader::Host];
        let is_ambiguous = headers.contains(&TrustedHeader::Forwarded) && same.iter().any(|one| headers.contains(one));
        if is_ambiguous { Err(AmbiguousHeaders) } else { Ok(Self(headers.into())) }
    }

    /// Returns whether a header is trusted.
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
