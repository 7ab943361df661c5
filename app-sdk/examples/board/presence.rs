//! Presence: the proxies know who is in a room, so nothing is kept for it.

use trunkline::{Groups, HubError};

use crate::note::Person;

/// Lists everybody in a room, at whichever proxy and app server.
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
