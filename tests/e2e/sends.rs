//! Every kind of send reaches exactly its recipients, one copy each, across nodes, libraries and protocols.
//!
//! Each send is followed by a fence to everyone from the same sender, so all copies arrive before the fence.

use std::collections::BTreeMap;

use anyhow::Result;
use serde_json::{Value, json};
use trunkline_tests::harness::client::{Agents, Client, Kind, Message};
use trunkline_tests::harness::fleet::{ACCESS_KEY, App, Fleet, Proxy};
use trunkline_tests::harness::scenario::run_test;
use trunkline_tests::harness::token;

/// Clients by number: 0 to 3 at the first proxy, each of a different kind, and 4 to 7 at the second.
const CLIENTS: usize = 8;
const USERS: [Option<&str>; CLIENTS] =
    [Some("alice"), Some("bob"), Some("carol"), None, Some("alice"), Some("bob"), None, None];
const RED: [usize; 4] = [0, 1, 4, 6];
const BLUE: [usize; 2] = [2, 5];

struct Crowd {
    clients: Vec<Client>,
    ids: Vec<String>,
    fences: usize,
}

impl Crowd {
    async fn open(agents: &Agents<'_>, proxies: &[Proxy; 2]) -> Result<Self> {
        let mut crowd = Self { clients: Vec::new(), ids: Vec::new(), fences: 0 };
        for (number, user) in USERS.iter().enumerate() {
            let url = proxies[number / 4].url("/sends");
            let mut builder = agents.client(Kind::ALL[number % 4], &url).subscribe(&["Received", "Fence"]);
            if let Some(user) = user {
                builder = builder.access_token(&token::of_user(ACCESS_KEY, user)?);
            }
            let client = builder.open().await?;
            crowd.ids.push(client.connection_id()?.to_owned());
            crowd.clients.push(client);
        }
        for (group, members) in [("red", RED.as_slice()), ("blue", &BLUE)] {
            for member in members {
                crowd.clients[*member].invoke("Join", json!([group])).await?;
            }
        }
        Ok(crowd)
    }

    fn ids_of(&self, numbers: &[usize]) -> Value {
        numbers.iter().map(|number| self.ids[*number].as_str()).collect()
    }

    /// Calls a sending method, and returns the number of copies per client.
    async fn receivers(
        &mut self,
        caller: usize,
        method: &str,
        mut arguments: Vec<Value>,
    ) -> Result<BTreeMap<usize, usize>> {
        self.fences += 1;
        let tag = format!("{method} {}", self.fences);
        arguments.push(json!(tag));
        self.clients[caller].invoke(method, Value::Array(arguments)).await?;
        self.clients[caller].invoke("Fence", json!([self.fences])).await?;
        let fence = Message { target: "Fence".into(), arguments: vec![json!(self.fences)] };
        let received = Message { target: "Received".into(), arguments: vec![json!(tag)] };
        let mut copies = BTreeMap::new();
        for (number, client) in self.clients.iter_mut().enumerate() {
            let seen = client.before(&fence).await?;
            assert!(seen.iter().all(|message| *message == received), "client {number} saw {seen:?}");
            if !seen.is_empty() {
                copies.insert(number, seen.len());
            }
        }
        Ok(copies)
    }

    async fn expect(&mut self, caller: usize, method: &str, arguments: Vec<Value>, numbers: &[usize]) -> Result<()> {
        let expected: BTreeMap<usize, usize> = numbers.iter().map(|number| (*number, 1)).collect();
        let shown = format!("{method} by {caller} with {arguments:?}");
        assert_eq!(self.receivers(caller, method, arguments).await?, expected, "{shown}");
        Ok(())
    }
}

fn all_but(left_out: &[usize]) -> Vec<usize> {
    (0..CLIENTS).filter(|number| !left_out.contains(number)).collect()
}

#[test]
fn sends_to_groups_reach_exactly_their_members() {
    run_test(async |fixture| {
        let fleet = Fleet::new(fixture);
        let app = fleet.app(App::Sends).await?;
        let proxies = fleet.two_proxies(&app).await?;
        let agents = Agents::new(fixture);
        let mut crowd = Crowd::open(&agents, &proxies).await?;
        sends_to_connections(&mut crowd).await?;
        sends_to_users(&mut crowd).await?;
        sends_to_groups(&mut crowd).await
    });
}

async fn sends_to_connections(crowd: &mut Crowd) -> Result<()> {
    for caller in 0..CLIENTS {
        crowd.expect(caller, "ToAll", vec![], &all_but(&[])).await?;
        crowd.expect(caller, "ToOthers", vec![], &all_but(&[caller])).await?;
        crowd.expect(caller, "ToCaller", vec![], &[caller]).await?;
        let left_out = crowd.ids_of(&[1, 4, 7]);
        crowd.expect(caller, "ToAllExcept", vec![left_out], &all_but(&[1, 4, 7])).await?;
        for other in [0, 7] {
            let id = json!(crowd.ids[other]);
            crowd.expect(caller, "ToClient", vec![id], &[other]).await?;
        }
        let several = crowd.ids_of(&[2, 3, 5]);
        crowd.expect(caller, "ToClients", vec![several], &[2, 3, 5]).await?;
        crowd.expect(caller, "ToClient", vec![json!("nobody")], &[]).await?;
    }
    Ok(())
}

async fn sends_to_users(crowd: &mut Crowd) -> Result<()> {
    for caller in [0, 3, 5, 7] {
        crowd.expect(caller, "ToUser", vec![json!("alice")], &[0, 4]).await?;
        crowd.expect(caller, "ToUser", vec![json!("Alice")], &[]).await?;
        crowd.expect(caller, "ToUsers", vec![json!(["bob", "carol", "nobody"])], &[1, 2, 5]).await?;
    }
    Ok(())
}

async fn sends_to_groups(crowd: &mut Crowd) -> Result<()> {
    for caller in [0, 3, 5, 7] {
        crowd.expect(caller, "ToGroup", vec![json!("red")], &RED).await?;
        crowd.expect(caller, "ToGroup", vec![json!("Red")], &[]).await?;
        let both = json!(["red", "blue", "empty"]);
        crowd.expect(caller, "ToGroups", vec![both], &[0, 1, 2, 4, 5, 6]).await?;
        let left_out = crowd.ids_of(&[0, 6, 7]);
        crowd.expect(caller, "ToGroupExcept", vec![json!("red"), left_out], &[1, 4]).await?;
        let others: Vec<usize> = RED.into_iter().filter(|member| *member != caller).collect();
        crowd.expect(caller, "ToOthersInGroup", vec![json!("red")], &others).await?;
    }
    for member in [0, 6] {
        crowd.clients[member].invoke("Join", json!(["blue"])).await?;
    }
    // A member of two groups gets a copy for each.
    let copies = crowd.receivers(3, "ToGroups", vec![json!(["red", "blue"])]).await?;
    assert_eq!(copies, BTreeMap::from([(0, 2), (1, 1), (2, 1), (4, 1), (5, 1), (6, 2)]));
    crowd.clients[1].invoke("Leave", json!(["red"])).await?;
    crowd.clients[6].invoke("Leave", json!(["red"])).await?;
    crowd.expect(1, "ToGroup", vec![json!("red")], &[0, 4]).await?;
    crowd.clients[6].invoke("Join", json!(["red"])).await?;
    crowd.clients[6].invoke("Join", json!(["red"])).await?;
    crowd.expect(1, "ToGroup", vec![json!("red")], &[0, 4, 6]).await
}
