//! Seam for features that report on the clients of a shard to app servers, such as presence.

use std::fmt::Debug;
use std::rc::Rc;

use tokio::sync::Notify;

use super::command::LinkLoss;
use super::connection::Connections;
use super::shard_context::ShardContext;
use super::shard_core::ShardCore;
use crate::engine::upstream::{AppServerId, HomeLink, HubIndex};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FlushOutcome {
    All,
    /// A snapshot is in progress or a link is full.
    NotYet,
    /// No subscribers are left.
    NoSubscribers,
}

/// State of a feature that reports to the app servers of a shard's links.
pub(crate) trait ServerFeed: Debug {
    /// Subscribes an app server with its first link. Returns the signal of changes if [`flush`](Self::flush) has to be
    /// called from now on.
    fn link_opened(
        &mut self,
        connections: &mut Connections,
        context: &ShardContext,
        link: &HomeLink,
    ) -> Option<Rc<Notify>>;

    fn link_lost(&mut self, connections: &mut Connections, context: &ShardContext, loss: &LinkLoss);

    fn app_stopping(&mut self, hub: HubIndex, app: AppServerId);

    /// Sends changes, until no subscriber is left.
    fn flush(&mut self, _connections: &mut Connections, _context: &ShardContext) -> FlushOutcome {
        FlushOutcome::NoSubscribers
    }
}

/// Feeds of a shard.
#[derive(Debug)]
pub(super) struct ServerFeeds(Vec<Box<dyn ServerFeed>>);

impl ServerFeeds {
    pub(super) fn new(feeds: Vec<Box<dyn ServerFeed>>) -> Self {
        Self(feeds)
    }

    /// Passes a new link to all feeds. Returns the feeds to be flushed from now on, by index, with their signals.
    #[must_use]
    pub(super) fn link_opened(&mut self, core: &mut ShardCore, link: &HomeLink) -> Vec<(usize, Rc<Notify>)> {
        let opened = |(index, feed): (usize, &mut Box<dyn ServerFeed>)| {
            Some((index, feed.link_opened(&mut core.connections, &core.context, link)?))
        };
        self.0.iter_mut().enumerate().filter_map(opened).collect()
    }

    pub(super) fn link_lost(&mut self, core: &mut ShardCore, loss: &LinkLoss) {
        self.0.iter_mut().for_each(|feed| feed.link_lost(&mut core.connections, &core.context, loss));
    }

    pub(super) fn app_stopping(&mut self, hub: HubIndex, app: AppServerId) {
        self.0.iter_mut().for_each(|feed| feed.app_stopping(hub, app));
    }

    pub(super) fn flush(&mut self, core: &mut ShardCore, feed: usize) -> FlushOutcome {
        let feed = self.0.get_mut(feed);
        feed.map_or(FlushOutcome::NoSubscribers, |feed| feed.flush(&mut core.connections, &core.context))
    }
}
