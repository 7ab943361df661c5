//! Client transport over long polling: GETs that wait for messages, and POSTs for its own messages.

use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;

use super::probe_client::{ProbeClient, ProbeError};

/// Time limit of a poll: nodes hold polls for 90 s by default, and for an hour at most.
const POLL_MAX: Duration = Duration::from_secs(3700);

#[derive(Debug)]
pub(super) struct PollCarrier {
    client: ProbeClient,
    id: String,
}

impl PollCarrier {
    /// Makes the first poll, which opens the connection and is answered immediately.
    pub(super) async fn open(client: &ProbeClient, id: &str) -> Result<Self, ProbeError> {
        client.poll(id, client.deadline).await?.successful()?;
        Ok(Self { client: client.clone(), id: id.to_owned() })
    }

    pub(super) async fn send(&mut self, messages: &Bytes) -> Result<(), ProbeError> {
        self.client.post(&self.id, messages.clone()).await?.successful().map(drop)
    }

    pub(super) async fn receive(&mut self) -> Result<Bytes, ProbeError> {
        loop {
            let answer = self.client.poll(&self.id, POLL_MAX).await?.successful()?;
            if answer.status == StatusCode::NO_CONTENT {
                return Err(ProbeError::Closed("the response to the poll ends the connection".into()));
            }
            if !answer.body.is_empty() {
                return Ok(answer.body);
            }
        }
    }

    /// Ends the connection at the server.
    pub(super) async fn close(self) {
        // If this fails, the node ends the connection later.
        drop(self.client.delete(&self.id).await);
    }
}
