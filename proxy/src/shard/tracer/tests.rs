//! Tests of the tracer, on a shard with clients whose sockets are in memory.

use trunkline_protocol::service::Payloads;

use super::running_trace::TOLD_PER_SECOND_MAX;
use super::*;
use crate::shard::CloseReason;
use crate::shard::command::{Audience, ConnectionCommand, MembershipChange, Receivers, ShardCommand};
use crate::shard::framed::Framed;
use crate::shard::send_origin::SendOrigin;
use crate::shard::testbed::{Testbed, whole_id};
use trunkline_protocol::hub::HubProtocol;

const OWN: u32 = 7;
const SAY: &str = "{\"type\":1,\"target\":\"Say\",\"invocationId\":\"5\",\"arguments\":[{\"token\":\"x\"}]}\u{1e}";
const ANSWER: &str = "{\"type\":3,\"invocationId\":\"5\"}\u{1e}";
const SAID: &str = "{\"type\":1,\"target\":\"Said\",\"arguments\":[]}\u{1e}";

fn begin(bed: &mut Testbed, subject: TraceSubject) -> u64 {
    let filter = TraceFilter { hub: None, subject, with_payloads: false };
    bed.state.trace(filter, Instant::now()).unwrap()
}

fn say(bed: &mut Testbed, slot: Slot, text: &str, is_marked: bool) -> Option<i64> {
    let traced = bed.state.tap_up(slot, text.as_bytes(), 0, Some(Instant::now()))?;
    let (mark, app) = (traced.mark?, AppServerId::from(OWN));
    bed.state.traced_up(*traced, if is_marked { UpwardEnd::SentMarked(app) } else { UpwardEnd::Sent(app) });
    Some(mark)
}

fn report(bed: &mut Testbed, id: &str, slot: Slot, report: TraceReport) {
    let (hub, app, connection_id) = (bed.hub.index(), AppServerId::from(OWN), whole_id(id).into());
    let command = ConnectionCommand::Traced(Box::new(report));
    bed.state.apply(vec![ShardCommand::One { hub, app, connection_id, slot, command }]);
}

fn join(bed: &mut Testbed, id: &str, slot: Slot, change: MembershipChange) {
    let (hub, app, connection_id) = (bed.hub.index(), AppServerId::from(OWN), whole_id(id).into());
    let command = ConnectionCommand::Group { change, ack: None };
    bed.state.apply(vec![ShardCommand::One { hub, app, connection_id, slot, command }]);
}

fn send(bed: &mut Testbed, to: Receivers, text: &'static str) {
    let message = Framed::new(&Payloads::single(HubProtocol::Json, Bytes::from_static(text.as_bytes())));
    let (hub, origin) = (bed.hub.index(), SendOrigin::Sender(AppServerId::from(OWN), 0));
    bed.state.apply(vec![ShardCommand::Send { hub, to, message, origin }]);
}

/// Events since the last batch, in short.
fn told(bed: &mut Testbed, trace: u64) -> Vec<String> {
    let text = |piece: TracePiece| match piece.event {
        TraceEvent::Connection(connection, change) => format!("{} {}", &connection.id[..3], word(&change)),
        TraceEvent::Message(message) => {
            let name = message.target.as_deref().unwrap_or(message.kind);
            let way = if message.way == TapDirection::Up { "up" } else { "down" };
            let answers = message.answers.map(|number| format!(" answers {number}")).unwrap_or_default();
            format!("{} {way} {name} {}{answers}", &message.connection.id[..3], message.number)
        }
        TraceEvent::Hop(number, hop) => match hop {
            TraceHop::Hub(times) => format!("{number} hub ran {:?}", times.ran_us),
            TraceHop::Answered { .. } => format!("{number} answered"),
            TraceHop::Written { .. } => format!("{number} written"),
            TraceHop::Lost => format!("{number} lost"),
        },
    };
    bed.flush();
    bed.state.read_trace(trace).unwrap().pieces.into_iter().map(text).collect()
}

fn word(change: &ConnectionChange) -> String {
    match change {
        ConnectionChange::Closed(cause, _) => cause.label().into(),
        other => format!("{other:?}").to_lowercase(),
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_is_told_with_its_hops_and_its_answer_names_it() {
    let mut bed = Testbed::new();
    let ann = bed.client("ann");
    let trace = begin(&mut bed, TraceSubject::Connection(whole_id("ann")));
    assert_eq!(bed.state.trace_present(trace, 0), None, "one stretch is enough");
    let mark = say(&mut bed, ann, SAY, true).unwrap();
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
    assert_eq!(told(&mut bed, trace), expected);
}

#[tokio::test(start_paused = true)]
async fn others_are_not_told_and_payloads_are_only_where_they_are_wanted() {
    let mut bed = Testbed::new();
    let (ann, ben) = (bed.client("ann"), bed.client("ben"));
    let subject = TraceSubject::Connection(whole_id("ann"));
    let hidden = begin(&mut bed, subject.clone());
    let shown = bed.state.trace(TraceFilter { hub: None, subject, with_payloads: true }, Instant::now()).unwrap();
    for trace in [hidden, shown] {
        bed.state.trace_found(trace, &[ann, ben]);
    }
    assert_eq!(say(&mut bed, ben, SAY, true), None);
    assert!(say(&mut bed, ann, SAY, true).is_some());
    let payload = |bed: &mut Testbed, trace| {
        let pieces = bed.state.read_trace(trace).unwrap().pieces;
        pieces.into_iter().find_map(|piece| match piece.event {
            TraceEvent::Message(message) => Some(message.payload),
            _ => None,
        })
    };
    assert_eq!(payload(&mut bed, hidden), Some(None));
    assert_eq!(payload(&mut bed, shown), Some(Some(r#"[{"token":"[redacted]"}]"#.into())));
}

#[tokio::test(start_paused = true)]
async fn a_method_is_followed_at_all_clients_in_both_directions() {
    let mut bed = Testbed::new();
    let (ann, ben) = (bed.client("ann"), bed.client("ben"));
    let (calls, sends) =
        (begin(&mut bed, TraceSubject::Method("sAy".into())), begin(&mut bed, TraceSubject::Method("Said".into())));
    say(&mut bed, ann, &format!("{}{SAY}", SAID.replace("Said", "Other")), true);
    bed.data("ann", ann, AppServerId::from(OWN), ANSWER);
    bed.data("ben", ben, AppServerId::from(OWN), ANSWER);
    send(&mut bed, Audience::Everyone.into(), SAID);
    assert_eq!(told(&mut bed, calls), ["ann up Say 0", "0 answered", "ann down completion 1 answers 0", "1 written"]);
    assert_eq!(told(&mut bed, sends), ["ann down Said 0", "ben down Said 1", "0 written", "1 written"]);
}

#[tokio::test(start_paused = true)]
async fn members_of_a_group_are_followed_while_they_are() {
    let mut bed = Testbed::new();
    let (ann, ben) = (bed.client("ann"), bed.client("ben"));
    join(&mut bed, "ann", ann, MembershipChange::Join("room".into()));
    let trace = begin(&mut bed, TraceSubject::Group("room".into()));
    bed.state.trace_found(trace, &[ann, ben]);
    join(&mut bed, "ben", ben, MembershipChange::Join("room".into()));
    send(&mut bed, Audience::Groups(vec!["room".into()]).into(), SAID);
    join(&mut bed, "ann", ann, MembershipChange::LeaveAll);
    send(&mut bed, Audience::Groups(vec!["room".into()]).into(), SAID);
    bed.flush();
    bed.state.close(ben, &CloseReason::by_client(Cause::ClientClosed));
    let told = told(&mut bed, trace);
    let of = |wanted: &str| told.iter().filter(|event| event.contains(wanted)).count();
    assert_eq!((of("ann down Said"), of("ben down Said"), of("written")), (1, 2, 3));
    let news: Vec<_> = told.iter().filter(|event| !event.contains("down") && !event.contains("written")).collect();
    assert_eq!(news, ["ann present", "ben joined", "ann left", "ben client_closed"]);
}

#[tokio::test(start_paused = true)]
async fn more_than_a_trace_tells_in_a_second_is_counted() {
    let mut bed = Testbed::new();
    let ann = bed.client("ann");
    let trace = begin(&mut bed, TraceSubject::User("ann".into()));
    bed.state.trace_found(trace, &[ann]);
    let most = u64::from(TOLD_PER_SECOND_MAX);
    for _ in 0..most + 7 {
        say(&mut bed, ann, SAID, false);
    }
    let batch = bed.state.read_trace(trace).unwrap();
    assert_eq!((batch.messages, batch.dropped_messages), (most, 7));
    let counters = &bed.state.context.counters;
    assert_eq!((counters.traced_messages.get(), counters.untraced_messages.get()), (most, 7));
    bed.state.advance();
    assert!(say(&mut bed, ann, SAID, false).is_some(), "a new second");
}

#[tokio::test(start_paused = true)]
async fn a_send_to_very_many_is_told_for_some_of_them() {
    let mut bed = Testbed::new();
    let trace = begin(&mut bed, TraceSubject::Method("Said".into()));
    for index in 0..RECIPIENTS_MAX + 9 {
        bed.client(&format!("client{index}"));
    }
    send(&mut bed, Audience::Everyone.into(), SAID);
    let batch = bed.state.read_trace(trace).unwrap();
    assert_eq!((batch.messages, batch.dropped_messages), (RECIPIENTS_MAX as u64, 9));
}

#[tokio::test(start_paused = true)]
async fn traces_are_bounded_and_end_when_nobody_reads_them() {
    let mut bed = Testbed::new();
    let all: Vec<_> = (0..TRACES_MAX).map(|_| begin(&mut bed, TraceSubject::User("ann".into()))).collect();
    let filter = TraceFilter { hub: None, subject: TraceSubject::User("ann".into()), with_payloads: false };
    let refused = bed.state.trace(filter, Instant::now()).unwrap_err();
    assert!(refused.to_string().starts_with("4 traces run already"));
    for _ in 0..=IDLE_TICKS {
        assert!(bed.state.read_trace(all[0]).is_some());
        bed.state.advance();
    }
    assert!(bed.state.read_trace(all[0]).is_some() && bed.state.read_trace(all[1]).is_none());
    bed.state.end_trace(all[0]);
    assert!(!bed.state.delivery.taps.are_any() && bed.state.time_for_traces().is_none());
}

#[tokio::test(start_paused = true)]
async fn without_a_trace_nothing_is_marked_and_a_report_is_for_nobody() {
    let mut bed = Testbed::new();
    let ann = bed.client("ann");
    assert_eq!(say(&mut bed, ann, SAY, true), None);
    report(&mut bed, "ann", ann, TraceReport::default());
    let trace = begin(&mut bed, TraceSubject::User("ann".into()));
    bed.state.trace_found(trace, &[ann]);
    report(&mut bed, "ann", ann, TraceReport { mark: 99, ..TraceReport::default() });
    assert_eq!(told(&mut bed, trace), ["ann present"]);
    assert_eq!(bed.state.connections.get(ann).map(|client| client.content), Some(Content::Hub(HubProtocol::Json)));
}
