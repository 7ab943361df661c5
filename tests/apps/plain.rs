//! Servers without the SDK's own `serve`.

use std::net::SocketAddr;

use axum::Router;
use axum::serve::ListenerExt;
use tokio::net::TcpListener;

/// Serves with axum alone.
pub(crate) async fn serve_plainly(listener: TcpListener, app: Router) -> anyhow::Result<()> {
    let listener = listener.tap_io(|tcp| {
        // Small messages are sent without waiting for full packets. If the socket refuses the option, it is only
        // slower.
        drop(tcp.set_nodelay(true));
    });
    Ok(axum::serve(listener, app.into_make_service_with_connect_info::<SocketAddr>()).await?)
}
