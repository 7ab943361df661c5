//! Presence: the proxies track who is in a room, so the app stores nothing.

use trunkline::{Groups, HubError};

use crate::note::Person;

/// Lists everyone in a room, across all proxies and app servers.
pub(crate) async fn in_room(groups: &Groups, room: &str) -> Result<Vec<Person>, HubError> {
    let mut members = groups.members(room);
    let mut people = Vec::new();
    while let Some(page) = members.next_page().await? {
        people.extend(
            page.into_value()
                .into_iter()
                .map(|member| Person { connection: member.connection_id, name: member.user_id }),
        );
    }
    Ok(people)
}
