#![forbid(unsafe_code)]
//! The load tester against a real fleet: each profile for a second or two, and injected faults.

mod fault;
mod generator;
mod http_relay;
mod relay;

use anyhow::Result;
use fault::Fault;
use generator::{Outcome, fleet, run, run_until};
use http_relay::HttpRelay;
use relay::Relay;
use trunkline_tests::harness::fleet::{ACCESS_KEY, Proxy};
use trunkline_tests::harness::scenario::{run_test, until};

const SHORT: &str = "-u 0.3 -d 0.1 --settle 10";

#[test]
fn every_client_gets_every_broadcast() {
    run_test(async |fixture| {
        let (_app, [one, other]) = fleet(fixture).await?;
        let html = fixture.log_path("page").with_extension("html");
        let servers = format!("-s {} -s http://{}/bench", one.address(), other.address());
        let page = html.display();
        let outcome = run(fixture, &format!("broadcast {servers} -c 10 -r 2 -i 50 {SHORT} --html {page}")).await?;
        outcome.is_clean();
        assert_eq!((outcome.count("sent"), outcome.count("received")), (39, 39 * 20));
        assert!(outcome.text.contains("Clients=20, Received=780, Missed=0.00%, Min interval="), "{}", outcome.text);
        assert!(std::fs::read_to_string(html)?.contains("<polyline"));
        Ok(())
    });
}

#[test]
fn a_chat_reaches_its_rooms_and_only_them() {
    run_test(async |fixture| {
        let (_app, [one, other]) = fleet(fixture).await?;
        let servers = format!("-s {} -s {}", one.address(), other.address());
        for more in ["--protocol json", "--protocol messagepack --negotiate", "--payload 500"] {
            let arguments = format!("chat {servers} -c 20 -r 2 -i 10 -g 5 {SHORT} {more}");
            let outcome = run(fixture, &format!("{arguments} --access-key key-that-no-fleet-knows")).await?;
            // Clients with a foreign token are refused, and a run without clients is not clean.
            assert_eq!(outcome.status, 1, "{}", outcome.text);
            assert_eq!(outcome.report["tally"]["opened"], 0);
            let outcome = run(fixture, &arguments).await?;
            outcome.is_clean();
            assert!(outcome.count("sent") > 50, "{}", outcome.text);
            // Five rooms of eight.
            assert_eq!(outcome.count("received"), outcome.count("sent") * 8);
        }
        Ok(())
    });
}

#[test]
fn every_echo_comes_back() {
    run_test(async |fixture| {
        let (_app, [one, other]) = fleet(fixture).await?;
        let servers = format!("-s {} -s {}", one.address(), other.address());
        for profile in ["echo", "shared-echo"] {
            let token = trunkline_tests::harness::token::of_user(ACCESS_KEY, "somebody")?;
            let outcome = run(fixture, &format!("{profile} {servers} -c 5 -r 2 -i 50 {SHORT} --token {token}")).await?;
            outcome.is_clean();
            assert!(outcome.count("sent") > 500, "{}", outcome.text);
            assert!(outcome.text.contains("Avg latency:"));
        }
        Ok(())
    });
}

#[test]
fn idle_clients_stay_and_what_they_cost_is_told() {
    run_test(async |fixture| {
        let (app, [one, _other]) = fleet(fixture).await?;
        let watch = format!("--pid proxy={} --pid app={}", one.process.id()?, app.process.id()?);
        let metrics = format!("--metrics http://{}/metrics", one.admin());
        let outcome = run(fixture, &format!("idle -s {} -c 50 -r 1 {SHORT} {watch} {metrics}", one.address())).await?;
        outcome.is_clean();
        assert_eq!(outcome.report["tally"]["opened"], 50);
        assert_eq!(outcome.report["processes"][0]["name"], "proxy");
        assert!(outcome.report["processes"][0]["ready_bytes"].as_u64().unwrap_or(0) > 0);
        assert!(outcome.report["links"][0]["bytes"].is_u64());
        Ok(())
    });
}

#[test]
fn all_come_back_after_a_storm() {
    run_test(async |fixture| {
        let (_app, [one, other]) = fleet(fixture).await?;
        let servers = format!("-s {} -s {}", one.address(), other.address());
        let outcome = run(fixture, &format!("storm {servers} -c 30 -r 1 -i 200 {SHORT}")).await?;
        outcome.is_clean();
        let storms = outcome.report["tally"]["storms"].as_array().map_or(0, Vec::len);
        assert!(storms >= 1, "{}", outcome.text);
        assert_eq!(outcome.report["tally"]["opened"], 60 * (storms + 1));
        Ok(())
    });
}

#[test]
fn the_example_profile_files_run() {
    run_test(async |fixture| {
        let (_app, [one, other]) = fleet(fixture).await?;
        let servers = format!("-s {} -s {}", one.address(), other.address());
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/profiles");
        for (file, sent, received) in [("room", 70, 120), ("visitors", 20, 30), ("calls", 200, 200)] {
            let outcome = run(fixture, &format!("{folder}/{file}.toml {servers} -c 5 -r 2 {SHORT}")).await?;
            outcome.is_clean();
            assert_eq!((outcome.count("sent"), outcome.count("received")), (sent, received), "{}", outcome.text);
        }
        Ok(())
    });
}

#[test]
fn a_fault_is_reported_as_just_that_and_as_often_as_it_was_made() {
    run_test(async |fixture| {
        let (_app, [one, _other]) = fleet(fixture).await?;
        for (fault, name) in [(Fault::Drop, "lost"), (Fault::Duplicate, "duplicated"), (Fault::Swap, "reordered")] {
            let relay = Relay::start(one.address(), fault, 1_000).await?;
            let arguments = format!("broadcast -s {} -c 50 -r 2 -i 10 -u 0.3 -d 0 --settle 1", relay.address());
            let outcome = run(fixture, &arguments).await?;
            assert_eq!(outcome.status, 1, "{}", outcome.text);
            let misses = outcome.report["missing"].as_array().map_or(0, Vec::len);
            assert_eq!(misses, if fault == Fault::Drop { 9 } else { 0 }, "{}", outcome.text);
            // 199 ticks to 50 clients; one message in a thousand is faulty.
            assert_eq!((outcome.count("expected"), relay.made()), (9_950, 9), "{}", outcome.text);
            for counted in ["lost", "duplicated", "reordered", "misdelivered"] {
                let made = if counted == name { relay.made() } else { 0 };
                assert_eq!(outcome.count(counted), made, "{counted} when {name} is made: {}", outcome.text);
            }
        }
        Ok(())
    });
}

#[test]
fn a_fault_in_events_and_polls_is_reported_as_just_that() {
    run_test(async |fixture| {
        let (_app, [one, _other]) = fleet(fixture).await?;
        for transport in ["sse", "long-polling"] {
            for (fault, name) in [(Fault::Drop, "lost"), (Fault::Duplicate, "duplicated"), (Fault::Swap, "reordered")] {
                let relay = HttpRelay::start(one.address(), fault, 100).await?;
                let arguments = format!("broadcast -s {} -c 20 -r 0.6 -i 10 -u 0.1 -d 0 --settle 1", relay.address());
                let outcome = run(fixture, &format!("{arguments} --transport {transport}")).await?;
                // 59 ticks to 20 clients; one message in a hundred is faulty.
                assert_eq!((outcome.count("expected"), relay.made()), (1_180, 11), "{}", outcome.text);
                for counted in ["lost", "duplicated", "reordered", "misdelivered"] {
                    let made = if counted == name { relay.made() } else { 0 };
                    assert_eq!(outcome.count(counted), made, "{counted} when {name} is made: {}", outcome.text);
                }
            }
        }
        Ok(())
    });
}

#[test]
fn other_transports_bring_all_of_it_through_two_proxies() {
    run_test(async |fixture| {
        let (_app, [one, other]) = fleet(fixture).await?;
        let servers = format!("-s {} -s {}", one.address(), other.address());
        let token = trunkline_tests::harness::token::of_user(ACCESS_KEY, "somebody")?;
        for transport in ["sse", "long-polling", "long-polling --protocol messagepack"] {
            let more = format!("{servers} -r 1 {SHORT} --transport {transport}");
            let (broadcast, chat, echo, shared) = (
                format!("broadcast -c 10 -i 50 {more}"),
                format!("chat -c 20 -i 10 -g 5 --payload 300 {more}"),
                format!("echo -c 5 -i 50 --token {token} {more}"),
                format!("shared-echo -c 5 -i 50 {more}"),
            );
            // In parallel: each generator counts only its own messages.
            let (broadcast, chat, echo, shared) =
                tokio::join!(run(fixture, &broadcast), run(fixture, &chat), run(fixture, &echo), run(fixture, &shared));
            let (broadcast, chat, echos) = (broadcast?, chat?, [echo?, shared?]);
            broadcast.is_clean();
            assert_eq!((broadcast.count("sent"), broadcast.count("received")), (19, 19 * 20));
            chat.is_clean();
            assert!(chat.count("sent") > 20, "{}", chat.text);
            // Five rooms of eight.
            assert_eq!(chat.count("received"), chat.count("sent") * 8);
            for echo in echos {
                echo.is_clean();
                assert!(echo.count("sent") > 200, "{}", echo.text);
            }
            assert_eq!(broadcast.report["settings"]["negotiate"], true);
        }
        Ok(())
    });
}

#[test]
fn storms_profile_files_and_refusals_are_the_same_over_other_transports() {
    run_test(async |fixture| {
        let (_app, [one, other]) = fleet(fixture).await?;
        let servers = format!("-s {} -s {}", one.address(), other.address());
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/profiles");
        for transport in ["sse", "long-polling"] {
            let more = format!("{servers} {SHORT} --transport {transport}");
            let (storm, room, visitors, refused) = (
                format!("storm -c 10 -r 0.5 -i 200 {more}"),
                format!("{folder}/room.toml -c 5 -r 1 {more}"),
                format!("{folder}/visitors.toml -c 5 -r 1 {more}"),
                format!("idle -c 5 -r 0.1 {more} --access-key key-that-no-fleet-knows"),
            );
            let (storm, room, visitors, refused) = tokio::join!(
                run(fixture, &storm),
                run(fixture, &room),
                run(fixture, &visitors),
                run(fixture, &refused)
            );
            let (storm, refused) = (storm?, refused?);
            storm.is_clean();
            let storms = storm.report["tally"]["storms"].as_array().map_or(0, Vec::len);
            assert!(storms >= 1, "{}", storm.text);
            assert_eq!(storm.report["tally"]["opened"], 20 * (storms + 1));
            let sums = |outcome: &Outcome| (outcome.count("sent"), outcome.count("received"));
            for (outcome, expected) in [(room?, (70, 120)), (visitors?, (20, 30))] {
                outcome.is_clean();
                assert_eq!(sums(&outcome), expected, "{}", outcome.text);
            }
            assert_eq!(refused.report["tally"]["failed"]["negotiate answered 401"], 10, "{}", refused.text);
            // Disconnects are noticed immediately. So are cuts if a GET was open; polls have pauses anyway.
            let cut = if transport == "sse" { 0 } else { 20 * storms };
            until(async || {
                let open =
                    async |proxy: &Proxy| anyhow::Ok(proxy.metrics().await?.sum("trunkline_client_connections", &[]));
                Ok((open(&one).await? + open(&other).await? <= cut as f64).then_some(()))
            })
            .await?;
        }
        Ok(())
    });
}

#[test]
fn a_proxy_that_dies_is_seen_and_the_books_still_balance() {
    run_test(async |fixture| {
        let (_app, [one, mut other]) = fleet(fixture).await?;
        let servers = format!("-s {} -s {}", one.address(), other.address());
        let short = "-u 0.3 -d 0.1 --settle 3";
        let over = |transport: &str| format!("broadcast {servers} -c 5 -r 3 -i 20 {short} --transport {transport}");
        let [sockets, events, polls] = ["websockets", "sse", "long-polling"].map(over);
        let running = async { tokio::join!(run(fixture, &sockets), run(fixture, &events), run(fixture, &polls)) };
        let killing = async {
            until(async || {
                let metrics = other.metrics().await?;
                let count = |name: &str| metrics.sum(name, &[]);
                // All clients are connected and receive broadcasts: the runs have begun.
                let has_begun = count("trunkline_deliveries_total") > 500.0;
                Ok((has_begun && count("trunkline_client_connections") > 14.0).then_some(()))
            })
            .await?;
            other.process.kill().await
        };
        let ((sockets, events, polls), killed) = tokio::join!(running, killing);
        killed?;
        for outcome in [sockets?, events?, polls?] {
            assert_eq!(outcome.status, 1, "{}", outcome.text);
            let ended = outcome.report["tally"]["ended"].as_object().cloned().unwrap_or_default();
            assert_eq!(ended.values().filter_map(serde_json::Value::as_u64).sum::<u64>(), 5, "{}", outcome.text);
            assert_eq!(outcome.count("expected"), outcome.count("received") + outcome.count("lost"));
            // The five clients at the other proxy received everything.
            assert!(outcome.count("received") >= outcome.count("sent") * 5, "{}", outcome.text);
        }
        Ok(())
    });
}

#[test]
fn ctrl_c_ends_a_run_early_with_its_report() {
    run_test(async |fixture| {
        let (_app, [one, other]) = fleet(fixture).await?;
        let is_at_work = until(async || {
            let deliveries = one.metrics().await?.sum("trunkline_deliveries_total", &[]);
            Ok((deliveries > 100.0).then_some(()))
        });
        let servers = format!("-s {} -s {}", one.address(), other.address());
        let arguments = format!("broadcast {servers} -c 5 -r 600 -i 20 -u 0.3 -d 600");
        let outcome = run_until(is_at_work, fixture, &arguments).await?;
        assert_eq!(outcome.status, 130, "{}", outcome.text);
        assert_eq!((&outcome.report["is_cut_short"], &outcome.report["is_clean"]), (&true.into(), &true.into()));
        assert!(outcome.count("sent") > 10, "{}", outcome.text);
        assert_eq!(outcome.count("received"), outcome.count("sent") * 10);
        // Clients that were still connecting stop, without losing messages.
        let is_ramping_up = until(async || {
            let open = other.metrics().await?.sum("trunkline_client_connections", &[]);
            Ok((open > 2.0).then_some(()))
        });
        let arguments = format!("{}/profiles/room.toml {servers} -c 1000 -u 600", env!("CARGO_MANIFEST_DIR"));
        let outcome = run_until(is_ramping_up, fixture, &arguments).await?;
        assert_eq!((outcome.status, outcome.count("sent")), (130, 0), "{}", outcome.text);
        assert_eq!((&outcome.report["is_cut_short"], &outcome.report["is_clean"]), (&true.into(), &true.into()));
        Ok(())
    });
}

#[test]
fn reports_of_several_generators_add_up() {
    run_test(async |fixture| {
        let (_app, [one, other]) = fleet(fixture).await?;
        let arguments = |server: &str| format!("broadcast -s {server} -c 5 -r 1 -i 50 {SHORT}");
        let (one, other) = (arguments(one.address()), arguments(other.address()));
        // In parallel at one app server: each generator receives the other's messages, but counts only its own.
        let (one, other) = tokio::join!(run(fixture, &one), run(fixture, &other));
        let (one, other) = (one?, other?);
        one.is_clean();
        other.is_clean();
        let merged = run(fixture, &format!("merge {} {}", one.json.display(), other.json.display())).await?;
        merged.is_clean();
        assert_eq!(merged.count("received"), one.count("received") + other.count("received"));
        assert_eq!(merged.report["generators"], 2);
        Ok(())
    });
}

#[test]
fn an_invalid_run_says_why() {
    run_test(async |fixture| -> Result<()> {
        let refused = run(fixture, "idle -s 1 -c 3 -r 0.1 -u 0 -d 0").await?;
        assert_eq!((refused.status, &refused.report["tally"]["failed"]["connection refused"]), (1, &3.into()));
        for (arguments, reason) in [
            ("echo -s 1 --transport sse --skip", "only --transport websockets connects without negotiation"),
            ("echo -s 1 --transport long-polling --skip", "only --transport websockets connects without negotiation"),
            ("echo -s 1 --transport sse --protocol messagepack", "use --protocol json with it"),
            ("echo -s https://localhost", "TLS"),
            ("no-such-file -s 1", "is no profile"),
        ] {
            let outcome = run(fixture, arguments).await?;
            assert_eq!(outcome.status, 2);
            assert!(outcome.text.contains(reason), "{}", outcome.text);
        }
        Ok(())
    });
}
