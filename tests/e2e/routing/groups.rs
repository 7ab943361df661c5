//! Groups of app servers: their keys, TLS, pools and weights.

use trunkline_tests::harness::client::{Agents, Kind};
use trunkline_tests::harness::fleet::{Fleet, POOL_SIZE};
use trunkline_tests::harness::process::Signal;
use trunkline_tests::harness::scenario::run_test;
use trunkline_tests::harness::tls::{Authority, TlsEnd};

use super::ruled_fleet::{HUBS, RuledNode, group, home, named, routes};

const TO_CANARY: [&str; 1] = ["hub = \"/chat\"\ngroup = \"canary\""];

#[test]
fn a_group_has_an_access_key_of_its_own() {
    run_test(async |fixture| {
        let fleet = Fleet::new(fixture);
        let foreign = Fleet::with_keys(fixture, "the access key of the canary alone");
        let (stable, canary) = (named(&fleet, "stable").await?, named(&foreign, "canary").await?);
        let without_key = group("canary", &canary);
        let with_key = format!("{without_key}access-key = \"the access key of the canary alone\"\n");
        let mut node = RuledNode::with_apps(&fleet, &stable, &["stable"], &without_key).await?;
        node.proxy.process.wait_for_log("waiting for the app server").await?;
        assert_eq!(node.links("canary").await?, 0);
        node.reload(&(with_key + &routes(TO_CANARY))).await?;
        node.linked("canary", HUBS * POOL_SIZE).await?;
        let agents = Agents::new(fixture);
        let client = agents.client(Kind::JsJson, &node.chat()).open().await?;
        assert_eq!(home(&client).await?, "canary");
        assert_eq!(node.page("/page").await?, "stable");
        Ok(())
    });
}

#[test]
fn a_group_has_certificates_of_its_own() {
    run_test(async |fixture| {
        let fleet = Fleet::new(fixture);
        let (stable, canary) = (named(&fleet, "stable").await?, named(&fleet, "canary").await?);
        let (authority, clients) = (Authority::new(fixture, "servers")?, Authority::new(fixture, "nodes")?);
        let (server, own) = (authority.sign("canary", &["localhost"])?, clients.sign("node", &["node"])?);
        let end = TlsEnd::for_clients_of(&clients, &server, canary.address()).await?;
        let port = end.address().rsplit(':').next().unwrap_or_default();
        let (certificate, key) = own.arguments()?;
        let rules = format!(
            "[groups.canary]\nupstream = \"https://localhost:{port}\"\nupstream-ca = {:?}\nupstream-cert = \
             {certificate:?}\nupstream-key = {key:?}\n",
            authority.file
        );
        let rules =
            rules + &routes(["hub = \"/chat\"\ngroup = \"canary\"", "path = \"/page/new\"\ngroup = \"canary\""]);
        let mut node = RuledNode::with_apps(&fleet, &stable, &["stable", "canary"], &rules).await?;
        let agents = Agents::new(fixture);
        let client = agents.client(Kind::JsJson, &node.chat()).open().await?;
        assert_eq!(home(&client).await?, "canary");
        assert_eq!([node.page("/page").await?, node.page("/page/new").await?], ["stable", "canary"]);
        // Missing files are reported, and the old rules stay active.
        let broken = rules.replace("authority.pem", "no-such.pem");
        node.change(&broken, "invalid", Some(Signal::Hangup)).await?;
        node.proxy.process.wait_for_log("no-such.pem").await?;
        assert_eq!(home(&client).await?, "canary");
        Ok(())
    });
}

#[test]
fn pool_sizes_are_those_of_the_group_and_weights_are_shares_of_its_clients() {
    run_test(async |fixture| {
        let fleet = Fleet::new(fixture);
        let (stable, one, two) =
            (named(&fleet, "stable").await?, named(&fleet, "one").await?, named(&fleet, "two").await?);
        let (first, second) = (format!("http://{}", one.address()), format!("http://{}", two.address()));
        let rules = format!(
            "[groups.default]\npool-size = 3\n[groups.canary]\nupstream = [{first:?}, {second:?}]\npool-size = \
             1\nweights = {{ {first:?} = 4 }}\n"
        );
        let node = RuledNode::start(&fleet, &[&stable], &(rules.clone() + &routes(TO_CANARY)), &[]).await?;
        for (name, links) in [("stable", 3), ("one", 1), ("two", 1)] {
            node.linked(name, HUBS * links).await?;
            assert_eq!(node.links(name).await?, HUBS * links, "{name}");
        }
        let agents = Agents::new(fixture);
        let mut clients = Vec::new();
        let mut count = async |expected: [usize; 2]| {
            let mut homes = Vec::new();
            for _ in 0..20 {
                let client = agents.client(Kind::JsJson, &node.chat()).open().await?;
                homes.push(home(&client).await?);
                clients.push(client);
            }
            let found = ["one", "two"].map(|name| homes.iter().filter(|home| *home == name).count());
            assert_eq!(found, expected);
            Ok::<_, anyhow::Error>(())
        };
        count([16, 4]).await?;
        // Weights apply immediately to new clients.
        node.reload(&(rules.replace("= 4 }", "= 1 }") + &routes(TO_CANARY))).await?;
        count([10, 10]).await
    });
}
