//! Taps: live copies of the messages of one client connection, read from its shard until nobody looks any more.

use crate::shard::{ShardSender, Slot, TapRefused, TapReport};

/// Whether a tap copies the payloads of messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PayloadView {
    Hidden,
    Shown,
}

impl PayloadView {
    /// Returns its value in the query of a request.
    #[must_use]
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Hidden => "hidden",
            Self::Shown => "shown",
        }
    }
}

/// Error of opening a tap.
#[derive(Debug)]
pub(crate) enum TapError {
    /// The connection is not on this node.
    UnknownClient,
    /// Too many connections are tapped, or too many streams are open; the text says which.
    TooMany(String),
}

/// Open tap of a shard; dropping it closes it.
#[derive(Debug)]
pub(crate) struct ClientTap {
    shard: ShardSender,
    number: u64,
}

impl ClientTap {
    pub(super) async fn open(
        shard: ShardSender,
        slot: Slot,
        id: &str,
        payloads: PayloadView,
    ) -> Result<Self, TapError> {
        let (id, with_payloads) = (id.to_owned(), payloads == PayloadView::Shown);
        match shard.inspect(move |state| state.tap(slot, &id, with_payloads)).await {
            Some(Ok(number)) => Ok(Self { shard, number }),
            Some(Err(error @ TapRefused::TooMany)) => Err(TapError::TooMany(error.to_string())),
            Some(Err(TapRefused::Unknown)) | None => Err(TapError::UnknownClient),
        }
    }

    /// Returns what was copied since the last report; `None` when the node is stopping.
    pub(crate) async fn report(&self) -> Option<TapReport> {
        let number = self.number;
        self.shard.inspect(move |state| state.read_tap(number)).await?
    }
}

impl Drop for ClientTap {
    fn drop(&mut self) {
        let number = self.number;
        self.shard.post(move |state| state.end_tap(number));
    }
}
