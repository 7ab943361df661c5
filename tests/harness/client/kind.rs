//! Client libraries and their host programs.

use crate::harness::dotnet;

/// Client library with a hub protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Official JavaScript client with JSON.
    JsJson,
    /// Official JavaScript client with MessagePack.
    JsMessagePack,
    /// Python library `pysignalr` with JSON.
    PySignalRJson,
    /// Python library `pysignalr` with MessagePack.
    PySignalRMessagePack,
    /// Python library `signalrcore` with JSON.
    SignalRCoreJson,
    /// Python library `signalrcore` with MessagePack.
    SignalRCoreMessagePack,
    /// Official Java client with JSON.
    JavaJson,
    /// Go library `philippseith/signalr` with JSON.
    GoJson,
    /// Go library `philippseith/signalr` with MessagePack.
    GoMessagePack,
    /// Official .NET client with JSON, if .NET programs are available.
    NetJson,
    /// Official .NET client with MessagePack, if .NET programs are available.
    NetMessagePack,
}

/// Program that hosts the clients of a kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Host {
    Node,
    Python,
    Java,
    Go,
    DotNet,
}

impl Kind {
    /// Official JavaScript client with each hub protocol.
    pub const JS: [Kind; 2] = [Kind::JsJson, Kind::JsMessagePack];

    /// Kinds used in every scenario.
    pub const ALL: [Kind; 4] = [Kind::JsJson, Kind::JsMessagePack, Kind::PySignalRJson, Kind::PySignalRMessagePack];

    /// Kinds other than JavaScript and Python. Without .NET programs, .NET is skipped with a note.
    ///
    /// # Panics
    /// If the archive of .NET programs can't be unpacked.
    #[must_use]
    pub fn others() -> Vec<Kind> {
        let net = dotnet::found().map(|_| [Kind::NetJson, Kind::NetMessagePack]);
        let others = [Kind::JavaJson, Kind::GoJson, Kind::GoMessagePack];
        others.into_iter().chain(net.into_iter().flatten()).collect()
    }

    /// Hub protocol as named in handshakes.
    #[must_use]
    pub fn protocol(self) -> &'static str {
        match self {
            Kind::JsJson
            | Kind::PySignalRJson
            | Kind::SignalRCoreJson
            | Kind::JavaJson
            | Kind::GoJson
            | Kind::NetJson => "json",
            Kind::JsMessagePack
            | Kind::PySignalRMessagePack
            | Kind::SignalRCoreMessagePack
            | Kind::GoMessagePack
            | Kind::NetMessagePack => "messagepack",
        }
    }

    pub(super) fn host(self) -> Host {
        match self {
            Kind::JsJson | Kind::JsMessagePack => Host::Node,
            Kind::PySignalRJson | Kind::PySignalRMessagePack | Kind::SignalRCoreJson | Kind::SignalRCoreMessagePack => {
                Host::Python
            }
            Kind::JavaJson => Host::Java,
            Kind::GoJson | Kind::GoMessagePack => Host::Go,
            Kind::NetJson | Kind::NetMessagePack => Host::DotNet,
        }
    }

    /// Name of the library, if the host program supports several.
    pub(super) fn library(self) -> Option<&'static str> {
        match self {
            Kind::PySignalRJson | Kind::PySignalRMessagePack => Some("pysignalr"),
            Kind::SignalRCoreJson | Kind::SignalRCoreMessagePack => Some("signalrcore"),
            _ => None,
        }
    }
}
