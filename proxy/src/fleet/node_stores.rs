//! State of a node behind the seams of the engine: created before the shards, then shared with the features.

use std::sync::Arc;

use super::own_interest::OwnInterest;
use crate::engine::shard::{Seams, SetInterest};
use crate::features::admission::Admission;
use crate::features::store::Store;
use crate::features::user_group::UserGroups;
use crate::ground::auth::AccessSettings;
use crate::ground::config::Settings;
use crate::ground::net::connector::Connector;

#[derive(Debug, Clone)]
pub(crate) struct NodeStores {
    pub admission: Arc<Admission>,
    pub user_groups: Arc<UserGroups>,
    /// Store of what must outlive the last node; `None` without one.
    pub store: Option<Arc<Store>>,
    /// Subscriptions of this node at other nodes; `None` for a node without peers.
    pub(super) interest: Option<Arc<OwnInterest>>,
}

impl NodeStores {
    /// `issuers` fetches keys of token issuers.
    pub(crate) fn new(settings: &Settings, access: AccessSettings, issuers: Connector) -> Self {
        let admission = Admission::new(&settings.keys, access, issuers);
        let user_groups = UserGroups::of_node(settings, &admission.signing_keys);
        let interest = settings.fleet.has_peers().then(Arc::default);
        let store = Store::of_node(settings, (&admission, &user_groups));
        Self { admission, user_groups, store, interest }
    }

    /// Creates the stores of a node with access keys only.
    pub(crate) fn with_keys_alone(settings: &Settings) -> Self {
        Self::new(settings, AccessSettings::default(), Connector::default())
    }

    pub(crate) fn seams(&self) -> Seams {
        let interest = self.interest.clone().map(|interest| interest as Arc<dyn SetInterest>);
        Seams { access: self.admission.clone(), user_groups: self.user_groups.clone(), interest }
    }
}
