//! Exclusive tasks: app servers that stand for them are told which others do, and choose one of themselves.
//!
//! Shard 0 tells for the whole node, over one link per app server, the whole list whenever it changes. An app server is
//! listed from its first link on, until it says that it stops, or its last link is lost.

use std::sync::Arc;

use bytestring::ByteString;
use trunkline_protocol::limits::{EXCLUSIVE_TASK_NAME_MAX_BYTES, EXCLUSIVE_TASKS_MAX};
use trunkline_protocol::manifest::ExclusiveTasks;
use trunkline_protocol::service::{ServiceMessage, TaskCandidate, TaskCandidates};

use super::command::LinkLoss;
use super::presence_feed::other_link;
use super::shard_context::ShardContext;
use crate::upstream::{AppServerId, HomeLink, HubIndex};

/// App servers that stand for exclusive tasks of any hub.
#[derive(Debug, Default)]
pub(super) struct TaskFeeds {
    standing: Vec<StandingApp>,
}

/// App server that stands for exclusive tasks of a hub.
#[derive(Debug)]
struct StandingApp {
    hub: HubIndex,
    app: AppServerId,
    instance: ByteString,
    tasks: Arc<ExclusiveTasks>,
    /// Link over which it is told.
    link: HomeLink,
    /// It is about to stop: it is told, and not listed.
    is_leaving: bool,
}

impl TaskFeeds {
    /// Tells all app servers of a hub which of them stand for what.
    fn tell(&self, hub: HubIndex) {
        let of_hub = || self.standing.iter().filter(move |standing| standing.hub == hub);
        let candidates = of_hub().filter(|standing| !standing.is_leaving).flat_map(StandingApp::candidates).collect();
        let message = ServiceMessage::TaskCandidates(TaskCandidates { candidates });
        for standing in of_hub() {
            // Of a link that is over the command is on its way, which tells over another one.
            let _ = standing.link.queue(&message);
        }
    }
}

impl StandingApp {
    fn candidates(&self) -> impl Iterator<Item = TaskCandidate> {
        let names = self.tasks.names.iter().filter(|name| name.len() <= EXCLUSIVE_TASK_NAME_MAX_BYTES);
        names.take(EXCLUSIVE_TASKS_MAX).map(|name| TaskCandidate {
            task: name.as_str().into(),
            instance: self.instance.clone(),
            since_ms: self.tasks.since_ms,
        })
    }
}

impl TaskFeeds {
    /// Lists an app server that stands for tasks, with its first link.
    pub(super) fn link_opened(&mut self, context: &ShardContext, link: &HomeLink) {
        if context.index != 0 {
            return;
        }
        let Some(pool) = context.shared.hubs.pool_of(link) else { return };
        let Some(tasks) = pool.exclusive_tasks().filter(|_| !pool.is_draining()).cloned() else { return };
        let (hub, app) = (link.hub(), link.app());
        if self.standing.iter().any(|standing| (standing.hub, standing.app) == (hub, app)) {
            return;
        }
        let instance = ByteString::from(&*pool.app().instance);
        self.standing.push(StandingApp { hub, app, instance, tasks, link: link.clone(), is_leaving: false });
        self.tell(hub);
    }

    /// Tells what it told over a lost link over another one, or takes the app server off the list.
    pub(super) fn link_lost(&mut self, context: &ShardContext, loss: &LinkLoss) {
        let place = self.standing.iter().position(|standing| standing.link.id() == loss.link);
        let Some((place, standing)) = place.and_then(|place| Some((place, self.standing.get_mut(place)?))) else {
            return;
        };
        let hub = standing.hub;
        let pool = context.shared.hubs.at(hub).and_then(|hub| hub.pool_of(standing.app));
        match pool.as_deref().and_then(|pool| other_link(pool, loss)) {
            Some(link) => standing.link = link,
            None => drop(self.standing.remove(place)),
        }
        self.tell(hub);
    }

    /// Takes an app server that is about to stop off the list.
    pub(super) fn app_stopping(&mut self, hub: HubIndex, app: AppServerId) {
        let mut of_app = self.standing.iter_mut().filter(|standing| (standing.hub, standing.app) == (hub, app));
        if let Some(standing) = of_app.next() {
            standing.is_leaving = true;
            self.tell(hub);
        }
    }
}
