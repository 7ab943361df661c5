//! Properties of all service messages, all splits of frames, and all orders of frames and pings.

#![expect(clippy::expect_used, clippy::indexing_slicing, clippy::unwrap_used, reason = "a test may panic")]

use bytes::{BufMut, Bytes, BytesMut};
use bytestring::ByteString;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::Index;
use trunkline_protocol::limits::{ACKNOWLEDGE_DELAY_MS, LINK_FRAME_MAX_BYTES};
use trunkline_protocol::service::{
    ACKNOWLEDGE_KEY, AccessKeyRequest, AccessKeyResponse, Ack, AckStatus, BroadcastData, Check, CheckUserInGroup,
    ClientCompletion, ClientInvocation, CloseConnection, CloseWithAck, ConnectionClaims, ConnectionData,
    ConnectionFlowControl, ConnectionMoved, ConnectionReconnect, Counters, DownMark, ErrorCompletion, Filtered,
    FlowOperation, FlowSubject, FrameBuffer, GroupBroadcastData, GroupChange, GroupJoin, GroupMemberQuery,
    LinkHandshakeRequest, LinkHandshakeResponse, LinkKind, MoveConnection, MultiConnectionData,
    MultiGroupBroadcastData, MultiUserData, OpenConnection, Payloads, Ping, PresenceChanges, PresencePhase, RecordAct,
    RecordEnd, RecordRequest, Recorded, RecordedSet, RefreshAuth, RefreshConnection, ServiceError, ServiceEvent,
    ServiceMapping, ServiceMessage, Stamped, TraceReport, TracedData, UserConnectionQuery, UserData, UserGroupChange,
    encode_connection_data,
};

/// Numbers of the supported messages.
const KNOWN: [i64; 59] = [
    1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31,
    32, 33, 34, 35, 36, 37, 38, 39, 40, 41, 42, 43, 60, 61, 62, 63, 64, 70, 71, 72, 73, 74, 75, 76, 77, 78, 80, 81,
];

/// Texts of all header lengths: most are short, some need two length bytes, a few need three.
fn text() -> impl Strategy<Value = ByteString> {
    let lengths = prop_oneof![20 => 0..12_usize, 2 => 28..40_usize, 1 => 250..260_usize];
    (lengths, any::<char>()).prop_map(|(length, letter)| {
        let mut text: String = "0123456789abcdef".chars().cycle().take(length.saturating_sub(1)).collect();
        text.extend((length > 0).then_some(letter));
        text.into()
    })
}

fn optional() -> impl Strategy<Value = Option<ByteString>> {
    option::of(text())
}

/// Azure omits empty values.
fn present() -> impl Strategy<Value = Option<ByteString>> {
    optional().prop_map(|text| text.filter(|text| !text.is_empty()))
}

fn binary() -> impl Strategy<Value = Bytes> {
    let lengths =
        prop_oneof![20 => 0..20_usize, 4 => 100..300_usize, 2 => 16_300..16_400_usize, 1 => 65_500..65_600_usize];
    (lengths, any::<u8>()).prop_map(|(length, byte)| vec![byte; length].into())
}

fn number() -> impl Strategy<Value = i64> {
    let bits = 0..64_u32;
    (any::<i64>(), bits).prop_map(|(value, bits)| value >> bits)
}

fn texts() -> impl Strategy<Value = Vec<ByteString>> {
    prop_oneof![8 => vec(text(), 0..4), 1 => vec(text(), 14..20)]
}

fn pairs() -> impl Strategy<Value = Vec<(ByteString, ByteString)>> {
    prop_oneof![8 => vec((text(), text()), 0..4), 1 => vec((text(), text()), 14..20)]
}

fn headers() -> impl Strategy<Value = Vec<(ByteString, Vec<ByteString>)>> {
    vec((text(), texts()), 0..4)
}

fn payloads() -> impl Strategy<Value = Payloads> {
    vec((text(), binary()), 0..3).prop_map(Payloads)
}

fn group_change(group: impl Strategy<Value = Option<ByteString>>) -> impl Strategy<Value = GroupChange> {
    (text(), group, number()).prop_map(|(connection_id, group, ack_id)| GroupChange { connection_id, group, ack_id })
}

fn user_group_change(group: impl Strategy<Value = Option<ByteString>>) -> impl Strategy<Value = UserGroupChange> {
    (text(), group, number(), option::of(number())).prop_map(|(user_id, group, ack_id, ttl_s)| UserGroupChange {
        user_id,
        group,
        ack_id,
        ttl_s,
    })
}

fn close_with_ack() -> impl Strategy<Value = CloseWithAck> {
    (text(), optional(), number(), texts()).prop_map(|(subject, reason, ack_id, excluded)| CloseWithAck {
        subject,
        reason,
        ack_id,
        excluded,
    })
}

fn check() -> impl Strategy<Value = Check> {
    (text(), number()).prop_map(|(subject, ack_id)| Check { subject, ack_id })
}

fn link_kind() -> impl Strategy<Value = LinkKind> {
    let unknown = number().prop_filter("known", |kind| !(0..=2).contains(kind)).prop_map(LinkKind::Unknown);
    prop_oneof![Just(LinkKind::Default), Just(LinkKind::OnDemand), Just(LinkKind::Weak), unknown]
}

fn ack_status() -> impl Strategy<Value = AckStatus> {
    let unknown = number().prop_filter("known", |status| !(1..=5).contains(status)).prop_map(AckStatus::Unknown);
    let known =
        [AckStatus::Ok, AckStatus::NotFound, AckStatus::Timeout, AckStatus::InternalServerError, AckStatus::Forbidden];
    prop_oneof![proptest::sample::select(known.to_vec()), unknown]
}

fn link_message() -> BoxedStrategy<ServiceMessage> {
    let request = (number(), link_kind(), text(), number(), any::<bool>()).prop_map(
        |(version, kind, target, migration_level, allow_stateful_reconnects)| {
            ServiceMessage::HandshakeRequest(LinkHandshakeRequest {
                version,
                kind,
                target,
                migration_level,
                allow_stateful_reconnects,
            })
        },
    );
    let response = (present(), optional()).prop_map(|(error, connection_id)| {
        ServiceMessage::HandshakeResponse(LinkHandshakeResponse { error, connection_id })
    });
    let event = (number(), optional(), number(), optional()).prop_map(|(object, id, kind, message)| {
        ServiceMessage::ServiceEvent(ServiceEvent { object, id, kind, message })
    });
    let ack = (number(), ack_status(), optional(), option::of(binary()))
        .prop_map(|(ack_id, status, message, payload)| ServiceMessage::Ack(Ack { ack_id, status, message, payload }));
    prop_oneof![
        request,
        response,
        event,
        ack,
        pairs().prop_map(|pairs| ServiceMessage::Ping(Ping { pairs })),
        text().prop_map(|error| ServiceMessage::ServiceError(ServiceError { error })),
    ]
    .boxed()
}

fn connection_message() -> BoxedStrategy<ServiceMessage> {
    let open = (text(), pairs(), headers(), optional(), optional()).prop_map(
        |(connection_id, claims, headers, query, protocol)| {
            ServiceMessage::OpenConnection(OpenConnection { connection_id, claims, headers, query, protocol })
        },
    );
    let close = (text(), optional(), headers()).prop_map(|(connection_id, error, headers)| {
        ServiceMessage::CloseConnection(CloseConnection { connection_id, error, headers })
    });
    let data =
        (text(), binary(), number(), any::<bool>()).prop_map(|(connection_id, payload, data_type, is_partial)| {
            ServiceMessage::ConnectionData(ConnectionData { connection_id, payload, data_type, is_partial })
        });
    let subjects = proptest::sample::select(vec![FlowSubject::Client, FlowSubject::Server]);
    let operations = proptest::sample::select(vec![
        FlowOperation::Pause,
        FlowOperation::PauseAck,
        FlowOperation::Resume,
        FlowOperation::Offline,
        FlowOperation::ReadOn,
        FlowOperation::EndInput,
    ]);
    let flow = (text(), subjects, operations).prop_map(|(connection_id, subject, operation)| {
        ServiceMessage::ConnectionFlowControl(ConnectionFlowControl { connection_id, subject, operation })
    });
    let reconnect =
        text().prop_map(|connection_id| ServiceMessage::ConnectionReconnect(ConnectionReconnect { connection_id }));
    prop_oneof![open, close, data, flow, reconnect].boxed()
}

fn data_message() -> BoxedStrategy<ServiceMessage> {
    prop_oneof![
        (texts(), payloads()).prop_map(|(connection_ids, payloads)| {
            ServiceMessage::MultiConnectionData(MultiConnectionData { connection_ids, payloads })
        }),
        (text(), payloads()).prop_map(|(user_id, payloads)| ServiceMessage::UserData(UserData { user_id, payloads })),
        (texts(), payloads())
            .prop_map(|(user_ids, payloads)| ServiceMessage::MultiUserData(MultiUserData { user_ids, payloads })),
        (texts(), payloads())
            .prop_map(|(excluded, payloads)| ServiceMessage::BroadcastData(BroadcastData { excluded, payloads })),
        (text(), texts(), payloads(), texts(), optional()).prop_map(
            |(group, excluded, payloads, excluded_users, caller_user)| {
                ServiceMessage::GroupBroadcastData(GroupBroadcastData {
                    group,
                    excluded,
                    payloads,
                    excluded_users,
                    caller_user,
                })
            }
        ),
        (texts(), payloads()).prop_map(|(groups, payloads)| {
            ServiceMessage::MultiGroupBroadcastData(MultiGroupBroadcastData { groups, payloads })
        }),
    ]
    .boxed()
}

/// Fields without a place on the wire keep their default.
fn group_message() -> BoxedStrategy<ServiceMessage> {
    let without_ack = |it: GroupChange| GroupChange { ack_id: 0, ..it };
    let user_without_ack = |it: UserGroupChange| UserGroupChange { ack_id: 0, ..it };
    let without_ttl = |it: UserGroupChange| UserGroupChange { ttl_s: None, ..it };
    let named = || text().prop_map(Some);
    prop_oneof![
        group_change(named()).prop_map(move |it| ServiceMessage::JoinGroup(without_ack(it))),
        group_change(optional()).prop_map(move |it| ServiceMessage::LeaveGroup(without_ack(it))),
        group_change(named()).prop_map(ServiceMessage::JoinGroupWithAck),
        group_change(optional()).prop_map(ServiceMessage::LeaveGroupWithAck),
        user_group_change(named()).prop_map(move |it| ServiceMessage::UserJoinGroup(user_without_ack(it))),
        user_group_change(optional())
            .prop_map(move |it| ServiceMessage::UserLeaveGroup(without_ttl(user_without_ack(it)))),
        user_group_change(named()).prop_map(ServiceMessage::UserJoinGroupWithAck),
        user_group_change(optional()).prop_map(move |it| ServiceMessage::UserLeaveGroupWithAck(without_ttl(it))),
    ]
    .boxed()
}

fn order_message() -> BoxedStrategy<ServiceMessage> {
    let user_in_group = (text(), text(), number()).prop_map(|(user_id, group, ack_id)| {
        ServiceMessage::CheckUserInGroupWithAck(CheckUserInGroup { user_id, group, ack_id })
    });
    let query = (text(), number(), option::of(number()), option::of(number()), optional());
    let query = query.prop_map(|(group, ack_id, page_size, top, continuation_token)| {
        let it = GroupMemberQuery { group, ack_id, page_size, top, continuation_token };
        ServiceMessage::GroupMemberQuery(it)
    });
    let moved = (text(), number())
        .prop_map(|(connection_id, epoch)| ServiceMessage::ConnectionMoved(ConnectionMoved { connection_id, epoch }));
    let close_one = |it| ServiceMessage::CloseConnectionWithAck(CloseWithAck { excluded: Vec::new(), ..it });
    let close_all = |it| ServiceMessage::CloseConnectionsWithAck(CloseWithAck { subject: ByteString::new(), ..it });
    prop_oneof![
        user_in_group,
        query,
        moved,
        text().prop_map(|connection_id| ServiceMessage::MoveConnection(MoveConnection { connection_id })),
        presence_changes().prop_map(ServiceMessage::PresenceChanges),
        (text(), number(), option::of(number()), optional()).prop_map(
            |(user_id, ack_id, page_size, continuation_token)| {
                let query = UserConnectionQuery { user_id, ack_id, page_size, continuation_token };
                ServiceMessage::UserConnectionQuery(query)
            }
        ),
        (text(), binary()).prop_map(|(filter, body)| ServiceMessage::Filtered(Filtered { filter, body })),
        (number(), binary()).prop_map(|(epoch, body)| ServiceMessage::Stamped(Stamped { epoch, body })),
        (number(), binary()).prop_map(|(mark, body)| ServiceMessage::TracedData(TracedData { mark, body })),
        trace_report(),
        (text(), number(), number()).prop_map(refresh_connection),
        (text(), number(), any::<bool>()).prop_map(|(connection_id, number, is_report)| {
            let it = DownMark { connection_id, number };
            if is_report { ServiceMessage::DownDone(it) } else { ServiceMessage::DownMark(it) }
        }),
        (any::<bool>(), text(), any::<u32>(), any::<bool>(), binary()).prop_map(
            |(is_user, name, number, ends, body)| {
                let (set, end) = (RecordedSet { is_user, name }, ends.then_some(RecordEnd::Deleted));
                ServiceMessage::Recorded(Recorded { set, epoch: 1, number: number.into(), end, body })
            }
        ),
        (any::<bool>(), text(), optional(), text(), binary()).prop_map(|(is_user, name, id, start, body)| {
            let (set, act, nodes) = (RecordedSet { is_user, name }, RecordAct::Append, vec![start.clone()]);
            ServiceMessage::RecordRequest(RecordRequest { set, act, id, start, body, ack_id: 7, nodes })
        }),
        (text(), claims(), number(), number()).prop_map(refresh_auth),
        check().prop_map(ServiceMessage::GetConnectionClaims),
        (text(), claims()).prop_map(connection_claims),
        check().prop_map(ServiceMessage::CheckGroupExistenceWithAck),
        check().prop_map(ServiceMessage::CheckConnectionExistenceWithAck),
        check().prop_map(ServiceMessage::CheckUserExistenceWithAck),
        close_with_ack().prop_map(close_one),
        close_with_ack().prop_map(close_all),
        close_with_ack().prop_map(ServiceMessage::CloseUserConnectionsWithAck),
        close_with_ack().prop_map(ServiceMessage::CloseGroupConnectionsWithAck),
    ]
    .boxed()
}

fn refresh_connection((connection_id, expires_s, ack_id): (ByteString, i64, i64)) -> ServiceMessage {
    ServiceMessage::RefreshConnectionWithAck(RefreshConnection { connection_id, expires_s, ack_id })
}

type Claims = Vec<(ByteString, ByteString)>;

fn claims() -> impl Strategy<Value = Claims> {
    vec((text(), text()), 0..4)
}

fn refresh_auth((connection, claims, expires_s, ack_id): (ByteString, Claims, i64, i64)) -> ServiceMessage {
    ServiceMessage::RefreshAuth(RefreshAuth { connection, claims, expires_s, ack_id })
}

fn connection_claims((connection_id, claims): (ByteString, Claims)) -> ServiceMessage {
    ServiceMessage::UpdateConnectionClaims(ConnectionClaims { connection_id, claims })
}

fn trace_report() -> impl Strategy<Value = ServiceMessage> {
    let durations = (number(), option::of(number()), option::of(number()), option::of(number()));
    (text(), number(), durations, any::<bool>()).prop_map(|(connection_id, mark, durations, has_failed)| {
        let (waited_us, queued_us, ran_us, answered_us) = durations;
        let it = TraceReport { connection_id, mark, waited_us, queued_us, ran_us, answered_us, has_failed };
        ServiceMessage::TraceReport(it)
    })
}

fn result_message() -> BoxedStrategy<ServiceMessage> {
    let ids = || (text(), text(), text());
    let invocation = (ids(), payloads()).prop_map(|((invocation_id, connection_id, caller_server_id), payloads)| {
        let it = ClientInvocation { invocation_id, connection_id, caller_server_id, payloads };
        ServiceMessage::ClientInvocation(it)
    });
    let completion = (ids(), text(), binary()).prop_map(|(ids, protocol, payload)| {
        let (invocation_id, connection_id, caller_server_id) = ids;
        let it = ClientCompletion { invocation_id, connection_id, caller_server_id, protocol, payload };
        ServiceMessage::ClientCompletion(it)
    });
    let error = (ids(), text()).prop_map(|((invocation_id, connection_id, caller_server_id), error)| {
        ServiceMessage::ErrorCompletion(ErrorCompletion { invocation_id, connection_id, caller_server_id, error })
    });
    let mapping = ids().prop_map(|(invocation_id, connection_id, instance_id)| {
        ServiceMessage::ServiceMapping(ServiceMapping { invocation_id, connection_id, instance_id })
    });
    let key_request = (optional(), optional())
        .prop_map(|(token, key_id)| ServiceMessage::AccessKeyRequest(AccessKeyRequest { token, key_id }));
    let key = (optional(), optional(), optional(), optional());
    let key_response = key.prop_map(|(key_id, access_key, error_type, error)| {
        ServiceMessage::AccessKeyResponse(AccessKeyResponse { key_id, access_key, error_type, error })
    });
    prop_oneof![invocation, completion, error, mapping, key_request, key_response].boxed()
}

fn message() -> impl Strategy<Value = ServiceMessage> {
    prop_oneof![
        6 => link_message(),
        5 => connection_message(),
        6 => data_message(),
        8 => group_message(),
        8 => order_message(),
        4 => result_message(),
    ]
}

/// Arbitrary encoded MessagePack value.
fn value() -> impl Strategy<Value = Vec<u8>> {
    let write = |write: &dyn Fn(&mut Vec<u8>)| {
        let mut out = Vec::new();
        write(&mut out);
        out
    };
    let leaf = prop_oneof![
        Just(vec![0xc0]),
        any::<bool>().prop_map(move |it| write(&|out| rmp::encode::write_bool(out, it).unwrap())),
        number().prop_map(move |it| write(&|out| {
            rmp::encode::write_sint(out, it).unwrap();
        })),
        any::<f64>().prop_map(move |it| write(&|out| rmp::encode::write_f64(out, it).unwrap())),
        text().prop_map(move |it| write(&|out| rmp::encode::write_str(out, &it).unwrap())),
        vec(any::<u8>(), 0..8).prop_map(move |it| write(&|out| rmp::encode::write_bin(out, &it).unwrap())),
    ];
    leaf.prop_recursive(4, 16, 4, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..4).prop_map(|items| {
                let mut out = Vec::new();
                rmp::encode::write_array_len(&mut out, u32::try_from(items.len()).unwrap()).unwrap();
                out.extend(items.concat());
                out
            }),
            vec((inner.clone(), inner), 0..3).prop_map(|entries| {
                let mut out = Vec::new();
                rmp::encode::write_map_len(&mut out, u32::try_from(entries.len()).unwrap()).unwrap();
                out.extend(entries.into_iter().flat_map(|(key, value)| [key, value].concat()));
                out
            }),
        ]
    })
}

fn body_of(frame: Bytes) -> Bytes {
    let mut buffer = FrameBuffer::default();
    buffer.push(frame);
    let body = buffer.next_body().unwrap().expect("a whole frame");
    assert_eq!(buffer.next_body(), Ok(None), "nothing behind it");
    body
}

/// Returns all complete bodies, up to `limit`, which is never reached.
fn drain(buffer: &mut FrameBuffer, limit: usize) -> Vec<Bytes> {
    let mut bodies = Vec::new();
    while let Ok(Some(body)) = buffer.next_body() {
        bodies.push(body);
        assert!(bodies.len() <= limit, "more bodies than bytes");
    }
    bodies
}

/// Appends values to a body and adjusts its item count.
fn lengthened(body: &Bytes, more: &[Vec<u8>]) -> Bytes {
    let &first = body.first().unwrap();
    assert_eq!(first & 0xf0, 0x90, "messages but pings have fewer than 16 items");
    let items = u32::from(first & 0x0f) + u32::try_from(more.len()).unwrap();
    let mut out = Vec::new();
    rmp::encode::write_array_len(&mut out, items).unwrap();
    out.extend_from_slice(&body[1..]);
    out.extend(more.concat());
    out.into()
}

proptest! {
    #[test]
    fn every_message_round_trips(message in message()) {
        let decoded = ServiceMessage::decode(&body_of(message.to_frame()));
        prop_assert_eq!(decoded, Ok(Some(message)));
    }

    #[test]
    fn the_number_is_the_first_item_and_is_defined(message in message()) {
        let body = body_of(message.to_frame());
        let mut rest = &body[..];
        rmp::decode::read_array_len(&mut rest).unwrap();
        let number: i64 = rmp::decode::read_int(&mut rest).unwrap();
        prop_assert_eq!(number, i64::from(message.number()));
        prop_assert!(KNOWN.contains(&number));
        prop_assert_ne!(message.name(), "Unknown");
    }

    #[test]
    fn direct_encoding_equals_the_encoding_of_the_message(id in text(), payload in binary(), data_type in number()) {
        let mut quick = BytesMut::new();
        encode_connection_data(&id, &payload, data_type, &mut quick);
        let message = ConnectionData { connection_id: id, payload, data_type, is_partial: false };
        prop_assert_eq!(quick.freeze(), ServiceMessage::ConnectionData(message).to_frame());
    }

    #[test]
    fn any_cut_gives_the_same_bodies(
        messages in vec(message(), 0..8),
        cuts in vec(any::<Index>(), 0..20),
        eager in any::<bool>(),
    ) {
        let mut stream = BytesMut::new();
        messages.iter().for_each(|message| message.encode(&mut stream));
        let stream = stream.freeze();
        let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.index(stream.len() + 1)).collect();
        cuts.extend([0, stream.len()]);
        cuts.sort_unstable();

        let mut buffer = FrameBuffer::default();
        let mut bodies = Vec::new();
        for pair in cuts.windows(2) {
            buffer.push(stream.slice(pair[0]..pair[1]));
            if eager {
                bodies.extend(drain(&mut buffer, stream.len()));
            }
        }
        bodies.extend(drain(&mut buffer, stream.len()));
        let decoded: Vec<_> = bodies.iter().map(|body| ServiceMessage::decode(body).unwrap().unwrap()).collect();
        prop_assert_eq!(decoded, messages);
    }

    #[test]
    fn a_longer_array_is_the_same_message(message in message(), more in vec(value(), 1..4)) {
        // Additional items of a ping are pairs, and query layouts depend on the length.
        let is_short_query = matches!(&message, ServiceMessage::GroupMemberQuery(query) if query.top.is_none());
        prop_assume!(!is_short_query && !matches!(message, ServiceMessage::Ping(_)));
        let body = lengthened(&body_of(message.to_frame()), &more);
        prop_assert_eq!(ServiceMessage::decode(&body), Ok(Some(message)));
    }

    #[test]
    fn an_unknown_type_decodes_to_none(number in number(), fields in vec(value(), 0..6)) {
        prop_assume!(!KNOWN.contains(&number));
        let mut body = Vec::new();
        rmp::encode::write_array_len(&mut body, u32::try_from(fields.len() + 1).unwrap()).unwrap();
        rmp::encode::write_sint(&mut body, number).unwrap();
        body.extend(fields.concat());
        prop_assert_eq!(ServiceMessage::decode(&body.into()), Ok(None));
    }

    #[test]
    fn a_message_with_items_of_any_kind_never_panics(number in 0..42_i64, fields in vec(value(), 0..8)) {
        let mut body = Vec::new();
        rmp::encode::write_array_len(&mut body, u32::try_from(fields.len() + 1).unwrap()).unwrap();
        rmp::encode::write_sint(&mut body, number).unwrap();
        body.extend(fields.concat());
        check_bounded(&body.into())?;
    }

    #[test]
    fn a_changed_frame_never_panics_and_never_grows(
        message in message(),
        changes in vec((any::<Index>(), any::<u8>()), 1..6),
        kept in any::<Index>(),
    ) {
        let mut body = body_of(message.to_frame()).to_vec();
        for (at, byte) in changes {
            let at = at.index(body.len());
            body[at] = byte;
        }
        let cut = kept.index(body.len() + 1);
        check_bounded(&Bytes::copy_from_slice(&body[..cut]))?;
        check_bounded(&body.into())?;
    }

    #[test]
    fn garbage_never_panics_and_never_grows(pieces in vec(vec(any::<u8>(), 0..64), 0..8)) {
        let mut buffer = FrameBuffer::default();
        let total: usize = pieces.iter().map(Vec::len).sum();
        let mut handed_out = 0;
        for piece in pieces {
            check_bounded(&piece.clone().into())?;
            buffer.push(piece.into());
            for body in drain(&mut buffer, total + 1) {
                handed_out += body.len();
                check_bounded(&body)?;
            }
        }
        prop_assert!(handed_out <= total);
    }

    #[test]
    fn a_claimed_count_makes_no_room(number in 1..40_i64, marker in 0..2_usize, claimed in any::<u32>()) {
        // A huge list or map in every possible position; also without a preceding text.
        for texts in 0..4 {
            let mut body = Vec::new();
            rmp::encode::write_array_len(&mut body, 7).unwrap();
            rmp::encode::write_sint(&mut body, number).unwrap();
            (0..texts).for_each(|_| rmp::encode::write_str(&mut body, "x").unwrap());
            body.put_u8([0xdd, 0xdf][marker]);
            body.put_u32(claimed.max(64));
            body.extend([0x80; 6]);
            check_bounded(&body.into())?;
        }
    }

    #[test]
    fn nothing_is_kept_of_a_frame_over_the_limit_but_its_beginning(over in 1..=(0x7fff_ffff - LINK_FRAME_MAX_BYTES)) {
        let length = LINK_FRAME_MAX_BYTES + over;
        let mut left = length;
        let mut prefix = Vec::new();
        while left > 0x7f {
            prefix.push(u8::try_from(left & 0x7f).unwrap() | 0x80);
            left >>= 7;
        }
        prefix.push(u8::try_from(left).unwrap());
        let mut buffer = FrameBuffer::default();
        for byte in prefix {
            prop_assert_eq!(buffer.next_body(), Ok(None));
            buffer.push(vec![byte].into());
        }
        // The frame is all zeros, and another frame would follow it.
        let part = Bytes::from(vec![0; 64 * 1024]);
        for _ in 0..4 {
            prop_assert_eq!(buffer.next_body(), Ok(None));
            buffer.push(part.clone());
        }
        prop_assert_eq!(buffer.next_body(), Ok(None));
    }
}

/// Decoding may fail, but its output never exceeds its input.
fn check_bounded(body: &Bytes) -> Result<(), TestCaseError> {
    if let Ok(Some(message)) = ServiceMessage::decode(body) {
        // Encoding again yields the same data plus the few items that short forms omit.
        let frame = message.to_frame();
        prop_assert!(frame.len() <= 2 * body.len() + 32, "{} bytes of {}", frame.len(), body.len());
        let again = ServiceMessage::decode(&body_of(frame));
        prop_assert_eq!(again, Ok(Some(message)));
    }
    Ok(())
}

/// Step between two ends of a link.
#[derive(Debug, Clone)]
enum Step {
    /// An end sends a frame.
    Send,
    /// The oldest item in flight to this end arrives.
    Arrive,
    /// Time passes, and this end checks whether a ping is due.
    Wait(u64),
    /// This end has been idle for long.
    KeepAlive,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => Just(Step::Send),
        4 => Just(Step::Arrive),
        2 => (0..ACKNOWLEDGE_DELAY_MS * 2).prop_map(Step::Wait),
        1 => Just(Step::KeepAlive),
    ]
}

/// Frames in flight between the ends.
#[derive(Debug)]
enum Carried {
    Frame(u64),
    Ping(Ping),
}

/// Two sessions, and the items in flight to each.
#[derive(Debug, Default)]
struct Link {
    now_ms: u64,
    ends: [Counters; 2],
    to: [std::collections::VecDeque<Carried>; 2],
    /// Last number that arrived at each end.
    arrived: [u64; 2],
    /// Arrival time of the oldest unacknowledged frame at each end.
    waiting_since_ms: [Option<u64>; 2],
}

impl Link {
    fn step(&mut self, end: usize, step: Step) -> Result<(), TestCaseError> {
        match step {
            Step::Send => {
                let number = self.ends[end].handle_sent();
                self.to[1 - end].push_back(Carried::Frame(number));
            }
            Step::Arrive => self.arrive(end)?,
            Step::Wait(ms) => {
                self.now_ms += ms;
                let due = self.ends[end].poll_timeout().is_some_and(|at_ms| at_ms <= self.now_ms);
                let ping = self.ends[end].poll_ping(self.now_ms);
                prop_assert_eq!(ping.is_some(), due);
                if let Some(ping) = ping {
                    self.send_ping(end, ping);
                }
            }
            Step::KeepAlive => {
                let ping = self.ends[end].keep_alive();
                self.send_ping(end, ping);
            }
        }
        Ok(())
    }

    fn arrive(&mut self, end: usize) -> Result<(), TestCaseError> {
        match self.to[end].pop_front() {
            Some(Carried::Frame(number)) => {
                prop_assert_eq!(number, self.arrived[end] + 1);
                self.arrived[end] = number;
                self.waiting_since_ms[end].get_or_insert(self.now_ms);
                self.ends[end].handle_received(self.now_ms);
            }
            Some(Carried::Ping(ping)) => prop_assert_eq!(self.ends[end].handle_ping(&ping), Ok(())),
            None => {}
        }
        Ok(())
    }

    fn send_ping(&mut self, end: usize, ping: Ping) {
        if ping.get(ACKNOWLEDGE_KEY).is_some() {
            self.waiting_since_ms[end] = None;
        }
        self.to[1 - end].push_back(Carried::Ping(ping));
    }

    fn check(&self) -> Result<(), TestCaseError> {
        for (end, session) in self.ends.iter().enumerate() {
            let peer = &self.ends[1 - end];
            prop_assert!(session.acknowledged() <= peer.received());
            prop_assert!(peer.received() <= session.sent());
            prop_assert_eq!(session.received(), self.arrived[end]);
            let due_ms = self.waiting_since_ms[end].map(|since_ms| since_ms + ACKNOWLEDGE_DELAY_MS);
            prop_assert_eq!(session.poll_timeout(), due_ms);
        }
        Ok(())
    }
}

proptest! {
    #[test]
    fn two_ends_of_a_link_agree(steps in vec((0..2_usize, step()), 0..200)) {
        let mut link = Link::default();
        let mut acknowledged = [0, 0];
        for (end, step) in steps {
            link.step(end, step)?;
            link.check()?;
            for (before, session) in acknowledged.iter_mut().zip(&link.ends) {
                prop_assert!(session.acknowledged() >= *before, "an acknowledgement was taken back");
                *before = session.acknowledged();
            }
        }
        settle(&mut link)?;
        for end in [0, 1] {
            prop_assert_eq!(link.ends[end].acknowledged(), link.ends[end].sent());
            prop_assert_eq!(link.ends[end].poll_timeout(), None);
        }
    }

    #[test]
    fn pings_of_any_content_never_break_the_counters(
        sent in 0..50_u64,
        pings in vec(prop_oneof![number().prop_map(|it| it.to_string()), "[0-9]{0,3}", "\\PC{0,8}"], 0..20),
    ) {
        let mut session = Counters::new();
        for _ in 0..sent {
            session.handle_sent();
        }
        for value in pings {
            let before = session.acknowledged();
            let ping = Ping { pairs: vec![(ACKNOWLEDGE_KEY.into(), value.into())] };
            let taken = session.handle_ping(&ping).is_ok();
            prop_assert!(session.acknowledged() >= before && session.acknowledged() <= sent);
            prop_assert!(taken || session.acknowledged() == before);
        }
    }
}

/// Delivers everything in flight, then sends the owed acknowledgements.
fn settle(link: &mut Link) -> Result<(), TestCaseError> {
    for _ in 0..2 {
        for end in [0, 1] {
            while !link.to[end].is_empty() {
                link.step(end, Step::Arrive)?;
            }
        }
        for end in [0, 1] {
            link.step(end, Step::Wait(ACKNOWLEDGE_DELAY_MS))?;
        }
    }
    for end in [0, 1] {
        while !link.to[end].is_empty() {
            link.step(end, Step::Arrive)?;
        }
    }
    Ok(())
}

fn presence_changes() -> impl Strategy<Value = PresenceChanges> {
    let phase =
        prop_oneof![Just(PresencePhase::Changes), Just(PresencePhase::Snapshot), Just(PresencePhase::SnapshotEnd)];
    let join = (text(), text(), optional()).prop_map(|(group, connection_id, user_id)| GroupJoin {
        group,
        connection_id,
        user_id,
    });
    let users = (texts(), texts());
    let groups = (vec(join, 0..3), vec((text(), text()), 0..3));
    let servers = (option::of(texts()), texts());
    (number(), number(), phase, servers, users, groups).prop_map(
        |(shard, stream, phase, (app_servers, lost), (online, offline), (joined, left))| PresenceChanges {
            shard,
            stream,
            phase,
            app_servers,
            lost,
            online,
            offline,
            joined,
            left,
        },
    )
}
