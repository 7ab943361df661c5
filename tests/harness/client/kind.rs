//! Client libraries, and the programs that host them.

use crate::harness::dotnet;

/// A client library, and the hub protocol it speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The official JavaScript client, JSON.
    JsJson,
    /// The official JavaScript client, MessagePack.
    JsMessagePack,
    /// The library `pysignalr` for Python, JSON.
    PySignalRJson,
    /// The library `pysignalr` for Python, MessagePack.
    PySignalRMessagePack,
    /// The library `signalrcore` for Python, JSON.
    SignalRCoreJson,
    /// The library `signalrcore` for Python, MessagePack.
    SignalRCoreMessagePack,
    /// The official Java client, JSON.
    JavaJson,
    /// The library `philippseith/signalr` for Go, JSON.
    GoJson,
    /// The library `philippseith/signalr` for Go, MessagePack.
    GoMessagePack,
    /// The official .NET client, JSON; only where there are .NET programs.
    NetJson,
    /// The official .NET client, MessagePack; only where there are .NET programs.
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
    /// The official client, with each hub protocol.
    pub const JS: [Kind; 2] = [Kind::JsJson, Kind::JsMessagePack];

    /// The kinds that every scenario is played with.
    pub const ALL: [Kind; 4] = [Kind::JsJson, Kind::JsMessagePack, Kind::PySignalRJson, Kind::PySignalRMessagePack];

    /// The kinds beside JavaScript's and Python's; those of .NET only where there are .NET programs, else a line says
    /// so.
    ///
    /// # Panics
    /// When the archive of .NET programs can't be unpacked.
    #[must_use]
    pub fn others() -> Vec<Kind> {
        let net = dotnet::found().map(|_| [Kind::NetJson, Kind::NetMessagePack]);
        let others = [Kind::JavaJson, Kind::GoJson, Kind::GoMessagePack];
        others.into_iter().chain(net.into_iter().flatten()).collect()
    }

    /// The hub protocol it speaks, as a handshake names it.
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

    /// The library, where the program of the language knows several.
    pub(super) fn library(self) -> Option<&'static str> {
        match self {
            Kind::PySignalRJson | Kind::PySignalRMessagePack => Some("pysignalr"),
            Kind::SignalRCoreJson | Kind::SignalRCoreMessagePack => Some("signalrcore"),
            _ => None,
        }
    }
}
