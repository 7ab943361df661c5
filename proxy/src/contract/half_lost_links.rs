//! Lost links of app servers that dial in: lost at the node only or at both ends, in any order and number. Each client
//! is answered, failed or asked to reconnect, and no app server receives a client that it already has.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::time::Duration;

use proptest::prelude::*;
use tokio::task::spawn_local;
use tokio::time::{Instant, sleep, timeout};
use trunkline_protocol::manifest::MIGRATE_FROM_HEADER;
use trunkline_protocol::service::*;

use super::app::data_for;
use super::client::{Client, JSON_HANDSHAKE, PING, Received};
use super::fixture::{paused, run};
use super::fleet_nodes::FleetNode;
use super::hub_message::{call, flow, header, received, result};
use super::inbound_links::{DialInLink, HUB, ONE, dial_in_nodes, token};
use crate::ground::net::connector::MemoryNetwork;

/// Time within which a client is answered, failed or asked to reconnect.
const PATIENCE: Duration = Duration::from_secs(10);

/// Node, app server with two links to it, and client assigned to the first link with a call in progress.
struct LinkScene {
    _network: MemoryNetwork,
    nodes: Vec<FleetNode>,
    links: Vec<DialInLink>,
    client: Client,
}

impl LinkScene {
    async fn open() -> Self {
        let (network, nodes) = dial_in_nodes(1).await;
        let mut first = DialInLink::open(&nodes[0], "home_1", ONE).await;
        let mut client = first.client(&nodes[0], "ann").await;
        let second = DialInLink::open(&nodes[0], "home_1", ONE).await;
        client.send(&call("1", "Slow")).await;
        assert!(matches!(first.next().await, ServiceMessage::ConnectionData(_)));
        Self { _network: network, nodes, links: vec![first, second], client }
    }

    /// Creates the fixture and loses the first link at the node, which requests the client over the other link.
    async fn with_lost_link() -> Self {
        let mut scene = Self::open().await;
        drop(scene.links.remove(0));
        let failed = scene.client.text().await;
        assert!(failed.contains("\"invocationId\":\"1\",\"error\""), "{failed}");
        scene.comes([FlowOperation::Resume, FlowOperation::Pause]).await;
        scene
    }

    /// Creates the fixture with two more clients; the node moves the first client to the second link.
    async fn with_moved_client() -> (Self, [Client; 2]) {
        let (network, nodes) = dial_in_nodes(1).await;
        let mut first = DialInLink::open(&nodes[0], "home_1", ONE).await;
        let client = first.client(&nodes[0], "ann").await;
        let rest = [first.client(&nodes[0], "bob").await, first.client(&nodes[0], "eve").await];
        let mut second = DialInLink::open(&nodes[0], "home_1", ONE).await;
        first.pass_client_on(&mut second).await;
        (Self { _network: network, nodes, links: vec![first, second], client }, rest)
    }

    /// Receives the next message about the client over the other link.
    async fn next(&mut self) -> ServiceMessage {
        loop {
            let message = self.links.last_mut().unwrap().next().await;
            let is_of_another = match &message {
                ServiceMessage::ConnectionFlowControl(flow) => flow.connection_id != self.client.id,
                ServiceMessage::OpenConnection(open) => open.connection_id != self.client.id,
                _ => false,
            };
            if !is_of_another {
                return message;
            }
        }
    }

    /// Receives flow control of the client over the other link.
    async fn comes<const N: usize>(&mut self, operations: [FlowOperation; N]) {
        for operation in operations {
            assert_eq!(self.next().await, flow(&self.client.id, operation));
        }
    }

    fn other(&mut self) -> &mut DialInLink {
        self.links.last_mut().unwrap()
    }

    async fn opening(&mut self) -> OpenConnection {
        let ServiceMessage::OpenConnection(open) = self.next().await else { panic!("no opening") };
        assert_eq!(open.connection_id, self.client.id);
        open
    }

    async fn data(&mut self) -> String {
        match self.next().await {
            ServiceMessage::ConnectionData(data) => String::from_utf8_lossy(&data.payload).into_owned(),
            other => panic!("{other:?} instead of data"),
        }
    }

    async fn calls(&mut self, id: &str) {
        self.client.send(&call(id, "Next")).await;
        assert_eq!(self.data().await, call(id, "Next"));
        let answer = data_for(&self.client.id, result(id, "2"));
        self.other().send(answer);
        assert_eq!(self.client.text().await, received(&result(id, "2")));
    }

    fn acknowledge(&mut self) {
        let acknowledgement = flow(&self.client.id, FlowOperation::PauseAck);
        self.other().send(acknowledgement);
    }
}

#[tokio::test(crate = "paused")]
async fn a_client_continues_over_another_link_if_its_app_server_has_not_noticed_the_loss() {
    let mut scene = LinkScene::with_lost_link().await;
    scene.acknowledge();
    assert_eq!(scene.data().await, "{\"type\":5,\"invocationId\":\"1\"}\u{1e}");
    scene.comes([FlowOperation::Resume]).await;
    let late = data_for(&scene.client.id, result("1", "1"));
    scene.other().send(late);
    scene.calls("2").await;
    pause(Duration::from_secs(30)).await;
    assert_eq!(scene.other().try_next(), None, "it is not opened again");
}

#[tokio::test(crate = "paused")]
async fn a_client_is_opened_again_if_its_app_server_does_not_answer_for_it() {
    let mut scene = LinkScene::with_lost_link().await;
    scene.comes([FlowOperation::Pause]).await;
    assert_eq!(header(&scene.opening().await.headers, MIGRATE_FROM_HEADER), Some("home_1"));
    scene.calls("2").await;
    // By then an acknowledgement can only belong to a new pause.
    pause(Duration::from_secs(11)).await;
    scene.acknowledge();
    scene.comes([FlowOperation::Resume]).await;
    scene.calls("3").await;
}

#[tokio::test(crate = "paused")]
async fn a_client_reconnects_whose_app_server_answers_when_it_was_opened_again() {
    let mut scene = LinkScene::with_lost_link().await;
    scene.comes([FlowOperation::Pause]).await;
    scene.opening().await;
    scene.acknowledge();
    let close = scene.client.text().await;
    assert!(close.contains("\"type\":7") && close.contains("\"allowReconnect\":true"), "{close}");
    let ServiceMessage::CloseConnection(close) = scene.other().next().await else { panic!("no close") };
    assert_eq!(close.connection_id, scene.client.id);
}

#[tokio::test(crate = "paused")]
async fn a_client_reconnects_whose_answer_may_be_lost_with_the_link_over_which_it_was_opened_again() {
    let mut scene = LinkScene::with_lost_link().await;
    let third = DialInLink::open(&scene.nodes[0], "home_1", ONE).await;
    scene.comes([FlowOperation::Pause]).await;
    scene.opening().await;
    drop(std::mem::replace(scene.other(), third));
    let close = scene.client.text().await;
    assert!(close.contains("\"type\":7") && close.contains("\"allowReconnect\":true"), "{close}");
}

#[tokio::test(crate = "paused")]
async fn a_client_is_asked_for_over_one_link_after_the_other_while_they_are_lost() {
    let mut scene = LinkScene::open().await;
    let third = DialInLink::open(&scene.nodes[0], "home_1", ONE).await;
    scene.links.push(third);
    drop(scene.links.remove(0));
    let mut asked = Vec::new();
    while asked.len() < 2 {
        pause(STEP).await;
        let number = scene.links.iter_mut().position(|link| link.try_next().is_some());
        if let Some(number) = number {
            asked.push(number);
            scene.links.swap(0, number);
            if asked.len() == 1 {
                drop(scene.links.remove(0));
            }
        }
    }
    scene.comes([FlowOperation::Pause]).await;
    scene.acknowledge();
    scene.data().await;
    scene.comes([FlowOperation::Resume]).await;
    assert!(scene.client.text().await.contains("\"error\""));
    scene.calls("2").await;
}

#[tokio::test(crate = "paused")]
async fn a_client_whose_app_server_has_closed_the_link_is_opened_again_without_being_asked_for() {
    let mut scene = LinkScene::open().await;
    scene.links[0].close();
    scene.opening().await;
}

#[tokio::test(crate = "paused")]
async fn a_client_that_has_left_a_lost_link_is_opened_again_if_it_has_ended_with_that() {
    let (mut scene, _rest) = LinkScene::with_moved_client().await;
    drop(scene.links.remove(0));
    scene.comes([FlowOperation::Resume, FlowOperation::Pause, FlowOperation::Pause]).await;
    assert_eq!(header(&scene.opening().await.headers, MIGRATE_FROM_HEADER), Some("home_1"));
    scene.calls("2").await;
}

#[tokio::test(crate = "paused")]
async fn a_client_that_has_left_a_lost_link_in_time_keeps_its_calls() {
    let (mut scene, _rest) = LinkScene::with_moved_client().await;
    scene.client.send(&call("1", "Slow")).await;
    assert_eq!(scene.data().await, call("1", "Slow"));
    // The timeout of the move expires while the move is requested.
    pause(Duration::from_secs(8)).await;
    drop(scene.links.remove(0));
    scene.comes([FlowOperation::Resume, FlowOperation::Pause]).await;
    pause(Duration::from_millis(1_500)).await;
    scene.acknowledge();
    scene.comes([FlowOperation::Resume]).await;
    pause(Duration::from_secs(5)).await;
    let answer = data_for(&scene.client.id, result("1", "1"));
    scene.other().send(answer);
    assert_eq!(scene.client.text().await, received(&result("1", "1")));
    scene.calls("2").await;
}

#[tokio::test(crate = "paused")]
async fn a_client_that_has_moved_to_a_link_which_its_app_server_closes_may_be_at_the_old_one() {
    let (mut scene, _rest) = LinkScene::with_moved_client().await;
    scene.links.pop().unwrap().close();
    scene.comes([FlowOperation::Resume, FlowOperation::Pause]).await;
    scene.acknowledge();
    scene.comes([FlowOperation::Resume]).await;
    scene.calls("2").await;
}

#[tokio::test(crate = "paused")]
async fn a_client_that_was_asked_for_over_a_link_which_its_app_server_closes_is_asked_for_again() {
    let mut scene = LinkScene::with_lost_link().await;
    let third = DialInLink::open(&scene.nodes[0], "home_1", ONE).await;
    scene.other().close();
    scene.links.push(third);
    scene.comes([FlowOperation::Resume, FlowOperation::Pause]).await;
    scene.acknowledge();
    scene.data().await;
    scene.comes([FlowOperation::Resume]).await;
    scene.calls("2").await;
}

#[tokio::test(crate = "paused")]
async fn a_pause_that_is_read_late_is_ended() {
    let mut scene = LinkScene::open().await;
    let late = flow(&scene.client.id, FlowOperation::PauseAck);
    scene.links[0].send(late);
    assert_eq!(scene.links[0].next().await, flow(&scene.client.id, FlowOperation::Resume));
}

#[tokio::test(crate = "paused")]
async fn a_client_whose_links_are_lost_one_after_the_other_reconnects_in_time() {
    let mut scene = LinkScene::open().await;
    for _ in 0..4 {
        let link = DialInLink::open(&scene.nodes[0], "home_1", ONE).await;
        scene.links.push(link);
    }
    drop(scene.links.remove(0));
    assert!(scene.client.text().await.contains("\"error\""));
    let lost_at = Instant::now();
    let close = loop {
        if let Ok(close) = timeout(STEP, scene.client.text()).await {
            break close;
        }
        if let Some(asked) = scene.links.iter_mut().position(|link| link.try_next().is_some()) {
            pause(Duration::from_millis(1_500)).await;
            drop(scene.links.remove(asked));
        }
    };
    assert!(close.contains("\"type\":7") && close.contains("\"allowReconnect\":true"), "{close}");
    assert!(lost_at.elapsed() < PATIENCE && !scene.links.is_empty(), "{:?}", lost_at.elapsed());
}

#[tokio::test(crate = "paused")]
async fn a_client_that_has_no_answer_to_its_handshake_ends_where_its_app_server_has_given_one() {
    let (_network, nodes) = dial_in_nodes(1).await;
    let mut first = DialInLink::open(&nodes[0], "silent_1", ONE).await;
    let target = format!("/client/{HUB}&access_token={}", token("client", "ann"));
    let mut client = Client::upgrade(&nodes[0].fixture, &target).await.unwrap();
    client.send(JSON_HANDSHAKE).await;
    let ServiceMessage::OpenConnection(open) = first.next().await else { panic!("no opening") };
    let mut other = DialInLink::open(&nodes[0], "silent_1", ONE).await;
    drop(first);
    assert_eq!(other.next().await, flow(&open.connection_id, FlowOperation::Resume));
    other.send(flow(&open.connection_id, FlowOperation::PauseAck));
    assert!(matches!(client.next().await, Received::Text(_)));
    assert_eq!(client.next().await, Received::End(Some(1000)));
}

/// Event of a schedule. Links and clients are selected by number, modulo their count.
#[derive(Debug, Clone, Copy)]
enum LinkFault {
    /// The node loses a link unnoticed by the app server, which may or may not read the data received on it.
    Half(usize, bool),
    /// The app server notices the loss of all its links.
    Noticed,
    /// Both ends lose a link, the node first or the app server first.
    Both(usize, bool),
    /// The app server closes a link after ending its clients.
    Closes(usize),
    Stalls(u64),
    /// A client disconnects on its own.
    Leaves(usize),
    Nothing,
}

fn fault() -> impl Strategy<Value = LinkFault> {
    prop_oneof![
        4 => (0..8_usize, any::<bool>()).prop_map(|(link, is_read)| LinkFault::Half(link, is_read)),
        1 => (0..8_usize).prop_map(LinkFault::Closes),
        2 => Just(LinkFault::Noticed),
        3 => (0..8_usize, any::<bool>()).prop_map(|(link, node_first)| LinkFault::Both(link, node_first)),
        1 => (0..8_usize).prop_map(LinkFault::Leaves),
        2 => Just(LinkFault::Nothing),
    ]
}

/// A stall no longer than the node's timeout for a response.
fn stall() -> impl Strategy<Value = LinkFault> {
    (100..3_000_u64).prop_map(LinkFault::Stalls)
}

/// Milliseconds before a fault: often none, or only as long as one exchange between the ends.
fn gap() -> impl Strategy<Value = u64> {
    prop_oneof![1 => Just(0), 2 => 0..300_u64, 4 => 0..4_000_u64]
}

const STEP: Duration = Duration::from_millis(100);

/// Minimum number of links: an app server dials when it has fewer.
const LINKS: usize = 3;

/// Connection as seen by an app server.
struct HadConnection {
    link: usize,
    /// Opened twice: it never answers again.
    is_broken: bool,
    /// Messages held back during a pause; `None` when not paused.
    held: Option<Vec<ServiceMessage>>,
}

/// App server with the behaviour of Azure's SDK.
struct SdkServer<'a> {
    node: &'a FleetNode,
    links: Vec<Option<DialInLink>>,
    /// Links lost by the node with unread data.
    unread: Vec<(usize, DialInLink)>,
    /// Number of the link to read first.
    turn: usize,
    has: HashMap<String, HadConnection>,
    doubles: usize,
    stalls_for: Duration,
}

impl SdkServer<'_> {
    async fn dial(&mut self) {
        while self.links.iter().flatten().count() < LINKS {
            self.links.push(Some(DialInLink::open(self.node, "home_1", ONE).await));
        }
    }

    /// Number of an open link, if at least one other stays open.
    fn open_link(&self, number: usize) -> Option<usize> {
        let open: Vec<_> = (0..self.links.len()).filter(|&link| self.links[link].is_some()).collect();
        (open.len() > 1).then(|| open[number % open.len()])
    }

    fn work(&mut self) {
        for (link, mut unread) in std::mem::take(&mut self.unread) {
            while let Some(message) = unread.try_next() {
                self.take(link, message);
            }
        }
        self.turn += 1;
        for number in 0..self.links.len() {
            let link = (self.turn + number) % self.links.len();
            while let Some(message) = self.links[link].as_mut().and_then(DialInLink::try_next) {
                self.take(link, message);
            }
        }
    }

    fn take(&mut self, link: usize, message: ServiceMessage) {
        let answer = match message {
            ServiceMessage::OpenConnection(open) => {
                let had = self.has.entry(open.connection_id.to_string()).or_insert(HadConnection {
                    link: usize::MAX,
                    is_broken: false,
                    held: None,
                });
                (had.is_broken, self.doubles) = match had.link {
                    usize::MAX => (false, self.doubles),
                    _ => (true, self.doubles + 1),
                };
                had.link = link;
                return;
            }
            ServiceMessage::CloseConnection(close) => {
                self.has.remove(&*close.connection_id);
                return;
            }
            ServiceMessage::ConnectionData(data) => {
                let text = String::from_utf8_lossy(&data.payload).into_owned();
                let called = text
                    .split_terminator('\u{1e}')
                    .filter_map(|text| text.strip_prefix("{\"type\":1,\"invocationId\":\""));
                let answers: String = called.filter_map(|rest| Some(result(rest.split_once('"')?.0, "true"))).collect();
                data_for(&data.connection_id, answers)
            }
            ServiceMessage::ConnectionFlowControl(order) => {
                match (order.operation, self.has.get_mut(&*order.connection_id)) {
                    (FlowOperation::Resume, Some(had)) => {
                        had.link = link;
                        let held = had.held.take().into_iter().flatten();
                        return held
                            .for_each(|message| self.links[link].iter().for_each(|it| it.send(message.clone())));
                    }
                    (FlowOperation::Pause, Some(had)) => {
                        had.held.get_or_insert_default();
                        flow(&order.connection_id, FlowOperation::PauseAck)
                    }
                    _ => return,
                }
            }
            _ => return,
        };
        let id = match &answer {
            ServiceMessage::ConnectionData(data) => &data.connection_id,
            ServiceMessage::ConnectionFlowControl(flow) => &flow.connection_id,
            _ => return,
        };
        let Some(had) = self.has.get_mut(&**id).filter(|had| !had.is_broken) else { return };
        match (&mut had.held, &self.links[had.link]) {
            (Some(held), _) if matches!(answer, ServiceMessage::ConnectionData(_)) => held.push(answer),
            (_, Some(link)) => link.send(answer),
            _ => {}
        }
    }

    async fn suffer(&mut self, fault: LinkFault) {
        match fault {
            LinkFault::Half(number, is_read) => {
                if let Some(link) = self.open_link(number)
                    && let Some(mut lost) = self.links[link].take()
                    && is_read
                {
                    lost.sever();
                    self.unread.push((link, lost));
                }
            }
            LinkFault::Closes(number) => {
                let Some(link) = self.open_link(number) else { return };
                self.has.retain(|_, had| had.link != link);
                self.links[link].take().unwrap().close();
                self.dial().await;
            }
            LinkFault::Noticed => {
                let links = &self.links;
                self.has.retain(|_, had| links[had.link].is_some());
                self.dial().await;
            }
            LinkFault::Both(number, node_first) => {
                let Some(link) = self.open_link(number) else { return };
                if !node_first {
                    self.has.retain(|_, had| had.link != link);
                }
                self.links[link] = None;
                if node_first {
                    pause(STEP).await;
                    self.has.retain(|_, had| had.link != link);
                }
                self.dial().await;
            }
            LinkFault::Stalls(ms) if self.stalls_for.is_zero() => self.stalls_for = Duration::from_millis(ms),
            LinkFault::Stalls(_) | LinkFault::Leaves(_) | LinkFault::Nothing => {}
        }
    }
}

async fn pause(time: Duration) {
    sleep(time).await; // sleep: schedules consist of virtual time
}

/// Errors seen by clients, and the number of answered calls.
#[derive(Debug, Default)]
struct CallLedger {
    wrongs: Vec<String>,
    answered: usize,
    is_over: bool,
    /// Clients that should disconnect.
    leaving: Vec<usize>,
}

/// Runs a client: sends calls, and reconnects when asked to.
async fn live(fixture: &super::fixture::Fixture, number: usize, ledger: &RefCell<CallLedger>) {
    let mut calls = 0_usize;
    while !ledger.borrow().is_over {
        let target = format!("/client/{HUB}&access_token={}", token("client", "ann"));
        let mut client = Client::upgrade(fixture, &target).await.unwrap();
        client.send(JSON_HANDSHAKE).await;
        match timeout(2 * PATIENCE, client.next()).await {
            Ok(Received::Text(text)) if text == "{}" => {}
            Ok(_) => continue,
            Err(_) => return ledger.borrow_mut().wrongs.push(format!("client {number}: no answer to its handshake")),
        }
        loop {
            if ledger.borrow().is_over {
                return;
            }
            if ledger.borrow_mut().leaving.extract_if(.., |leaving| *leaving == number).count() > 0 {
                break;
            }
            calls += 1;
            if !client.try_write(tokio_tungstenite::tungstenite::Message::text(call(&calls.to_string(), "Do"))).await {
                break;
            }
            match answer(&mut client, &format!("{{\"type\":3,\"invocationId\":\"{calls}\",")).await {
                Ok(true) => ledger.borrow_mut().answered += 1,
                Ok(false) => break,
                Err(wrong) => return ledger.borrow_mut().wrongs.push(format!("client {number}: {wrong}")),
            }
            pause(Duration::from_millis(70 + 13 * number as u64)).await;
        }
    }
}

/// Waits for the response to a call, which starts with `expected`; `false` if the connection ends.
async fn answer(client: &mut Client, expected: &str) -> Result<bool, String> {
    let waited = timeout(PATIENCE, async {
        loop {
            match client.next().await {
                Received::Text(text) if text == PING => {}
                Received::Text(text) if text.starts_with(expected) => return Ok(true),
                Received::Text(text) if text.starts_with("{\"type\":7") => return Ok(false),
                Received::End(_) => return Ok(false),
                other => return Err(format!("{other:?} instead of {expected}")),
            }
        }
    });
    waited.await.unwrap_or_else(|_| Err(format!("no answer within {PATIENCE:?}: {expected}")))
}

/// Runs a schedule. Returns the errors, the number of answered calls, and the number of connections opened twice.
async fn run_with_faults(faults: &[(u64, LinkFault)]) -> (Vec<String>, usize, usize) {
    let (_network, nodes) = dial_in_nodes(1).await;
    let nodes = Rc::new(nodes);
    let (links, has) = (Vec::new(), HashMap::new());
    let (unread, turn, stalls_for) = (Vec::new(), 0, Duration::ZERO);
    let mut app = SdkServer { node: &nodes[0], links, unread, turn, has, doubles: 0, stalls_for };
    app.dial().await;
    let ledger = Rc::new(RefCell::new(CallLedger::default()));
    let clients: Vec<_> = (0..4)
        .map(|number| {
            let (nodes, ledger) = (nodes.clone(), ledger.clone());
            spawn_local(async move { live(&nodes[0].fixture, number, &ledger).await })
        })
        .collect();
    let calm = (0..26).map(|_| (500, LinkFault::Nothing));
    for (gap_ms, fault) in faults.iter().copied().chain(calm) {
        let mut gap = Duration::from_millis(gap_ms);
        while gap > Duration::ZERO {
            app.stalls_for = app.stalls_for.saturating_sub(STEP);
            if app.stalls_for.is_zero() {
                app.work();
            }
            // Data received now is read after the fault.
            pause(STEP).await;
            gap = gap.saturating_sub(STEP);
        }
        if let LinkFault::Leaves(number) = fault {
            ledger.borrow_mut().leaving.push(number % clients.len());
        }
        app.suffer(fault).await;
    }
    ledger.borrow_mut().is_over = true;
    while clients.iter().any(|client| !client.is_finished()) {
        pause(STEP).await;
        app.work();
    }
    let ledger = ledger.take();
    (ledger.wrongs, ledger.answered, app.doubles)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]
    #[test]
    fn whatever_half_is_lost_and_however_often_each_call_ends_and_no_connection_is_opened_twice(
        faults in prop::collection::vec((gap(), fault()), 1..24)
    ) {
        let (wrongs, answered, doubles) = run(async { run_with_faults(&faults).await });
        prop_assert!(wrongs.is_empty(), "{wrongs:?}");
        prop_assert!(answered > 100, "{answered} calls were answered");
        prop_assert_eq!(doubles, 0);
    }

    #[test]
    fn a_client_of_an_app_server_that_answers_late_is_answered_or_reconnects(
        (stall_ms, gap_ms, link) in (500..6_000_u64, 0..3_000_u64, 0..8_usize)
    ) {
        let faults = [(500, LinkFault::Stalls(stall_ms)), (gap_ms, LinkFault::Half(link, true))];
        let (wrongs, ..) = run(async { run_with_faults(&faults).await });
        prop_assert!(wrongs.is_empty(), "{wrongs:?}");
    }

    #[test]
    fn each_call_ends_in_time_however_often_links_are_lost_while_their_app_server_stalls(
        faults in prop::collection::vec((gap(), prop_oneof![3 => fault(), 1 => stall()]), 1..24)
    ) {
        let (wrongs, ..) = run(async { run_with_faults(&faults).await });
        prop_assert!(wrongs.is_empty(), "{wrongs:?}");
    }
}
