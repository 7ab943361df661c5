//! Data types: content of the payload in a connection's data frame.

/// Payload kind of a [`ConnectionData`](super::ConnectionData), with its number in the public service protocol. Raw
/// messages have numbers above these ([`RawKind`](super::RawKind)), because Azure's service has no raw endpoints.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DataType {
    /// Hub messages of any kind; also a missing number.
    Unknown = 0,
    /// Hub handshake request or response.
    Handshake = 1,
    /// Hub message that belongs to a call.
    Invocation = 2,
    /// Hub message of any other type.
    Other = 3,
    /// Close message, the last message of a connection.
    Close = 4,
}

impl DataType {
    /// Number in the service protocol.
    #[must_use]
    pub const fn number(self) -> i64 {
        self as i64
    }
}

#[cfg(test)]
mod tests {
    use super::super::RawKind;
    use super::*;

    #[test]
    fn each_type_has_its_number() {
        let types = [DataType::Unknown, DataType::Handshake, DataType::Invocation, DataType::Other, DataType::Close];
        assert_eq!(types.map(DataType::number), [0, 1, 2, 3, 4]);
        assert_eq!([RawKind::Text, RawKind::Binary].map(RawKind::data_type), [16, 17]);
        assert_eq!([16, 17].map(RawKind::from_data_type), [RawKind::Text, RawKind::Binary]);
    }
}
