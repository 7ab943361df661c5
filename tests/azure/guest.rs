//! Clients of an ASP.NET Core app from both official libraries, with a common interface.

use anyhow::{Context, Result, ensure};
use serde_json::{Value as Json, json};
use trunkline_protocol::manifest::Transport;
use trunkline_tests::harness::client::{Agents, Client, ClientAnswer, Kind};
use trunkline_tests::harness::dotnet::{AspNetApp, DotNet, NetClient};
use trunkline_tests::harness::scenario::{Fixture, named};

use crate::dial_in::{DialIn, connection_string};

/// Targets that every guest subscribes to.
pub(crate) const TARGETS: [&str; 4] = ["Message", "Echoed", "Answered", "Tick"];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Library {
    Js(Kind),
    Net(&'static str),
}

pub(crate) const LIBRARIES: [Library; 4] =
    [Library::Js(Kind::JsJson), Library::Js(Kind::JsMessagePack), Library::Net("json"), Library::Net("messagepack")];

pub(crate) fn ways() -> impl Iterator<Item = (Library, Transport)> {
    let all = LIBRARIES.into_iter().flat_map(|library| Transport::ALL.map(|transport| (library, transport)));
    all.filter(|(library, transport)| {
        let is_packed = matches!(library, Library::Js(Kind::JsMessagePack) | Library::Net("messagepack"));
        !(is_packed && *transport == Transport::ServerSentEvents)
    })
}

pub(crate) struct Host<'a> {
    agents: Agents<'a>,
    dotnet: &'a DotNet,
    fixture: &'a Fixture,
}

impl<'a> Host<'a> {
    pub(crate) fn new(fixture: &'a Fixture, dotnet: &'a DotNet) -> Self {
        Self { agents: Agents::new(fixture), dotnet, fixture }
    }

    pub(crate) fn agents(&self) -> &Agents<'a> {
        &self.agents
    }

    pub(crate) async fn app(&self, dial_in: &DialIn, name: &str, more: &[(&str, &str)]) -> Result<AspNetApp> {
        self.app_at(dial_in.address(), name, more).await
    }

    pub(crate) async fn app_at(&self, address: &str, name: &str, more: &[(&str, &str)]) -> Result<AspNetApp> {
        let connection = connection_string(address, crate::dial_in::KEY);
        let mut builder = self.dotnet.app(self.fixture).connection(&connection).instance(name);
        for (argument, value) in more {
            builder = builder.argument(argument, value);
        }
        let mut app = builder.start().await?;
        app.redirects("/bench").await?;
        Ok(app)
    }

    pub(crate) async fn app_of(&self, dial_ins: &[DialIn], name: &str, more: &[(&str, &str)]) -> Result<AspNetApp> {
        let mut builder = self.dotnet.app(self.fixture).instance(name);
        for (number, dial_in) in dial_ins.iter().enumerate() {
            builder = builder.endpoint(&format!("endpoint{number}"), &dial_in.connection_string());
        }
        for (argument, value) in more {
            builder = builder.argument(argument, value);
        }
        let mut app = builder.start().await?;
        app.redirects("/bench").await?;
        Ok(app)
    }

    /// Invites a guest by the app's URL, over WebSockets.
    pub(crate) async fn invite(&self, library: Library, app: &AspNetApp, user: &str) -> Result<Guest> {
        self.invite_over(library, Transport::WebSockets, app, user).await
    }

    pub(crate) async fn invite_over(
        &self,
        library: Library,
        transport: Transport,
        app: &AspNetApp,
        user: &str,
    ) -> Result<Guest> {
        let url = app.url(&format!("/bench?user={user}"));
        Ok(match library {
            Library::Js(kind) => {
                let builder = self.agents.client(kind, &url).transport(transport).subscribe(&TARGETS);
                let builder = builder.headers(json!({ "x-guest": user }));
                Guest::Js(builder.answer("Question", &ClientAnswer::Value(json!(42))).open().await?)
            }
            Library::Net(protocol) => {
                let builder = self.dotnet.client(self.fixture, &url).protocol(protocol).transport(transport);
                let client = builder.subscribe(&TARGETS).open().await?;
                client.answer("Question", json!(42)).await?;
                Guest::Net(Box::new(client))
            }
        })
    }

    /// Invites a guest that only counts numbered messages.
    pub(crate) async fn invite_counter(&self, kind: Kind, app: &AspNetApp, user: &str) -> Result<Client> {
        let url = app.url(&format!("/bench?user={user}"));
        self.agents.client(kind, &url).count(&["Message"]).open().await
    }
}

pub(crate) enum Guest {
    Js(Client),
    Net(Box<NetClient>),
}

impl Guest {
    pub(crate) fn id(&self) -> Result<String> {
        Ok(match self {
            Self::Js(client) => client.connection_id()?.to_owned(),
            Self::Net(client) => client.connection_id().to_owned(),
        })
    }

    pub(crate) async fn call(&self, target: &str, arguments: Json) -> Result<Result<Json, String>> {
        let answer = async {
            match self {
                Self::Js(client) => client.call(target, arguments).await,
                Self::Net(client) => client.call(target, arguments).await,
            }
        };
        named(format!("the answer of {target}"), answer).await
    }

    pub(crate) async fn invoke(&self, target: &str, arguments: Json) -> Result<Json> {
        self.call(target, arguments).await?.map_err(anyhow::Error::msg).with_context(|| target.to_owned())
    }

    pub(crate) async fn send(&self, target: &str, arguments: Json) -> Result<()> {
        match self {
            Self::Js(client) => client.send(target, arguments).await,
            Self::Net(client) => client.send(target, arguments).await,
        }
    }

    /// Calls a method that must fail, and returns the error text.
    pub(crate) async fn failure(&self, target: &str, arguments: Json) -> Result<String> {
        match self.call(target, arguments).await? {
            Ok(result) => anyhow::bail!("{target} should fail, but gives {result}"),
            Err(text) => Ok(text),
        }
    }

    /// All items of a stream that must complete successfully.
    pub(crate) async fn stream(&self, target: &str, arguments: Json) -> Result<Vec<Json>> {
        match self {
            Self::Js(client) => {
                let streamed = client.stream(target, arguments).await?;
                ensure!(streamed.error.is_none(), "{streamed:?}");
                Ok(streamed.items)
            }
            Self::Net(client) => client.stream(target, arguments).await,
        }
    }

    pub(crate) async fn sum(&self, numbers: &[i64]) -> Result<Json> {
        match self {
            Self::Js(client) => {
                let upload = client.upload("numbers").await?;
                let feeding = async {
                    upload.feed(json!(numbers)).await?;
                    upload.complete().await
                };
                let (sum, fed) = tokio::join!(client.invoke("Sum", json!([upload.argument()])), feeding);
                fed?;
                sum
            }
            Self::Net(client) => client.upload("Sum", json!(numbers)).await,
        }
    }

    pub(crate) async fn expect(&mut self, target: &str) -> Result<Json> {
        named(format!("the message {target}"), self.expect_message(target)).await
    }

    async fn expect_message(&mut self, target: &str) -> Result<Json> {
        let arguments = match self {
            // Clients that answer a question also see it as a message.
            Self::Js(client) => loop {
                let message = client.next().await?;
                if message.target != "Question" {
                    ensure!(message.target == target, "{target} should come, but {message:?} did");
                    break message.arguments;
                }
            },
            Self::Net(client) => client.expect(target).await?,
        };
        Ok(arguments.first().cloned().unwrap_or_default())
    }

    /// Every `Message` before the fence that this guest sends to itself.
    pub(crate) async fn until_fence(&mut self) -> Result<Vec<Json>> {
        self.invoke("SendTo", json!([self.id()?, "the fence"])).await?;
        let mut seen = Vec::new();
        loop {
            match self.expect("Message").await? {
                text if text == "the fence" => return Ok(seen),
                other => seen.push(other),
            }
        }
    }

    pub(crate) async fn instance(&self) -> Result<String> {
        let who = self.invoke("WhoAmI", json!([])).await?;
        who["instance"].as_str().map(str::to_owned).with_context(|| format!("{who}"))
    }

    pub(crate) async fn close(&mut self) -> Result<()> {
        match self {
            Self::Js(client) => {
                client.begin_close().await?;
                while client.next().await.is_ok() {}
                Ok(())
            }
            Self::Net(client) => client.close().await,
        }
    }
}
