//! Data types: content of the payload in a connection's data frame.

use super::RawKind;

/// Payload kind of a [`ConnectionData`](super::ConnectionData).
///
/// Numbers up to 4 come from the public service protocol. Raw messages are a Trunkline extension, because Azure's
/// service has no raw endpoints.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DataType {
    /// Number 0 or missing: hub messages of any kind.
    Unknown,
    /// Number 1: hub handshake request or response.
    Handshake,
    /// Number 2: hub message that belongs to a call.
    Invocation,
    /// Number 3: other hub message.
    Other,
    /// Number 4: close message, the last message of a connection.
    Close,
    /// Numbers 16 and 17: a message of a raw connection.
    Raw(RawKind),
    /// Number of an unknown type.
    Unnamed(i64),
}

impl DataType {
    /// Number in the service protocol.
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

    /// Returns the data type with this number.
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
    fn every_number_round_trips() {
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
