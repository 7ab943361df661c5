//! Tunnel of an upgraded connection: forwards bytes unchanged until both directions have ended.

use std::sync::Arc;

use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::copy_bidirectional;
use tokio_util::io::InspectReader;
use tracing::debug;

use crate::ground::metrics::Counters;

/// Joins both ends once they are upgraded. Either may end its direction and still read the other. Only the ends know
/// the meaning of silence, so the tunnel, and its permit, last without a time limit.
pub(crate) fn open(counters: Arc<Counters>, client: OnUpgrade, app: OnUpgrade, permit: impl Send + 'static) {
    tokio::spawn(async move {
        let _permit = permit;
        let (client, app) = match tokio::try_join!(client, app) {
            Ok(ends) => ends,
            Err(error) => return debug!(%error, "upgrade accepted, but one end has disconnected"),
        };
        let relay = &counters.relay;
        let mut client = InspectReader::new(TokioIo::new(client), |bytes| relay.bytes_up.add(bytes.len() as u64));
        let mut app = InspectReader::new(TokioIo::new(app), |bytes| relay.bytes_down.add(bytes.len() as u64));
        if let Err(error) = copy_bidirectional(&mut client, &mut app).await {
            debug!(%error, "tunnel failed");
        }
    });
}
