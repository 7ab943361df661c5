//! Scenes: where tests begin, and the steps that many of them take.
//!
//! ```text
//! let (fixture, mut link) = Fixture::start().with_chat().await;                A node, and an app server linked to it.
//! let (fixture, mut link, mut client) = Fixture::start().with_client().await;  And a client.
//! let (fixture, mut link) = Fixture::set(|it| it.pool_size = 2).with_app(chat(|it| it.asks_app = true)).await;
//! let mut second = fixture.server("app-2").await;                              Another app server.
//! let [mut ann, mut bob] = link.clients().await;                               Clients assigned to an app server.
//! second.takes_over(&client, "app-1").await;                                   A step, with its assertions.
//! ```

use std::ops::{Deref, DerefMut};

use tokio::time::Instant;
use trunkline_protocol::manifest::{EndpointKind, HubManifest, MIGRATE_FROM_HEADER, MIGRATE_TO_HEADER};
use trunkline_protocol::service::*;

use super::app::{App, AppLink};
use super::client::Client;
use super::fixture::{Fixture, token_of};
use super::hub_message::header;
use crate::ground::routing::DEFAULT_GROUP;

/// Scripted app server with one hub and its first link. Its methods include those of the link.
pub(super) struct LinkedApp {
    pub(super) app: App,
    pub(super) fixture: Fixture,
    link: AppLink,
    path: String,
    is_raw: bool,
}

impl Deref for LinkedApp {
    type Target = AppLink;

    fn deref(&self) -> &AppLink {
        &self.link
    }
}

impl DerefMut for LinkedApp {
    fn deref_mut(&mut self) -> &mut AppLink {
        &mut self.link
    }
}

/// Manifest of the hub `chat` with these changes.
pub(super) fn chat(change: impl FnOnce(&mut HubManifest)) -> HubManifest {
    let mut hub = HubManifest::new("chat", "/chat");
    change(&mut hub);
    hub
}

/// Manifest of the hub `shop`, whose clients can reconnect and move to other nodes.
pub(super) fn shop() -> HubManifest {
    HubManifest { stateful_reconnect_buffer_bytes: Some(100_000), ..HubManifest::new("shop", "/shop") }
}

pub(super) fn chat_and_news() -> [HubManifest; 2] {
    [HubManifest::new("chat", "/chat"), HubManifest::new("news", "/news")]
}

impl Fixture {
    /// Adds the app server `app-1` with this hub.
    pub(super) async fn with_app(self, hub: HubManifest) -> (Self, LinkedApp) {
        let app = self.server_with("app-1", hub).await;
        (self, app)
    }

    /// Adds the app server `app-1` with the hub `chat`.
    pub(super) async fn with_chat(self) -> (Self, LinkedApp) {
        self.with_app(chat(|_| {})).await
    }

    /// Adds the app server `app-1` with the hub `chat`, and a client.
    pub(super) async fn with_client(self) -> (Self, LinkedApp, Client) {
        let (fixture, mut app) = self.with_chat().await;
        let client = app.client().await;
        (fixture, app, client)
    }

    /// Adds the app server `app-1` with these hubs, and a link for each.
    pub(super) async fn app_of<const N: usize>(&self, hubs: [HubManifest; N]) -> (App, [AppLink; N]) {
        let mut app = self.app("app-1", hubs.into());
        let mut links = Vec::new();
        while links.len() < N {
            links.push(app.link().await);
        }
        (app, links.try_into().unwrap_or_else(|_| unreachable!("a link for each hub")))
    }

    /// Adds an app server with the hub `chat`.
    pub(super) async fn server(&self, instance: &str) -> LinkedApp {
        self.server_with(instance, chat(|_| {})).await
    }

    /// Adds an app server of a group with the hub `chat`.
    pub(super) async fn server_in(&self, group: &str, instance: &str) -> LinkedApp {
        self.server_of(group, instance, chat(|_| {})).await
    }

    /// Adds an app server with this hub.
    pub(super) async fn server_with(&self, instance: &str, hub: HubManifest) -> LinkedApp {
        self.server_of(DEFAULT_GROUP, instance, hub).await
    }

    pub(super) async fn server_of(&self, group: &str, instance: &str, hub: HubManifest) -> LinkedApp {
        let (path, is_raw) = (hub.path.clone(), hub.kind == EndpointKind::Raw);
        let mut app = App::start_in(&self.shared, group, instance, vec![hub]);
        let link = app.link().await;
        LinkedApp { app, link, fixture: self.clone(), path, is_raw }
    }
}

impl LinkedApp {
    /// Connects a client that the node assigns to this app server. It speaks JSON, except at a raw endpoint.
    pub(super) async fn client(&mut self) -> Client {
        let path = self.path.clone();
        self.client_at(&path).await
    }

    /// Connects a client with an access token of this user.
    pub(super) async fn client_of(&mut self, user: &str) -> Client {
        let target = format!("{}?access_token={}", self.path, token_of(user));
        self.client_at(&target).await
    }

    async fn client_at(&mut self, target: &str) -> Client {
        if !self.is_raw {
            return Client::connect(&self.fixture, &mut self.link, target).await;
        }
        let mut client = Client::upgrade(&self.fixture, target).await.unwrap();
        client.id = self.link.opening().await.connection_id.to_string();
        client
    }

    /// Connects a client with an access token of each of these users.
    pub(super) async fn clients_of<const N: usize>(&mut self, users: [&str; N]) -> [Client; N] {
        let mut clients = Vec::new();
        for user in users {
            clients.push(self.client_of(user).await);
        }
        clients.try_into().unwrap_or_else(|_| unreachable!("a client of each user"))
    }

    pub(super) async fn clients<const N: usize>(&mut self) -> [Client; N] {
        let mut clients = Vec::new();
        while clients.len() < N {
            clients.push(self.client().await);
        }
        clients.try_into().unwrap_or_else(|_| unreachable!("as many as asked for"))
    }

    pub(super) async fn join_all(&mut self, clients: &[Client], group: &str) {
        for client in clients {
            self.join(&client.id, group).await;
        }
    }

    /// Ends the app server, and waits until its link has ended.
    pub(super) async fn retire(&mut self) {
        self.app.retire();
        self.link.ended().await;
    }

    /// Cuts the link of the app server, which continues to run.
    pub(super) fn cut(self) -> App {
        self.link.cut();
        self.app
    }
}

impl AppLink {
    /// Receives the opening of a client that was assigned to another app server.
    pub(super) async fn is_given(&mut self, client: &Client, from: &str) -> OpenConnection {
        let open = self.opening().await;
        assert_eq!(open.connection_id, client.id);
        assert_eq!(header(&open.headers, MIGRATE_FROM_HEADER), Some(from), "{open:?}");
        open
    }

    /// Receives the opening and the hub handshake of a client that was assigned to another app server.
    pub(super) async fn takes_over(&mut self, client: &Client, from: &str) -> OpenConnection {
        let open = self.is_given(client, from).await;
        let (_, handshake) = self.data().await;
        assert_eq!((handshake.data_type, &*handshake.connection_id), (1, &*client.id));
        open
    }

    /// Receives the node's request to hand over this client to any other app server.
    pub(super) async fn is_asked_to_hand_over(&mut self, client: &Client) {
        let asked = self.close().await;
        assert_eq!((&*asked.connection_id, header(&asked.headers, MIGRATE_TO_HEADER)), (&*client.id, Some("")));
    }
}

/// Checks that a step took about this time.
pub(super) fn took_about(begun: Instant, seconds: u64) {
    let took = begun.elapsed().as_secs();
    assert!((seconds - 1..=seconds + 2).contains(&took), "{took} s instead of {seconds} s");
}
