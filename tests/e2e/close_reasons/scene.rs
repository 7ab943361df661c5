//! A node and an app server, with the names that both give to each end of a connection.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use trunkline_tests::harness::fleet::{App, AppServer, Fleet, POOL_SIZE, Proxy};
use trunkline_tests::harness::http_client::{self, Answer};
use trunkline_tests::harness::http_transport::CarriedClient;
use trunkline_tests::harness::metrics::Metrics;
use trunkline_tests::harness::raw::{JSON_HANDSHAKE, RawClient};
use trunkline_tests::harness::scenario::{Fixture, until};
use trunkline_tests::harness::sockets::free_address;

const CLOSED: &str = "trunkline_client_connections_closed_total";
const REFUSED: &str = "trunkline_client_connections_refused_total";
const CLOSED_AT_APP: &str = "trunkline_app_connections_closed_total";

/// Hubs and raw endpoints of the app server.
const HUBS: usize = 5;

/// Number of ends so far, by cause.
type Tally = BTreeMap<String, f64>;

pub(super) struct CloseScene {
    pub(super) app: AppServer,
    pub(super) proxy: Proxy,
    closed: Tally,
    closed_at_app: Tally,
    refused: Tally,
}

impl CloseScene {
    pub(super) async fn start(fixture: &Fixture, more: &[&str]) -> Result<Self> {
        let fleet = Fleet::new(fixture);
        let app = fleet.app(App::Ends).await?;
        let address = app.address().to_owned();
        Self::over(&fleet, app, &address, more).await
    }

    /// Creates the scene with an app server reached at another address.
    pub(super) async fn over(fleet: &Fleet<'_>, app: AppServer, upstream: &str, more: &[&str]) -> Result<Self> {
        let arguments = [&["--log", "info,trunkline_proxy=debug", "--log-format", "json"], more].concat();
        let mut proxy = fleet.proxy_of(&free_address()?, &free_address()?, &[upstream], &arguments)?;
        proxy.ready().await?;
        let none = Tally::new;
        let scene = Self { app, proxy, closed: none(), closed_at_app: none(), refused: none() };
        scene.linked().await?;
        Ok(scene)
    }

    pub(super) async fn linked(&self) -> Result<()> {
        self.proxy.linked(HUBS * POOL_SIZE).await
    }

    pub(super) async fn join(&self, path: &str) -> Result<(RawClient, String)> {
        let mut client = RawClient::join(self.proxy.address(), path).await?;
        let id = id_of(&mut client).await?;
        Ok((client, id))
    }

    pub(super) async fn join_with_handle(&self, path: &str) -> Result<(std::net::TcpStream, RawClient, String)> {
        let stream = std::net::TcpStream::connect(self.proxy.address())?;
        let handle = spare_handle(&stream)?;
        stream.set_nonblocking(true)?;
        let mut client = RawClient::join_over(TcpStream::from_std(stream)?, self.proxy.address(), path).await?;
        let id = id_of(&mut client).await?;
        Ok((handle, client, id))
    }

    pub(super) async fn join_line(&self) -> Result<(RawClient, String)> {
        let mut client = RawClient::open(self.proxy.address(), "/line").await?;
        let id = client.next_message().await?.into_text()?.to_string();
        Ok((client, id))
    }

    /// Negotiates a client, and returns its id.
    pub(super) async fn negotiated(&self, path: &str) -> Result<(CarriedClient, String)> {
        let (id, token) = negotiate(&self.proxy, path).await?;
        Ok((CarriedClient::with_token(self.proxy.address(), path, &token), id))
    }

    /// Connects a polling client, and returns its id.
    pub(super) async fn carried(&self, path: &str) -> Result<(CarriedClient, String)> {
        let (client, id) = self.negotiated(path).await?;
        client.poll().await?;
        client.send(JSON_HANDSHAKE).await?;
        let welcome = client.poll().await?;
        ensure!(welcome.body.starts_with("{}"), "{welcome:?}");
        Ok((client, id))
    }

    /// Answer of the node about a connection.
    pub(super) async fn why(&self, id: &str) -> Result<Answer> {
        http_client::get(self.proxy.admin(), &format!("/api/why/{id}")).await
    }

    /// Checks that a hub connection has ended for this cause, at both ends.
    pub(super) async fn closed(&mut self, id: &str, hub: &str, cause: &str) -> Result<()> {
        self.closed_at_node(id, hub, cause).await?;
        let told = self.app.process.wait_for_line(&format!("disconnected {id} ")).await?;
        ensure!(told == format!("disconnected {id} {cause}"), "the hook is told: {told}");
        *self.closed_at_app.entry(cause.into()).or_default() += 1.0;
        Ok(())
    }

    /// Checks the end of a raw connection, for which no hook runs.
    pub(super) async fn closed_line(&mut self, id: &str, cause: &str) -> Result<()> {
        self.closed_unheard(id, "line", cause).await
    }

    /// Checks an end for which no hook runs.
    pub(super) async fn closed_unheard(&mut self, id: &str, hub: &str, cause: &str) -> Result<()> {
        self.closed_at_node(id, hub, cause).await?;
        *self.closed_at_app.entry(cause.into()).or_default() += 1.0;
        Ok(())
    }

    /// Checks that a connection has ended for this cause at the node.
    pub(super) async fn closed_at_node(&mut self, id: &str, hub: &str, cause: &str) -> Result<()> {
        let why = self.ended(id, "closed").await?;
        ensure!((&why["cause"], &why["hub"]) == (&json!(cause), &json!(hub)), "{why} instead of {cause}");
        ensure!(why["text"].as_str().is_some_and(|text| !text.is_empty()), "{why}");
        let logged = self.logged(id).await?;
        ensure!((&logged["cause"], &logged["hub"]) == (&json!(cause), &json!(hub)), "the log says: {logged}");
        ensure!(logged["node"].is_string() && logged["message"] == "client connection closed", "{logged}");
        *self.closed.entry(cause.into()).or_default() += 1.0;
        Ok(())
    }

    /// Checks that a connection was refused at its hub handshake.
    pub(super) async fn refused(&mut self, id: &str, cause: &str) -> Result<()> {
        let why = self.ended(id, "refused").await?;
        ensure!(why["cause"] == json!(cause), "{why} instead of {cause}");
        let logged = self.logged(id).await?;
        ensure!(logged["cause"] == json!(cause), "the log says: {logged}");
        *self.refused.entry(cause.into()).or_default() += 1.0;
        Ok(())
    }

    /// Checks that an upgrade is refused with this status and cause.
    pub(super) async fn refused_request(
        &self,
        path: &str,
        headers: &[(&'static str, &str)],
        status: u16,
        id: Option<&str>,
        cause: &str,
    ) -> Result<()> {
        let before = self.counted("trunkline_requests_refused_total", cause).await?;
        match RawClient::try_open_with(self.proxy.address(), path, headers).await? {
            Ok(_) => bail!("{path} is not refused"),
            Err(refusal) => ensure!(refusal.status == status, "{refusal:?}"),
        }
        let after = self.counted("trunkline_requests_refused_total", cause).await?;
        ensure!(after == before + 1.0, "{cause} is counted {before}, then {after} times");
        if let Some(id) = id {
            let why = self.why(id).await?.json()?;
            ensure!((&why["state"], &why["cause"]) == (&json!("refused"), &json!(cause)), "{why} instead of {cause}");
        }
        Ok(())
    }

    /// Count of a cause in the metrics.
    pub(super) async fn counted(&self, name: &str, cause: &str) -> Result<f64> {
        Ok(self.proxy.metrics().await?.sum(name, &[("cause", cause)]))
    }

    /// Checks that both ends have counted exactly the ends so far.
    pub(super) async fn agree(&self) -> Result<()> {
        agree(&self.proxy.metrics().await?, CLOSED, &self.closed)?;
        // The app server counts an end slightly later.
        until(async || {
            let metrics = Metrics::of(self.app.address()).await?;
            let all: f64 = self.closed_at_app.values().sum();
            if metrics.sum(CLOSED_AT_APP, &[]) < all {
                return Ok(None);
            }
            agree(&metrics, CLOSED_AT_APP, &self.closed_at_app).map(Some)
        })
        .await
    }

    /// Checks the counts of refusals, by cause.
    pub(super) async fn agree_about_refusals(&self) -> Result<()> {
        agree(&self.proxy.metrics().await?, REFUSED, &self.refused)
    }

    /// Log line of the node about the end of a connection.
    pub(super) async fn logged(&self, id: &str) -> Result<Value> {
        until(async || {
            let log = self.proxy.process.log();
            let lines = log.lines().filter(|line| line.starts_with('{') && line.contains(id));
            let lines =
                lines.map(|line| serde_json::from_str::<Value>(line).with_context(|| format!("not JSON: {line}")));
            let lines = lines.collect::<Result<Vec<_>>>()?;
            Ok(lines.into_iter().find(|line| line["connection"] == json!(id) && line["cause"].is_string()))
        })
        .await
    }

    async fn ended(&self, id: &str, state: &str) -> Result<Value> {
        until(async || {
            let answer = self.why(id).await?;
            let is_over = answer.status == 200 && answer.json()?["state"] != json!("open");
            is_over.then(|| answer.json()).transpose()
        })
        .await
        .and_then(|why| {
            ensure!(why["state"] == json!(state), "{why} is not {state}");
            Ok(why)
        })
        .with_context(|| format!("why {id} has ended"))
    }
}

fn agree(metrics: &Metrics, name: &str, seen: &Tally) -> Result<()> {
    for (cause, count) in seen {
        let counted = metrics.sum(name, &[("cause", cause)]);
        ensure!(counted == *count, "{name} of {cause} is {counted} instead of {count}");
    }
    let (all, counted) = (seen.values().sum::<f64>(), metrics.sum(name, &[]));
    ensure!(counted == all, "{name} is {counted} in all, and not {all}: something has another cause, too");
    Ok(())
}

pub(super) fn spare_handle(stream: &std::net::TcpStream) -> Result<std::net::TcpStream> {
    Ok(stream.try_clone()?)
}

pub(super) async fn id_of<S>(client: &mut RawClient<S>) -> Result<String>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    let answer = client.call("Id", json!([])).await?;
    answer["result"].as_str().map(str::to_owned).context("the hub tells the id")
}

/// Connection id, which the raw endpoint sends first in a short frame.
pub(super) async fn read_line_id(socket: &mut TcpStream) -> Result<String> {
    let mut head = [0; 2];
    socket.read_exact(&mut head).await?;
    let mut id = vec![0; usize::from(head[1])];
    socket.read_exact(&mut id).await?;
    Ok(String::from_utf8(id)?)
}

/// Negotiates, and returns the id and the connection token.
pub(super) async fn negotiate(proxy: &Proxy, path: &str) -> Result<(String, String)> {
    let answer = http_client::post(proxy.address(), &format!("{path}/negotiate?negotiateVersion=1")).await?.json()?;
    let text = |name: &str| answer[name].as_str().map(str::to_owned).with_context(|| format!("no {name}: {answer}"));
    Ok((text("connectionId")?, text("connectionToken")?))
}
