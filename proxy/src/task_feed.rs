//! Exclusive tasks: candidate app servers receive the list of all candidates and elect one.
//!
//! Shard 0 sends the node's whole list on each change, over one link per app server. An app server is listed from its
//! first link until it announces its shutdown or loses its last link.

use std::rc::Rc;
use std::sync::Arc;

use bytestring::ByteString;
use tokio::sync::Notify;
use trunkline_protocol::limits::{EXCLUSIVE_TASK_NAME_MAX_BYTES, EXCLUSIVE_TASKS_MAX};
use trunkline_protocol::manifest::ExclusiveTasks;
use trunkline_protocol::service::{ServiceMessage, TaskCandidate, TaskCandidates};

use crate::shard::{Connections, LinkLoss, ServerFeed, ShardContext};
use crate::upstream::{AppServerId, HomeLink, HubIndex};

#[derive(Debug, Default)]
pub(crate) struct TaskFeeds {
    standing: Vec<StandingApp>,
}

/// Candidate for exclusive tasks of a hub.
#[derive(Debug)]
struct StandingApp {
    hub: HubIndex,
    app: AppServerId,
    instance: ByteString,
    tasks: Arc<ExclusiveTasks>,
    /// Link that receives the list.
    link: HomeLink,
    /// About to stop: receives the list but is not on it.
    is_leaving: bool,
}

impl TaskFeeds {
    /// Sends the list of candidates to all app servers of a hub.
    fn notify(&self, hub: HubIndex) {
        let of_hub = || self.standing.iter().filter(move |standing| standing.hub == hub);
        let candidates = of_hub().filter(|standing| !standing.is_leaving).flat_map(StandingApp::candidates).collect();
        let message = ServiceMessage::TaskCandidates(TaskCandidates { candidates });
        for standing in of_hub() {
            // If the link has closed, a command in flight sends the list over another link.
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

impl ServerFeed for TaskFeeds {
    /// Adds a candidate with its first link. The list is sent on each change, so nothing is left to flush.
    fn link_opened(&mut self, _: &mut Connections, context: &ShardContext, link: &HomeLink) -> Option<Rc<Notify>> {
        if context.index != 0 {
            return None;
        }
        let pool = context.shared.hubs.pool_of(link)?;
        let tasks = pool.exclusive_tasks().filter(|_| !pool.is_draining()).cloned()?;
        let (hub, app) = (link.hub(), link.app());
        if self.standing.iter().any(|standing| (standing.hub, standing.app) == (hub, app)) {
            return None;
        }
        let instance = ByteString::from(&*pool.app().instance);
        self.standing.push(StandingApp { hub, app, instance, tasks, link: link.clone(), is_leaving: false });
        self.notify(hub);
        None
    }

    /// Switches to another link after a loss, or removes the candidate.
    fn link_lost(&mut self, _: &mut Connections, context: &ShardContext, loss: &LinkLoss) {
        let place = self.standing.iter().position(|standing| standing.link.id() == loss.link);
        let Some((place, standing)) = place.and_then(|place| Some((place, self.standing.get_mut(place)?))) else {
            return;
        };
        let hub = standing.hub;
        let pool = context.shared.hubs.at(hub).and_then(|hub| hub.pool_of(standing.app));
        match pool.and_then(|pool| pool.link_beside(loss.link)) {
            Some(link) => standing.link = link,
            None => drop(self.standing.remove(place)),
        }
        self.notify(hub);
    }

    fn app_stopping(&mut self, hub: HubIndex, app: AppServerId) {
        let mut of_app = self.standing.iter_mut().filter(|standing| (standing.hub, standing.app) == (hub, app));
        if let Some(standing) = of_app.next() {
            standing.is_leaving = true;
            self.notify(hub);
        }
    }
}
