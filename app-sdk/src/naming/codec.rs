//! Encoding of values: the hub protocol of a connection, and the naming of its hub.

use serde::Serialize;
use serde::de::DeserializeOwned;
use trunkline_protocol::hub::{HubProtocol, Payload, PayloadError};

use super::deserializer::CaseBlind;
use super::serializer::Renamed;

/// Choice of a hub how fields and enums are named on the wire. See the [module](crate::naming) for what differs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Naming {
    /// Names as serde has them, in both hub protocols.
    #[default]
    Serde,
    /// Names that .NET clients expect without any option of theirs: camelCase and enums as numbers in JSON, PascalCase
    /// and enums as texts in MessagePack, read in any case.
    DotNet,
}

/// How values are written for a client and read from it.
#[doc(hidden)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Codec {
    protocol: HubProtocol,
    naming: Naming,
}

impl Codec {
    pub(crate) fn new(protocol: HubProtocol, naming: Naming) -> Self {
        Self { protocol, naming }
    }

    pub(crate) fn protocol(self) -> HubProtocol {
        self.protocol
    }

    /// Encodes a value in the names of the hub.
    pub(crate) fn payload<T: Serialize + ?Sized>(self, value: &T) -> Result<Payload, PayloadError> {
        match self.naming {
            Naming::Serde => self.protocol.payload(value),
            Naming::DotNet => self.protocol.payload(&Renamed(value)),
        }
    }

    /// Reads an encoded value in the names of the hub.
    pub(crate) fn value<T: DeserializeOwned>(self, payload: &Payload) -> Result<T, PayloadError> {
        match self.naming {
            Naming::Serde => self.protocol.value(payload),
            Naming::DotNet => self.protocol.value(payload).map(|CaseBlind(value)| value),
        }
    }
}
