//! Change of the access key while the fleet serves: processes restart one at a time, proxies or app servers first.

use anyhow::Result;
use serde_json::json;
use trunkline_protocol::access_token;
use trunkline_protocol::key::AccessKey;
use trunkline_protocol::manifest::Transport;
use trunkline_protocol::unix_time::unix_seconds;
use trunkline_tests::harness::balancer::{Balancer, Rule};
use trunkline_tests::harness::client::{Agents, Kind};
use trunkline_tests::harness::fleet::{App, AppServer, Fleet, POOL_SIZE, Proxy};
use trunkline_tests::harness::process::{Process, Signal};
use trunkline_tests::harness::scenario::{Fixture, run_test};
use trunkline_tests::harness::sockets::free_address;

const OLD: &str = "the old access key of these tests";
const NEW: &str = "the new access key of these tests";

/// Part of the fleet that restarts with other keys.
#[derive(Debug, Clone, Copy)]
enum Part {
    App,
    Proxy(usize),
}

/// Keys after each step, as documented.
fn steps() -> [String; 3] {
    [format!("{OLD},{NEW}"), format!("{NEW},{OLD}"), NEW.to_owned()]
}

async fn stop(process: &mut Process) -> Result<()> {
    process.signal(Signal::Terminate).await?;
    process.ended().await?;
    Ok(())
}

/// Checks that all links are open, and that clients can connect with requests to different proxies, as a user with a
/// token of the app server.
async fn serves(fixture: &Fixture, proxies: &mut [Proxy; 2], keys_of_app: &str) -> Result<()> {
    for proxy in proxies.iter_mut() {
        proxy.ready().await?;
        proxy.linked(POOL_SIZE).await?;
    }
    let [one, other] = proxies;
    let key = AccessKey::new(keys_of_app.split(',').next().unwrap_or_default())?;
    let token = access_token::sign(&key, "ann", &[], unix_seconds(std::time::SystemTime::now()) + 600);
    let agents = Agents::new(fixture);
    for (first, second) in [(&*one, &*other), (&*other, &*one)] {
        let balancer = Balancer::start(Rule::Apart, &[first.address(), second.address()]).await?;
        for transport in [Transport::WebSockets, Transport::LongPolling] {
            let builder = agents.client(Kind::JsJson, &balancer.url("/bench")).transport(transport);
            let mut client = builder.access_token(&token).open().await?;
            assert_eq!(client.invoke("WhoAmI", json!([])).await?["userId"], "ann");
            client.close().await?;
        }
    }
    Ok(())
}

fn change_keys(order: [Part; 3]) {
    run_test(async |fixture| {
        let (app_address, addresses) = (free_address()?, [free_address()?, free_address()?]);
        let start_app = async |keys: &str| -> Result<AppServer> {
            let mut app = Fleet::with_keys(fixture, keys).app_at(App::Bench, &app_address, &[])?;
            app.listening().await?;
            Ok(app)
        };
        let start_proxy = |place: usize, keys: &str| {
            Fleet::with_keys(fixture, keys).proxy_at(&addresses[place], &free_address()?, &[&app_address])
        };
        let (mut app, mut keys_of_app) = (start_app(OLD).await?, OLD.to_owned());
        let mut proxies = [start_proxy(0, OLD)?, start_proxy(1, OLD)?];
        serves(fixture, &mut proxies, OLD).await?;
        for keys in steps() {
            for part in order {
                match part {
                    Part::App => {
                        stop(&mut app.process).await?;
                        (app, keys_of_app) = (start_app(&keys).await?, keys.clone());
                    }
                    Part::Proxy(place) => {
                        stop(&mut proxies[place].process).await?;
                        proxies[place] = start_proxy(place, &keys)?;
                    }
                }
                serves(fixture, &mut proxies, &keys_of_app).await?;
            }
        }
        Ok(())
    });
}

#[test]
fn the_key_changes_without_a_gap_when_proxies_go_first() {
    change_keys([Part::Proxy(0), Part::Proxy(1), Part::App]);
}

#[test]
fn the_key_changes_without_a_gap_when_app_servers_go_first() {
    change_keys([Part::App, Part::Proxy(0), Part::Proxy(1)]);
}

#[test]
fn a_proxy_with_the_new_key_first_has_links_to_an_app_server_with_the_old_one_alone() {
    run_test(async |fixture| {
        let app = Fleet::with_keys(fixture, OLD).app(App::Bench).await?;
        // Waits for its links.
        Fleet::with_keys(fixture, &format!("{NEW},{OLD}")).proxy(&app).await?;
        Ok(())
    });
}
