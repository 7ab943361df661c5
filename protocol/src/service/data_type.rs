//! Data types: what the payload of a connection's data frame holds.

use super::RawKind;

/// Kind of payload of a [`ConnectionData`](super::ConnectionData).
///
/// The numbers up to 4 are those of the public service protocol. The kinds of raw messages are between our two ends
/// only, because Azure's service has no raw endpoints.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DataType {
    /// Number 0, and the meaning of no number at all: hub messages of any kind.
    Unknown,
    /// Number 1: a hub handshake, request or response.
    Handshake,
    /// Number 2: a hub message that belongs to a call.
    Invocation,
    /// Number 3: any other hub message.
    Other,
    /// Number 4: the close message, after which nothing comes.
    Close,
    /// Numbers 16 and 17: one message of a raw connection.
    Raw(RawKind),
    /// A number that this version does not know.
    Unnamed(i64),
}

impl DataType {
    /// Returns the number of the service protocol.
    #[must_use]
    pub const fn number(self) -> i64 {
        match self {
            Self::Unknown => 0,
            Self::Handshake => 1,
            Self::Invocation => 2,
            Self::Other => 3,
            Self::Close => 4,
            Self::Raw(RawKind::Text) => 16,
            Self::Raw(RawKind::Binary) => 17,
            Self::Unnamed(number) => number,
        }
    }

    /// Returns the data type of a number.
    #[must_use]
    pub const fn from_number(number: i64) -> Self {
        match number {
            0 => Self::Unknown,
            1 => Self::Handshake,
            2 => Self::Invocation,
            3 => Self::Other,
            4 => Self::Close,
            16 => Self::Raw(RawKind::Text),
            17 => Self::Raw(RawKind::Binary),
            number => Self::Unnamed(number),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_comes_back() {
        for number in -1..=20 {
            assert_eq!(DataType::from_number(number).number(), number);
        }
    }

    #[test]
    fn raw_kinds_have_their_numbers() {
        for kind in [RawKind::Text, RawKind::Binary] {
            assert_eq!(DataType::Raw(kind).number(), kind.data_type());
        }
    }
}
