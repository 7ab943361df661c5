//! A real ASP.NET Core app and real clients: everything that its hub can do, through one node and several endpoints.

use anyhow::{Context, Result, ensure};
use serde_json::{Value as Json, json};
use trunkline_tests::harness::client::{Client, Kind};
use trunkline_tests::harness::dotnet::{AspNetApp, run_dotnet_test, run_heavy_dotnet_test};
use trunkline_tests::harness::fleet::{App, Fleet, POOL_SIZE};
use trunkline_tests::harness::sockets::free_address;

use crate::dial_in::{DialIn, KEY, SECOND_KEY, connection_string};
use crate::guest::{Guest, Host, LIBRARIES, Library, ways};

/// Server connections of a real app: five for each of its two hubs.
pub(crate) const CONNECTIONS: usize = 10;

const JSON: Library = Library::Js(Kind::JsJson);
const PACKED: Library = Library::Js(Kind::JsMessagePack);

async fn calls(guest: &mut Guest, user: &str) -> Result<()> {
    let value = json!({ "n": 1, "list": [1, 2, 3], "nil": null, "text": "åß∂ƒ" });
    ensure!(guest.invoke("Echo", json!(["hello"])).await? == "hello");
    if matches!(guest, Guest::Js(_)) {
        ensure!(guest.invoke("Echo", json!([value.clone()])).await? == value);
    }
    guest.send("EchoBack", json!(["sent"])).await?;
    ensure!(guest.expect("Echoed").await? == "sent");
    let told = guest.failure("Fail", json!(["told so"])).await?;
    ensure!(told.contains("told so"), "{told}");
    let unknown = guest.failure("NoSuch", json!([])).await?;
    ensure!(unknown.contains("Method does not exist"), "{unknown}");
    ensure!(guest.stream("Count", json!([5, 1])).await? == [0, 1, 2, 3, 4].map(Json::from));
    ensure!(guest.sum(&[1, 2, 3]).await? == 6);
    ensure!(guest.invoke("Slow", json!([50])).await? == "slow");
    let who = guest.invoke("WhoAmI", json!([])).await?;
    ensure!(who["userId"] == user && who["isAdmin"] == true, "{who}");
    ensure!(who["remoteAddress"] == "127.0.0.1", "{who}");
    ensure!(who["query"].as_str().is_some_and(|query| query.contains(&format!("user={user}"))), "{who}");
    ensure!(who["userAgent"].as_str().is_some_and(|agent| agent.contains("SignalR")), "{who}");
    ensure!(who["connectionId"] == guest.id()?, "{who}");
    Ok(())
}

#[test]
fn calls_streams_uploads_errors_and_the_user_are_there_by_each_library_protocol_and_transport() {
    run_heavy_dotnet_test(async |fixture, dotnet| {
        let (dial_in, host) = (DialIn::open(fixture).await?, Host::new(fixture, dotnet));
        let mut app = host.app(&dial_in, "one", &[]).await?;
        dial_in.linked(CONNECTIONS).await?;
        let mut count = 0;
        for (library, transport) in ways() {
            let mut guest = host.invite_over(library, transport, &app, "ann").await?;
            calls(&mut guest, "ann").await.with_context(|| format!("{library:?} over {transport:?}"))?;
            let metrics = dial_in.node.metrics().await?;
            let label = [("transport", transport.name())];
            ensure!(metrics.sum("trunkline_client_connections", &label) >= 1.0, "{library:?} over {transport:?}");
            guest.close().await?;
            count += 1;
        }
        // The hub saw the end of each connection once, without errors.
        app.process.wait_for_lines("disconnected ", count).await?;
        ensure!(app.printed("connected") == count && app.printed("disconnected") == count, "{}", app.process.log());
        let errors = app.process.lines_after("disconnected ");
        ensure!(errors.iter().all(|line| line.split_whitespace().count() == 1), "{errors:?}");
        Ok(())
    });
}

async fn have(guests: &mut [Guest], expected: &[&[Json]]) -> Result<()> {
    for (number, (guest, expected)) in guests.iter_mut().zip(expected).enumerate() {
        let seen = guest.until_fence().await?;
        ensure!(seen == *expected, "guest {number} got {seen:?} where {expected:?} were due");
    }
    Ok(())
}

/// Sends of all kinds: guests are ann, bob, cid and a second bob; group red has the first two, blue the third.
async fn sends(guests: &mut [Guest], app: &AspNetApp) -> Result<()> {
    let ids: Vec<String> = guests.iter().map(Guest::id).collect::<Result<_>>()?;
    for (guest, group) in guests.iter().zip(["red", "red", "blue"]) {
        guest.invoke("Join", json!([group])).await?;
    }
    let ann = |target: &'static str, arguments: Json| (target, arguments);
    let calls = [
        (ann("SendToGroup", json!(["red", 1])), [true, true, false, false]),
        (ann("SendToGroup", json!(["none", 2])), [false; 4]),
        (ann("SendToGroups", json!([["red", "blue"], 3])), [true, true, true, false]),
        (ann("SendToGroupExcept", json!(["red", [ids[0]], 4])), [false, true, false, false]),
        (ann("OthersInGroup", json!(["red", 5])), [false, true, false, false]),
        (ann("Broadcast", json!([6])), [true; 4]),
        (ann("BroadcastExcept", json!([[ids[1], "nobody"], 7])), [true, false, true, true]),
        (ann("Others", json!([8])), [false, true, true, true]),
        (ann("SendTo", json!([ids[2], 9])), [false, false, true, false]),
        (ann("SendTo", json!(["nobody", 10])), [false; 4]),
        (ann("SendToMany", json!([[ids[0], ids[2]], 11])), [true, false, true, false]),
        (ann("SendToUser", json!(["bob", 12])), [false, true, false, true]),
        (ann("SendToUsers", json!([["bob", "cid"], 13])), [false, true, true, true]),
    ];
    for ((target, arguments), reached) in calls {
        let number = arguments.as_array().and_then(|all| all.last()).cloned().context("a number")?;
        guests[0].invoke(target, arguments).await?;
        // Check before the next send: the SDK sends to one client by that client's server connection, but to several by
        // any, so two such sends reach a client in either order, with every service.
        for (number_of, (guest, _)) in guests.iter_mut().zip(reached).enumerate().filter(|(_, (_, reached))| *reached) {
            let came = guest.expect("Message").await?;
            ensure!(came == number, "guest {number_of} got {came} where {number} was due");
        }
    }
    guests[0].invoke("Leave", json!(["red"])).await?;
    guests[0].invoke("SendToGroup", json!(["red", 14])).await?;
    ensure!(guests[1].expect("Message").await? == 14);
    have(guests, &[&[], &[], &[], &[]]).await?;
    // Sent outside any hub, with the app's `IHubContext`.
    let answer = trunkline_tests::harness::http_client::post(app.address(), "/announce/blue").await?;
    ensure!(answer.status.is_success(), "{answer:?}");
    ensure!(guests[2].expect("Message").await? == "announced");
    Ok(())
}

async fn four(host: &Host<'_>, app: &AspNetApp) -> Result<Vec<Guest>> {
    let mut guests = Vec::new();
    for (library, user) in LIBRARIES.into_iter().zip(["ann", "bob", "cid", "bob"]) {
        guests.push(host.invite(library, app, user).await?);
    }
    Ok(guests)
}

#[test]
fn sends_over_two_endpoints_reach_just_those_they_are_for() {
    run_dotnet_test(async |fixture, dotnet| {
        let dial_ins = [DialIn::open(fixture).await?, DialIn::open_as(fixture, "dial-in-2").await?];
        let host = Host::new(fixture, dotnet);
        let app = host.app_of(&dial_ins, "one", &[]).await?;
        for dial_in in &dial_ins {
            dial_in.linked(CONNECTIONS).await?;
        }
        // The SDK chooses each client's endpoint at random.
        let mut guests = four(&host, &app).await?;
        sends(&mut guests, &app).await
    });
}

#[test]
fn client_results_come_from_clients_of_the_same_and_of_another_app_server() {
    run_dotnet_test(async |fixture, dotnet| {
        let (dial_in, host) = (DialIn::open(fixture).await?, Host::new(fixture, dotnet));
        let apps = [host.app(&dial_in, "one", &[]).await?, host.app(&dial_in, "two", &[]).await?];
        dial_in.linked(2 * CONNECTIONS).await?;
        let mut guests = Vec::new();
        for (number, library) in LIBRARIES.into_iter().chain(LIBRARIES).enumerate() {
            guests.push(host.invite(library, &apps[number % 2], &format!("user-{number}")).await?);
        }
        let mut instances = std::collections::BTreeSet::new();
        for guest in &guests {
            instances.insert(guest.instance().await?);
        }
        ensure!(instances.len() == 2, "all guests are at {instances:?}");
        // Checks that no client has received a request yet: the SDK fails on immediate answers.
        for asking in &guests {
            for asked in &guests {
                let answer = asking.invoke("Ask", json!([asked.id()?, "what"])).await?;
                ensure!(answer == 42, "{answer}");
            }
            let nobody = asking.failure("Ask", json!(["nobody", "what"])).await?;
            ensure!(nobody.contains("nobody"), "{nobody}");
        }
        Ok(())
    });
}

#[test]
fn apps_of_different_names_share_a_node_and_no_message() {
    run_dotnet_test(async |fixture, dotnet| {
        let (dial_in, host) = (DialIn::open(fixture).await?, Host::new(fixture, dotnet));
        let one = host.app(&dial_in, "one", &[("--application", "First")]).await?;
        let two = host.app(&dial_in, "two", &[("--application", "Second")]).await?;
        let mut guests = [host.invite(JSON, &one, "ann").await?, host.invite(PACKED, &two, "ann").await?];
        for (number, instance) in ["one", "two"].into_iter().enumerate() {
            ensure!(guests[number].instance().await? == instance);
            guests[number].invoke("Join", json!(["red"])).await?;
            guests[number].invoke("Broadcast", json!([instance])).await?;
            guests[number].invoke("SendToUser", json!(["ann", instance])).await?;
            guests[number].invoke("SendToGroup", json!(["red", instance])).await?;
        }
        let thrice = |text: &str| vec![json!(text); 3];
        have(&mut guests, &[&thrice("one"), &thrice("two")]).await
    });
}

#[test]
fn a_wrong_key_is_named_in_the_apps_log_and_the_second_key_does() {
    run_dotnet_test(async |fixture, dotnet| {
        let (dial_in, host) = (DialIn::open(fixture).await?, Host::new(fixture, dotnet));
        let wrong = connection_string(dial_in.address(), &KEY.replace("ABC", "CBA"));
        let mut app = dotnet.app(fixture).connection(&wrong).argument("--log", "Information").start().await?;
        // The SDK shows only the status of a refused upgrade.
        app.process.wait_for_log("401").await?;
        ensure!(dial_in.node.metrics().await?.sum("trunkline_links", &[("state", "open")]) == 0.0);
        let right = connection_string(dial_in.address(), SECOND_KEY);
        let mut app = dotnet.app(fixture).connection(&right).instance("second").start().await?;
        app.redirects("/bench").await?;
        let guest = host.invite(JSON, &app, "ann").await?;
        ensure!(guest.instance().await? == "second");
        Ok(())
    });
}

#[test]
fn a_rust_hub_and_a_dotnet_hub_of_one_name_are_two_hubs() {
    run_dotnet_test(async |fixture, dotnet| {
        let fleet = Fleet::with_keys(fixture, KEY);
        let rust = fleet.app(App::Bench).await?;
        let mut node = fleet.proxy_of(&free_address()?, &free_address()?, &[rust.address()], &[])?;
        node.ready().await?;
        node.linked(POOL_SIZE).await?;
        let dial_in = DialIn { node };
        let host = Host::new(fixture, dotnet);
        let app = host.app(&dial_in, "one", &[]).await?;
        let dotnet_guest = host.invite(JSON, &app, "ann").await?;
        let builder = host.agents().client(Kind::JsJson, &dial_in.node.url("/bench")).subscribe(&["Message", "Notice"]);
        let rust_client = builder.open().await?;
        ensure!(rust_client.invoke("Echo", json!([7])).await? == 7);
        ensure!(dotnet_guest.invoke("Echo", json!(["x"])).await? == "x");
        dotnet_guest.invoke("Broadcast", json!(["for .NET"])).await?;
        rust_client.invoke("Join", json!(["red"])).await?;
        dotnet_guest.invoke("Join", json!(["red"])).await?;
        dotnet_guest.invoke("SendToGroup", json!(["red", "for .NET, too"])).await?;
        have(&mut [dotnet_guest], &[&[json!("for .NET"), json!("for .NET, too")]]).await?;
        nothing_came(rust_client).await
    });
}

/// Asserts that a client subscribed to everything has received nothing.
async fn nothing_came(mut client: Client) -> Result<()> {
    client.invoke("Echo", json!(["fence"])).await?;
    // The first event must be the end of the connection.
    client.close().await
}

#[test]
fn a_message_near_the_limit_of_the_hub_goes_both_ways() {
    run_dotnet_test(async |fixture, dotnet| {
        let (dial_in, host) = (DialIn::open(fixture).await?, Host::new(fixture, dotnet));
        let app = host.app(&dial_in, "one", &[]).await?;
        for library in LIBRARIES {
            let mut guest = host.invite(library, &app, "ann").await?;
            for size in [2_000, 30_000] {
                let text = "x".repeat(size);
                ensure!(guest.invoke("Echo", json!([text])).await? == text.as_str(), "{library:?} {size}");
            }
            guest.close().await?;
        }
        Ok(())
    });
}
