//! Dial-in: the connection string of app servers that dial, and the tokens that they sign, as Azure SignalR has them.
//!
//! ```text
//!  connection string ──► app server ── GET /server/?hub=H, server token ──────────► service: a proxy, or Azure's
//!                            └── redirect with a client token ──► client ── POST /client/negotiate?hub=H ──┘
//! ```
//!
//! Plain values: nothing here dials.

mod claim_name;
mod connection_string;
mod service_token;
mod service_url;

pub use claim_name::{app_claim, is_reserved_claim, long_claim, long_claims};
pub use connection_string::{ConnectionString, ConnectionStringError};
pub use service_token::{CLIENT_TOKEN_MAX_CHARS, ClientTicket, client_audience, escaped, server_audience};
pub use service_token::{sign_client_token, sign_rest_token, sign_rest_token_for, sign_server_token};
pub use service_url::{ServiceScheme, ServiceUrl, ServiceUrlError};

/// Path at which app servers open server connections; the hub stands in the query.
pub const SERVER_PATH: &str = "/server/";
/// Path at which clients connect that an app server has redirected; the hub stands in the query.
pub const CLIENT_PATH: &str = "/client/";
/// Query parameter of a server connection: its id, another one for each upgrade.
pub const SERVER_CONNECTION_PARAMETER: &str = "cid";
/// Query parameter of a server connection that was asked for: the instance of the service that wants it.
pub const TARGET_PARAMETER: &str = "target";
/// Query parameter of a redirected client: path of the hub at the app server.
pub const ORIGINAL_PATH_PARAMETER: &str = "asrs.op";
/// Query parameter of a redirected client: id of its negotiate request at the app server.
pub const REQUEST_ID_PARAMETER: &str = "asrs_request_id";
/// Header of a server connection's upgrade: id of the app server, the same for all its connections.
pub const SERVER_ID_HEADER: &str = "x-asrs-server-id";
/// Header of an open frame: the instance of the service that holds the client.
pub const INSTANCE_ID_HEADER: &str = "asrs-instance-id";
/// Header of a server connection's upgrade: product, version and platform of the SDK.
pub const SDK_HEADER: &str = "asrs-user-agent";

/// Key of a ping by which the service asks for one more server connection; the value is its instance.
pub const TARGET_PING: &str = "target";
/// Key of a ping about the state of the service: asked with `1`, answered with whether it has clients.
pub const STATUS_PING: &str = "status";
/// Key of the pings by which an app server leaves.
pub const SHUTDOWN_PING: &str = "shutdown";
/// Value of [`SHUTDOWN_PING`]: the app server leaves, and others take its clients over.
pub const FIN_MIGRATE: &str = "fin:1";
/// Value of [`SHUTDOWN_PING`]: the service has understood that the app server leaves.
pub const FIN_ACK: &str = "finack";
/// Key of a ping by which the service tells that one of its instances is lost; the value is the instance.
pub const INSTANCE_LOST_PING: &str = "offline";
/// Key of a ping that tells how many clients an app server has in the hub.
pub const CLIENTS_IN_HUB_PING: &str = "#clientInHub";
/// Key of a ping that tells how many clients its server connection carries.
pub const CLIENTS_PING: &str = "#client";
