//! Tests of custom extractors: async, optional, fallible.

use axum::extract::{FromRef, Query, State};
use axum::http::HeaderMap;
use serde::Deserialize;
use trunkline::{Context, FromContext, Hub, HubError};

use super::{client, error};

#[derive(Clone)]
struct Users(&'static [&'static str]);

/// The caller, looked up in the store.
struct Member(String);

impl<S: Send + Sync> FromContext<S> for Member
where
    Users: FromRef<S>,
{
    async fn from_context(ctx: &Context, state: &S) -> Result<Self, HubError> {
        tokio::task::yield_now().await;
        let user = ctx.user_id().unwrap_or_default();
        match Users::from_ref(state).0 {
            [] => Err(HubError::internal("the store is down")),
            users if users.contains(&user) => Ok(Member(user.to_owned())),
            _ => Err(HubError::new("members only")),
        }
    }
}

#[derive(Deserialize)]
struct Place {
    room: String,
    seat: u32,
}

fn hub(users: &'static [&'static str]) -> Hub {
    Hub::new("/hub")
        .method("Must", async |Member(name): Member, times: usize| name.repeat(times))
        .method("May", async |member: Option<Member>| member.map(|Member(name)| name))
        .method("Try", async |member: Result<Member, HubError>, _: State<Users>| {
            member.map_or_else(|error| error.message().to_owned(), |Member(name)| name)
        })
        .method("Optional", async |text: Option<String>| text.is_none())
        .method("Where", async |Query(place): Query<Place>, headers: HeaderMap| {
            format!("{} {} {}", place.room, place.seat, headers.len())
        })
        .with_state(Users(users))
}

#[tokio::test]
async fn an_extractor_may_wait_and_counts_as_no_argument() {
    let (_server, mut ann) = client(hub(&["ann"]), "").await;
    assert_eq!(ann.invoke::<String>("Must", (2,)).await.unwrap(), "annann");
    assert_eq!(ann.invoke::<Option<String>>("May", ()).await.unwrap().unwrap(), "ann");
    assert_eq!(ann.invoke::<String>("Try", ()).await.unwrap(), "ann");
}

#[tokio::test]
async fn a_refusal_is_none_or_an_error_as_the_parameter_requests() {
    let (_server, mut ann) = client(hub(&["bob"]), "").await;
    assert!(error(&mut ann, "Must", (2,)).await.ends_with("HubException: members only"));
    assert_eq!(ann.invoke::<Option<String>>("May", ()).await.unwrap(), None);
    assert_eq!(ann.invoke::<String>("Try", ()).await.unwrap(), "members only");
}

#[tokio::test]
async fn an_internal_error_of_an_extractor_is_not_a_missing_user() {
    let (_server, mut ann) = client(hub(&[]), "").await;
    let text = "An unexpected error occurred invoking 'May' on the server.";
    assert_eq!(error(&mut ann, "May", ()).await, text);
    assert_eq!(ann.invoke::<String>("Try", ()).await.unwrap(), "the store is down");
}

#[tokio::test]
async fn extractors_of_axum_read_the_connect_request() {
    let (_server, mut ann) = client(hub(&["ann"]), "room=a%20b&seat=4").await;
    assert_eq!(ann.invoke::<String>("Where", ()).await.unwrap(), "a b 4 0");
    assert!(ann.invoke::<bool>("Optional", (None::<u8>,)).await.unwrap(), "of an argument `Option` is its value");
    let (_server, mut bob) = client(hub(&["ann"]), "room=a").await;
    assert!(error(&mut bob, "Where", ()).await.contains("seat"));
}
