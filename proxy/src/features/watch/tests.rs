//! Tests of watches with every detail, on a shard with in-memory clients.

use trunkline_protocol::cause::Cause;
use trunkline_protocol::hub::HubProtocol;

use super::running_watch::IDLE_TICKS;
use super::*;
use crate::engine::shard::testbed::{Testbed, whole_id};
use crate::engine::shard::{Audience, ConnectionCommand, MembershipChange, ShardCommand};
use crate::engine::upstream::{AppServerId, HubIndex};

const OWN: u32 = 7;
const SAY: &str = "{\"type\":1,\"target\":\"Say\",\"invocationId\":\"5\",\"arguments\":[{\"token\":\"x\"}]}\u{1e}";
const ANSWER: &str = "{\"type\":3,\"invocationId\":\"5\"}\u{1e}";
const SAID: &str = "{\"type\":1,\"target\":\"Said\",\"arguments\":[]}\u{1e}";

fn order(subjects: Vec<WatchSubject>, detail: WatchDetail) -> WatchOrder {
    WatchOrder { hub: None, subjects, detail, with_payloads: false }
}

fn watched_bed() -> Testbed {
    Testbed::tapped(Watches::default())
}

/// Runs `act` on the watches of the test bed.
fn watches<R>(bed: &mut Testbed, act: impl FnOnce(&mut Watches, &TapView<'_>) -> R) -> R {
    bed.state.core.run_tap(act).unwrap()
}

fn begin(bed: &mut Testbed, order: WatchOrder) -> u64 {
    watches(bed, |watches, _| watches.begin_watch(order, Instant::now())).unwrap()
}

fn trace(bed: &mut Testbed, subject: WatchSubject) -> u64 {
    begin(bed, order(vec![subject], WatchDetail::Times))
}

fn tap(bed: &mut Testbed, slot: Slot, id: &str, with_payloads: bool) -> Result<u64, WatchRefused> {
    let order = WatchOrder { with_payloads, ..order(Vec::new(), WatchDetail::Summaries) };
    watches(bed, |watches, shard| watches.begin_at(shard.connections, (slot, &whole_id(id)), order, Instant::now()))
}

fn find(bed: &mut Testbed, watch: u64) {
    let next = watches(bed, |watches, shard| watches.find_present(shard.connections, watch, 0));
    assert_eq!(next, None, "one step is enough");
}

fn read_all(bed: &mut Testbed, watch: u64) -> WatchBatch {
    read(bed, watch).unwrap()
}

fn read(bed: &mut Testbed, watch: u64) -> Option<WatchBatch> {
    watches(bed, |watches, shard| watches.read_batch(shard, watch))
}

/// Shows a client's text to the watches, with its app server. Returns the mark.
fn send_text(bed: &mut Testbed, slot: Slot, text: &str) -> Option<i64> {
    let link = LinkHandle::opened_traced(&bed.hub.identity, AppServerId::from(OWN));
    let (bytes, read_at) = (text.as_bytes(), Some(Instant::now()));
    let messages = UpwardMessages { bytes, count: 1, data_type: 0, read_at, to: Some(&link) };
    bed.state.core.tap_up(slot, &messages)
}

fn report(bed: &mut Testbed, id: &str, slot: Slot, report: TraceReport) {
    let (hub, app, connection_id) = (bed.hub.index(), AppServerId::from(OWN), whole_id(id).into());
    let command = ConnectionCommand::Traced(Box::new(report));
    bed.apply(vec![ShardCommand::One { hub, app, connection_id, slot, command }]);
}

fn join(bed: &mut Testbed, id: &str, slot: Slot, change: MembershipChange) {
    let (hub, app, connection_id) = (bed.hub.index(), AppServerId::from(OWN), whole_id(id).into());
    let command = ConnectionCommand::Group { change, ack: None };
    bed.apply(vec![ShardCommand::One { hub, app, connection_id, slot, command }]);
}

/// Events since the last batch, abbreviated.
fn told(bed: &mut Testbed, trace: u64) -> Vec<String> {
    let text = |piece: WatchPiece| match piece.event {
        WatchEvent::Connection(connection, change) => format!("{} {}", &connection.id[..3], word(&change)),
        WatchEvent::Message(message) => {
            let name = message.summary.target.as_deref().unwrap_or(message.summary.kind);
            let way = if message.way == MessageDirection::Up { "up" } else { "down" };
            let answers = message.answers.map(|number| format!(" answers {number}")).unwrap_or_default();
            format!("{} {way} {name} {}{answers}", &message.connection.id[..3], message.number)
        }
        WatchEvent::Hop(number, hop) => match hop {
            TraceHop::Hub(times) => format!("{number} hub ran {:?}", times.ran_us),
            TraceHop::Answered { .. } => format!("{number} answered"),
            TraceHop::Written { .. } => format!("{number} written"),
            TraceHop::Lost => format!("{number} lost"),
        },
    };
    bed.flush();
    read_all(bed, trace).pieces.into_iter().map(text).collect()
}

fn word(change: &ConnectionChange) -> String {
    match change {
        ConnectionChange::Closed(cause, _) => cause.label().into(),
        other => format!("{other:?}").to_lowercase(),
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_is_reported_with_its_hops_and_its_answer_refers_to_it() {
    let mut bed = watched_bed();
    let ann = bed.client("ann");
    let number = trace(&mut bed, WatchSubject::Connection(whole_id("ann")));
    find(&mut bed, number);
    let mark = send_text(&mut bed, ann, SAY).unwrap();
    bed.data("ann", ann, AppServerId::from(OWN), ANSWER);
    let ended = TraceReport { mark, queued_us: Some(0), ran_us: Some(9), ..TraceReport::default() };
    report(&mut bed, "ann", ann, TraceReport { ran_us: None, ..ended.clone() });
    report(&mut bed, "ann", ann, ended.clone());
    report(&mut bed, "ann", ann, ended);
    let expected = [
        "ann present",
        "ann up Say 0",
        "0 answered",
        "ann down completion 1 answers 0",
        "0 hub ran None",
        "0 hub ran Some(9)",
        "1 written",
    ];
    assert_eq!(told(&mut bed, number), expected);
}

#[tokio::test(start_paused = true)]
async fn other_clients_are_not_traced_and_payloads_are_included_only_on_request() {
    let mut bed = watched_bed();
    let (ann, ben) = (bed.client("ann"), bed.client("ben"));
    let subject = WatchSubject::Connection(whole_id("ann"));
    let hidden = trace(&mut bed, subject.clone());
    let shown = WatchOrder { with_payloads: true, ..order(vec![subject], WatchDetail::Times) };
    let shown = begin(&mut bed, shown);
    for number in [hidden, shown] {
        find(&mut bed, number);
    }
    assert_eq!(send_text(&mut bed, ben, SAY), None);
    assert!(send_text(&mut bed, ann, SAY).is_some());
    let payload = |bed: &mut Testbed, trace| {
        let pieces = read_all(bed, trace).pieces;
        pieces.into_iter().find_map(|piece| match piece.event {
            WatchEvent::Message(message) => Some(message.summary.payload),
            _ => None,
        })
    };
    assert_eq!(payload(&mut bed, hidden), Some(None));
    assert_eq!(payload(&mut bed, shown), Some(Some(r#"[{"token":"[redacted]"}]"#.into())));
}

#[tokio::test(start_paused = true)]
async fn a_method_is_followed_at_all_clients_in_both_directions() {
    let mut bed = watched_bed();
    let (ann, ben) = (bed.client("ann"), bed.client("ben"));
    let (calls, sends) =
        (trace(&mut bed, WatchSubject::Method("sAy".into())), trace(&mut bed, WatchSubject::Method("Said".into())));
    send_text(&mut bed, ann, &format!("{}{SAY}", SAID.replace("Said", "Other")));
    bed.data("ann", ann, AppServerId::from(OWN), ANSWER);
    bed.data("ben", ben, AppServerId::from(OWN), ANSWER);
    bed.send(Audience::Everyone, SAID);
    assert_eq!(told(&mut bed, calls), ["ann up Say 0", "0 answered", "ann down completion 1 answers 0", "1 written"]);
    assert_eq!(told(&mut bed, sends), ["ann down Said 0", "ben down Said 1", "0 written", "1 written"]);
}

#[tokio::test(start_paused = true)]
async fn members_of_a_group_are_followed_while_they_are() {
    let mut bed = watched_bed();
    let (ann, ben) = (bed.client("ann"), bed.client("ben"));
    join(&mut bed, "ann", ann, MembershipChange::Join("room".into()));
    let number = trace(&mut bed, WatchSubject::Group("room".into()));
    find(&mut bed, number);
    join(&mut bed, "ben", ben, MembershipChange::Join("room".into()));
    bed.send(Audience::Groups(vec!["room".into()]), SAID);
    join(&mut bed, "ann", ann, MembershipChange::LeaveAll);
    bed.send(Audience::Groups(vec!["room".into()]), SAID);
    bed.flush();
    bed.end(ben, Cause::ClientClosed);
    let told = told(&mut bed, number);
    let of = |wanted: &str| told.iter().filter(|event| event.contains(wanted)).count();
    assert_eq!((of("ann down Said"), of("ben down Said"), of("written")), (1, 2, 3));
    let news: Vec<_> = told.iter().filter(|event| !event.contains("down") && !event.contains("written")).collect();
    assert_eq!(news, ["ann present", "ben joined", "ann left", "ben client_closed"]);
}

#[tokio::test(start_paused = true)]
async fn messages_above_the_rate_of_a_trace_are_counted() {
    let mut bed = watched_bed();
    let ann = bed.client("ann");
    let number = trace(&mut bed, WatchSubject::User("ann".into()));
    find(&mut bed, number);
    let most = u64::from(WatchDetail::Times.bounds().per_second);
    for _ in 0..most + 7 {
        send_text(&mut bed, ann, SAID);
    }
    let batch = read_all(&mut bed, number);
    assert_eq!((batch.messages, batch.loss.messages), (most, 7));
    let counters = &bed.state.core.context.counters;
    assert_eq!((counters.traced_messages.get(), counters.untraced_messages.get()), (most, 7));
    bed.advance();
    assert!(send_text(&mut bed, ann, SAID).is_some(), "a new second");
}

#[tokio::test(start_paused = true)]
async fn a_send_to_many_clients_is_traced_for_some_of_them() {
    let mut bed = watched_bed();
    let number = trace(&mut bed, WatchSubject::Method("Said".into()));
    for index in 0..RECIPIENTS_MAX + 9 {
        bed.client(&format!("client{index}"));
    }
    bed.send(Audience::Everyone, SAID);
    let batch = read_all(&mut bed, number);
    assert_eq!((batch.messages, batch.loss.messages), (RECIPIENTS_MAX as u64, 9));
}

#[tokio::test(start_paused = true)]
async fn watches_of_each_detail_are_bounded_and_end_when_they_are_not_read() {
    for (detail, refusal) in [
        (WatchDetail::Summaries, "16 clients of its shard are already watched"),
        (WatchDetail::Times, "4 traces are already running"),
    ] {
        let mut bed = watched_bed();
        let order = order(vec![WatchSubject::User("ann".into())], detail);
        let all: Vec<_> = (0..detail.bounds().watches).map(|_| begin(&mut bed, order.clone())).collect();
        assert!(bed.state.core.time_for_taps().is_some());
        let refused = watches(&mut bed, |watches, _| watches.begin_watch(order, Instant::now())).unwrap_err();
        assert!(refused.to_string().starts_with(refusal), "{refused}");
        for _ in 0..=IDLE_TICKS {
            assert!(read(&mut bed, all[0]).is_some());
            bed.advance();
        }
        assert!(read(&mut bed, all[0]).is_some() && read(&mut bed, all[1]).is_none());
        watches(&mut bed, |watches, _| watches.end_watch(all[0]));
        assert!(bed.state.core.time_for_taps().is_none());
    }
}

#[tokio::test(start_paused = true)]
async fn without_a_trace_nothing_is_marked_and_a_report_is_ignored() {
    let mut bed = watched_bed();
    let ann = bed.client("ann");
    assert_eq!(send_text(&mut bed, ann, SAY), None);
    report(&mut bed, "ann", ann, TraceReport::default());
    let number = trace(&mut bed, WatchSubject::User("ann".into()));
    find(&mut bed, number);
    report(&mut bed, "ann", ann, TraceReport { mark: 99, ..TraceReport::default() });
    assert_eq!(told(&mut bed, number), ["ann present"]);
    assert_eq!(
        bed.state.core.connections.get(ann).map(|client| client.content()),
        Some(Content::Hub(HubProtocol::Json))
    );
}

fn messages(batch: &WatchBatch) -> Vec<&WatchedMessage> {
    let message = |piece| match &(piece as &WatchPiece).event {
        WatchEvent::Message(message) => Some(&**message),
        _ => None,
    };
    batch.pieces.iter().filter_map(message).collect()
}

#[test]
fn only_tapped_clients_are_summed_up_and_payloads_are_there_only_on_request() {
    let mut bed = watched_bed();
    assert!(bed.state.core.time_for_taps().is_none());
    let (ann, ben) = (bed.client("ann"), bed.client("ben"));
    let (plain, full) = (tap(&mut bed, ann, "ann", false).unwrap(), tap(&mut bed, ann, "ann", true).unwrap());
    assert_eq!(tap(&mut bed, ann, "ben", true), Err(WatchRefused::Unknown));
    assert_eq!(watches(&mut bed, |watches, _| watches.slots()), [ann]);
    assert!(send_text(&mut bed, ann, &[SAY, SAY].concat()).is_none(), "no report is needed");
    send_text(&mut bed, ben, SAY);
    bed.data("ann", ann, AppServerId::from(OWN), SAY);
    let batch = read_all(&mut bed, plain);
    assert_eq!((batch.up.messages, batch.up.bytes), (2, 2 * SAY.len() as u64));
    assert_eq!((batch.down.messages, messages(&batch).len()), (1, 3));
    let is_plain = |summary: &MessageSummary| summary.payload.is_none() && summary.target.as_deref() == Some("Say");
    assert!(messages(&batch).iter().all(|message| is_plain(&message.summary)));
    let batch = read_all(&mut bed, full);
    let last = messages(&batch)[2];
    assert_eq!(last.summary.payload.as_deref(), Some(r#"[{"token":"[redacted]"}]"#));
    assert_eq!((last.way, last.number), (MessageDirection::Down, 2));
    let batch = read_all(&mut bed, full);
    assert!(messages(&batch).is_empty() && batch.up.messages == 2, "each is read once");
}

#[test]
fn a_tap_keeps_the_newest_messages_and_counts_the_others() {
    let mut bed = watched_bed();
    let ann = bed.client("ann");
    let number = tap(&mut bed, ann, "ann", false).unwrap();
    let most = WatchDetail::Summaries.bounds().newest.unwrap();
    for _ in 0..most + 7 {
        send_text(&mut bed, ann, SAY);
    }
    let batch = read_all(&mut bed, number);
    assert_eq!((messages(&batch).len(), batch.loss.messages, messages(&batch)[0].number), (most, 7, 7));
    assert_eq!(batch.up.messages, most as u64 + 7);
}

#[test]
fn a_tap_ends_with_its_connection() {
    let mut bed = watched_bed();
    let ann = bed.client("ann");
    let number = tap(&mut bed, ann, "ann", false).unwrap();
    bed.end(ann, Cause::ClientClosed);
    assert!(watches(&mut bed, |watches, _| watches.slots()).is_empty());
    send_text(&mut bed, ann, SAY);
    assert_eq!(told(&mut bed, number), ["ann present", "ann client_closed"]);
}

#[test]
fn only_clients_that_match_hub_user_and_connection_are_followed() {
    let mut bed = watched_bed();
    let base = WatchOrder { hub: Some(bed.hub.index()), ..order(Vec::new(), WatchDetail::Times) };
    let of = |subject| WatchOrder { subjects: vec![subject], ..base.clone() };
    let orders = [
        (of(WatchSubject::User("ann".into())), 2),
        (of(WatchSubject::User("eve".into())), 0),
        (of(WatchSubject::Connection(whole_id("two"))), 1),
        (WatchOrder { hub: Some(HubIndex::from(5)), ..base.clone() }, 0),
    ];
    let numbers = orders.map(|(order, expected)| (begin(&mut bed, order), expected));
    // All clients of the test bed have the user ann.
    for id in ["one", "two"] {
        bed.client(id);
    }
    for (number, expected) in numbers {
        assert_eq!(told(&mut bed, number).len(), expected, "{number}");
    }
}

#[test]
fn traces_are_bounded_in_clients() {
    let mut bed = watched_bed();
    let number = begin(&mut bed, order(Vec::new(), WatchDetail::Times));
    let most = WatchDetail::Times.bounds().followed;
    for client in 0..most + 3 {
        bed.client(&format!("{client}"));
    }
    let batch = read_all(&mut bed, number);
    assert_eq!((batch.pieces.len(), batch.loss.connections), (most, 3));
}

#[test]
fn a_report_is_taken_for_its_client_alone_and_once() {
    let mut marked = MarkedMessages::default();
    marked.add_message(7, 1, (0, 3));
    marked.add_message(7, 1, (1, 5));
    assert!(marked.find(7, 2, true).is_empty());
    assert_eq!(marked.find(7, 1, false), [(0, 3), (1, 5)]);
    assert_eq!(marked.find(7, 1, true), [(0, 3), (1, 5)]);
    assert!(marked.find(7, 1, true).is_empty());
}

#[test]
fn the_oldest_messages_are_evicted_and_messages_of_a_departed_client_removed() {
    let mut marked = MarkedMessages::default();
    (0..).take(MARKED_MAX + 1).for_each(|mark| marked.add_message(mark, 1, (0, 0)));
    assert!(marked.find(0, 1, true).is_empty());
    assert_eq!(marked.find(1, 1, true).len(), 1);
    marked.forget(1);
    assert!(marked.0.is_empty());
}
