//! Peers: the measured servers, and their client protocols.

use std::time::Duration;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use crate::dialect::Dialect;

/// Product or combination of products.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Peer {
    /// Two proxies and an app server
    Trunkline,
    /// An app server with an embedded node
    Embedded,
    /// ASP.NET Core's own SignalR server, in one process
    Kestrel,
    /// Two processes of that server, connected by Redis
    KestrelRedis,
    /// ASP.NET Core app with the package of the Azure SignalR Service, which dials one proxy
    Dotnet,
    /// ASP.NET Core app with that package, which dials two proxies
    DotnetFleet,
    /// Two proxies with TLS and an app server
    TrunklineTls,
    /// App server with an embedded node with TLS
    EmbeddedTls,
    /// HAProxy with TLS in front of an app server with an embedded node
    HaproxyTls,
    /// nginx with TLS in front of an app server with an embedded node
    NginxTls,
    /// Plain WebSocket fan-out with axum
    Axum,
    /// HAProxy, forwarding to the plain fan-out
    Haproxy,
    /// Library `ws` for Node
    Ws,
    /// Socket.IO in one process
    Socketio,
    /// Socket.IO, two processes connected by Redis
    SocketioRedis,
    /// nginx with the module nchan
    Nchan,
    /// Centrifuge, the Go library of Centrifugo
    Centrifuge,
}

impl Peer {
    /// All peers in table order.
    pub(crate) const ALL: [Self; 17] = [
        Self::Trunkline,
        Self::Embedded,
        Self::Kestrel,
        Self::KestrelRedis,
        Self::Dotnet,
        Self::DotnetFleet,
        Self::TrunklineTls,
        Self::EmbeddedTls,
        Self::HaproxyTls,
        Self::NginxTls,
        Self::Axum,
        Self::Haproxy,
        Self::Ws,
        Self::Socketio,
        Self::SocketioRedis,
        Self::Nchan,
        Self::Centrifuge,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Trunkline => "trunkline",
            Self::Embedded => "embedded",
            Self::Kestrel => "kestrel",
            Self::KestrelRedis => "kestrel-redis",
            Self::Dotnet => "dotnet",
            Self::DotnetFleet => "dotnet-fleet",
            Self::TrunklineTls => "trunkline-tls",
            Self::EmbeddedTls => "embedded-tls",
            Self::HaproxyTls => "haproxy-tls",
            Self::NginxTls => "nginx-tls",
            Self::Axum => "axum",
            Self::Haproxy => "haproxy",
            Self::Ws => "ws",
            Self::Socketio => "socketio",
            Self::SocketioRedis => "socketio-redis",
            Self::Nchan => "nchan",
            Self::Centrifuge => "centrifuge",
        }
    }

    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Trunkline => "Trunkline, 2 proxies + app server",
            Self::Embedded => "Trunkline, embedded",
            Self::Kestrel => "Kestrel",
            Self::KestrelRedis => "Kestrel × 2 + Redis",
            Self::Dotnet => "ASP.NET Core app, 1 Trunkline proxy",
            Self::DotnetFleet => "ASP.NET Core app, 2 Trunkline proxies",
            Self::TrunklineTls => "Trunkline with TLS, 2 proxies + app server",
            Self::EmbeddedTls => "Trunkline with TLS, embedded",
            Self::HaproxyTls => "HAProxy with TLS + Trunkline, embedded",
            Self::NginxTls => "nginx with TLS + Trunkline, embedded",
            Self::Axum => "axum, plain WebSockets",
            Self::Haproxy => "HAProxy + axum",
            Self::Ws => "Node ws",
            Self::Socketio => "Socket.IO",
            Self::SocketioRedis => "Socket.IO × 2 + Redis",
            Self::Nchan => "nginx with nchan",
            Self::Centrifuge => "Centrifuge",
        }
    }

    pub(crate) fn dialect(self) -> Dialect {
        match self {
            Self::Trunkline | Self::Embedded | Self::Kestrel | Self::KestrelRedis => Dialect::SignalR,
            Self::Dotnet | Self::DotnetFleet => Dialect::SignalR,
            Self::TrunklineTls | Self::EmbeddedTls | Self::HaproxyTls | Self::NginxTls => Dialect::SignalR,
            Self::Axum | Self::Haproxy | Self::Ws => Dialect::Plain,
            Self::Socketio | Self::SocketioRedis => Dialect::SocketIo,
            Self::Nchan => Dialect::Nchan,
            Self::Centrifuge => Dialect::Centrifuge,
        }
    }

    /// Process that is also counted alone, and the name of that row.
    pub(crate) fn alone(self) -> Option<(&'static str, &'static str)> {
        match self {
            Self::Haproxy => Some(("haproxy", "HAProxy alone")),
            Self::HaproxyTls => Some(("haproxy", "HAProxy with TLS alone")),
            _ => None,
        }
    }

    pub(crate) fn has_tls(self) -> bool {
        matches!(self, Self::TrunklineTls | Self::EmbeddedTls | Self::HaproxyTls | Self::NginxTls)
    }

    /// Whether it is measured only when named, to limit the total time.
    pub(crate) fn is_extra(self) -> bool {
        self.is_dotnet() || self.has_tls()
    }

    /// Whether it runs on .NET, which may be unavailable, and which compiles during the warm-up.
    pub(crate) fn is_dotnet(self) -> bool {
        matches!(self, Self::Kestrel | Self::KestrelRedis | Self::Dotnet | Self::DotnetFleet)
    }

    /// Warm-up before each window, long enough for just-in-time compilers.
    pub(crate) fn warm_up(self) -> Duration {
        if self.is_dotnet() { Duration::from_secs(15) } else { Duration::from_secs(1) }
    }

    /// Whether it is the product under comparison.
    pub(crate) fn is_ours(self) -> bool {
        matches!(
            self,
            Self::Trunkline
                | Self::Embedded
                | Self::Dotnet
                | Self::DotnetFleet
                | Self::TrunklineTls
                | Self::EmbeddedTls
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_called_by_one_name_wherever_it_is_named() {
        for peer in Peer::ALL {
            let json = serde_json::to_value(peer).unwrap();
            let typed = peer.to_possible_value().unwrap();
            assert_eq!([json.as_str().unwrap(), typed.get_name()], [peer.name(); 2]);
        }
        assert_eq!(Peer::value_variants(), Peer::ALL);
    }
}
