//! Encoding of values: the hub protocol of a connection and the naming of its hub.

use serde::Serialize;
use serde::de::DeserializeOwned;
use trunkline_protocol::hub::{HubProtocol, Payload, PayloadError};

use super::deserializer::CaseBlind;
use super::serializer::Renamed;

/// Naming of fields and enums on the wire. See the [module](crate::naming) for the differences.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Naming {
    /// Names as serde derives them, in both hub protocols.
    #[default]
    Serde,
    /// Names that .NET clients expect by default: camelCase and enums as numbers in JSON, PascalCase and enums as
    /// texts in MessagePack; input is case-insensitive.
    DotNet,
}

/// Encoder and decoder of values for a client.
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

    pub(crate) fn payload<T: Serialize + ?Sized>(self, value: &T) -> Result<Payload, PayloadError> {
        match self.naming {
            Naming::Serde => self.protocol.payload(value),
            Naming::DotNet => self.protocol.payload(&Renamed(value)),
        }
    }

    pub(crate) fn value<T: DeserializeOwned>(self, payload: &Payload) -> Result<T, PayloadError> {
        match self.naming {
            Naming::Serde => self.protocol.value(payload),
            Naming::DotNet => self.protocol.value(payload).map(|CaseBlind(value)| value),
        }
    }
}
