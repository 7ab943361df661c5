//! Real bytes of the service protocol: golden frames of the reference, layouts without a golden frame, and the forms of
//! older and newer SDKs.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use bytes::{Bytes, BytesMut};
use bytestring::ByteString;
use trunkline_protocol::hub::HubProtocol;
use trunkline_protocol::service::{
    Ack, AckStatus, BroadcastData, Check, CheckUserInGroup, ClientCompletion, ClientInvocation, CloseConnection,
    CloseWithAck, ConnectionClaims, ConnectionData, ConnectionFlowControl, ConnectionReconnect, DownMark,
    ErrorCompletion, Filtered, FlowOperation, FlowSubject, FrameBuffer, GroupBroadcastData, GroupChange, GroupMember,
    GroupMemberQuery, LinkHandshakeRequest, LinkHandshakeResponse, LinkKind, MemberPage, MultiConnectionData,
    MultiGroupBroadcastData, MultiUserData, OpenConnection, Payloads, Ping, RecordRequest, Recorded, RecordedSet,
    RefreshAuth, ServiceError, ServiceEvent, ServiceMapping, ServiceMessage, ServiceMessageError, UserData,
    UserGroupChange, claims_from_payload, claims_to_payload,
};

fn bytes(hex: &str) -> Bytes {
    let digits: Vec<u8> = hex.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
    digits.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The only message of a complete frame.
fn decode_frame(frame: &str) -> Result<Option<ServiceMessage>, ServiceMessageError> {
    let mut buffer = FrameBuffer::default();
    buffer.push(bytes(frame));
    let body = buffer.next_body().unwrap().unwrap();
    assert_eq!(buffer.next_body(), Ok(None), "more than one frame");
    ServiceMessage::decode(&body)
}

fn decode_body(body: &str) -> Result<Option<ServiceMessage>, ServiceMessageError> {
    ServiceMessage::decode(&bytes(body))
}

fn text(text: &'static str) -> ByteString {
    ByteString::from_static(text)
}

fn some(value: &'static str) -> Option<ByteString> {
    Some(text(value))
}

fn json() -> Payloads {
    Payloads::single(HubProtocol::Json, Bytes::from_static(b"{}\x1e"))
}

#[track_caller]
fn both_ways(frame: &str, message: ServiceMessage) {
    assert_eq!(hex(&message.to_frame()), frame);
    assert_eq!(decode_frame(frame), Ok(Some(message)));
}

/// Checks both directions for a body below 128 bytes, given without its length.
#[track_caller]
fn body_both_ways(body: &str, message: ServiceMessage) {
    let body = hex(&bytes(body));
    both_ways(&format!("{:02x}{body}", body.len() / 2), message);
}

#[test]
fn golden_handshakes() {
    let request = LinkHandshakeRequest {
        version: 1,
        kind: LinkKind::OnDemand,
        target: text("node-7"),
        migration_level: 1,
        allow_stateful_reconnects: false,
    };
    both_ways("0e97010101a66e6f64652d370180c2", ServiceMessage::HandshakeRequest(request));
    both_ways(
        "099402c080a473632d31",
        ServiceMessage::HandshakeResponse(LinkHandshakeResponse { error: None, connection_id: some("sc-1") }),
    );
    both_ways(
        "109402ab6261642076657273696f6e80c0",
        ServiceMessage::HandshakeResponse(LinkHandshakeResponse { error: some("bad version"), connection_id: None }),
    );
}

#[test]
fn golden_forms_of_2024_are_read() {
    let request = LinkHandshakeRequest { version: 1, ..LinkHandshakeRequest::default() };
    assert_eq!(decode_frame("0796010100a00080"), Ok(Some(ServiceMessage::HandshakeRequest(request))));
    let ack = Ack { ack_id: 300, status: AckStatus::Ok, message: some(""), payload: None };
    assert_eq!(decode_frame("089514cd012c01a080"), Ok(Some(ServiceMessage::Ack(ack))));
}

#[test]
fn golden_pings() {
    let ping = |pairs: &[(&'static str, &'static str)]| {
        ServiceMessage::Ping(Ping { pairs: pairs.iter().map(|&(key, value)| (text(key), text(value))).collect() })
    };
    both_ways("029103", ping(&[]));
    both_ways("0b9303a6737461747573a131", ping(&[("status", "1")]));
    both_ways("119303a873687574646f776ea566696e3a31", ping(&[("shutdown", "fin:1")]));
    both_ways("129303a873687574646f776ea666696e61636b", ping(&[("shutdown", "finack")]));
}

#[test]
fn golden_life_of_a_connection() {
    both_ways(
        "2f9604a2633181aa617372732e732e756964a2753181a4486f737491a26831a93f6875623d636861748103a46a736f6e",
        ServiceMessage::OpenConnection(OpenConnection {
            connection_id: text("c1"),
            claims: vec![(text("asrs.s.uid"), text("u1"))],
            headers: vec![(text("Host"), vec![text("h1")])],
            query: some("?hub=chat"),
            protocol: some("json"),
        }),
    );
    both_ways(
        "089505a26331a08080",
        ServiceMessage::CloseConnection(CloseConnection {
            connection_id: text("c1"),
            error: some(""),
            headers: Vec::new(),
        }),
    );
    both_ways(
        "1c9505a26331a081af417372732d4d6967726174652d546f91a2733280",
        ServiceMessage::CloseConnection(CloseConnection {
            connection_id: text("c1"),
            error: some(""),
            headers: vec![(text("Asrs-Migrate-To"), vec![text("s2")])],
        }),
    );
    both_ways(
        "0d9406a26331c4037b7d1e810502",
        ServiceMessage::ConnectionData(ConnectionData {
            connection_id: text("c1"),
            payload: Bytes::from_static(b"{}\x1e"),
            data_type: 2,
            is_partial: false,
        }),
    );
    both_ways(
        "0c9406a26331c40261628106c3",
        ServiceMessage::ConnectionData(ConnectionData {
            connection_id: text("c1"),
            payload: Bytes::from_static(b"ab"),
            data_type: 0,
            is_partial: true,
        }),
    );
    both_ways("069326a2633180", ServiceMessage::ConnectionReconnect(ConnectionReconnect { connection_id: text("c1") }));
    both_ways(
        "109527a26331d200000001d20000000180",
        ServiceMessage::ConnectionFlowControl(ConnectionFlowControl {
            connection_id: text("c1"),
            subject: FlowSubject::Client,
            operation: FlowOperation::Pause,
        }),
    );
}

#[test]
fn golden_data_to_many() {
    both_ways(
        "15940792a26331a2633281a46a736f6ec4037b7d1e80",
        ServiceMessage::MultiConnectionData(MultiConnectionData {
            connection_ids: vec![text("c1"), text("c2")],
            payloads: json(),
        }),
    );
    both_ways(
        "119408a2753181a46a736f6ec4037b7d1e80",
        ServiceMessage::UserData(UserData { user_id: text("u1"), payloads: json() }),
    );
    both_ways(
        "14970da267319081a46a736f6ec4037b7d1e8090c0",
        ServiceMessage::GroupBroadcastData(GroupBroadcastData {
            group: text("g1"),
            payloads: json(),
            ..GroupBroadcastData::default()
        }),
    );
    both_ways(
        "15940e92a26731a2673281a46a736f6ec4037b7d1e80",
        ServiceMessage::MultiGroupBroadcastData(MultiGroupBroadcastData {
            groups: vec![text("g1"), text("g2")],
            payloads: json(),
        }),
    );
}

#[test]
fn the_golden_broadcast_is_read_and_loses_only_its_tracing_id() {
    let message = ServiceMessage::BroadcastData(BroadcastData {
        excluded: vec![text("c9")],
        payloads: Payloads(vec![
            (text("json"), Bytes::from_static(b"{}\x1e")),
            (text("messagepack"), Bytes::from_static(b"\x02\x91\x06")),
        ]),
    });
    let with_tracing_id = "27940a91a2633982a46a736f6ec4037b7d1eab6d6573736167657061636bc4030291068101cd1234";
    assert_eq!(decode_frame(with_tracing_id), Ok(Some(message.clone())));
    let filtered = ServiceMessage::Filtered(Filtered { filter: text("x"), body: message.to_body() });
    let with_filter = "26940a91a2633982a46a736f6ec4037b7d1eab6d6573736167657061636bc4030291068104a178";
    assert_eq!(decode_frame(with_filter), Ok(Some(filtered)));
    both_ways("23940a91a2633982a46a736f6ec4037b7d1eab6d6573736167657061636bc40302910680", message);
    let group = decode_frame("17970da267319081a46a736f6ec4037b7d1e8104a17890c0");
    assert!(matches!(group, Ok(Some(ServiceMessage::Filtered(_)))), "{group:?}");
}

#[test]
fn golden_groups_acks_and_events() {
    both_ways(
        "0c9512a26331a26731cd012c80",
        ServiceMessage::JoinGroupWithAck(GroupChange { connection_id: text("c1"), group: some("g1"), ack_id: 300 }),
    );
    both_ways(
        "099614cd012c01a080c0",
        ServiceMessage::Ack(Ack { ack_id: 300, status: AckStatus::Ok, message: some(""), payload: None }),
    );
    both_ways(
        "0c951aa27531a267310781023c",
        ServiceMessage::UserJoinGroupWithAck(UserGroupChange {
            user_id: text("u1"),
            group: some("g1"),
            ack_id: 7,
            ttl_s: Some(60),
        }),
    );
    both_ways("0c920fa972656c6f6164696e67", ServiceMessage::ServiceError(ServiceError { error: text("reloading") }));
    both_ways(
        "14961604a473632d3103a9736c6f7720646f776e80",
        ServiceMessage::ServiceEvent(ServiceEvent { object: 4, id: some("sc-1"), kind: 3, message: some("slow down") }),
    );
}

#[test]
fn golden_client_completion() {
    both_ways(
        "1c9723a26931a26331a27331a46a736f6ec4037b7d1e8103a46a736f6e",
        ServiceMessage::ClientCompletion(ClientCompletion {
            invocation_id: text("i1"),
            connection_id: text("c1"),
            caller_server_id: text("s1"),
            protocol: text("json"),
            payload: Bytes::from_static(b"{}\x1e"),
        }),
    );
}

#[test]
fn undefined_types_are_skipped() {
    // Undefined types.
    for body in ["922cc0", "91cd1000", "9100", "91ff"] {
        assert_eq!(decode_body(body), Ok(None), "{body}");
    }
}

#[test]
fn layouts_of_data_and_groups_without_a_golden_frame() {
    let payloads = "81 a46a736f6e c4037b7d1e";
    body_both_ways(
        &format!("94 09 92 a27531 a27532 {payloads} 80"),
        ServiceMessage::MultiUserData(MultiUserData { user_ids: vec![text("u1"), text("u2")], payloads: json() }),
    );
    body_both_ways(
        &format!("97 0d a26731 91 a26331 {payloads} 80 91 a27539 a27531"),
        ServiceMessage::GroupBroadcastData(GroupBroadcastData {
            group: text("g1"),
            excluded: vec![text("c1")],
            payloads: json(),
            excluded_users: vec![text("u9")],
            caller_user: some("u1"),
        }),
    );
    let change = |group, ack_id| GroupChange { connection_id: text("c1"), group, ack_id };
    body_both_ways("94 0b a26331 a26731 80", ServiceMessage::JoinGroup(change(some("g1"), 0)));
    body_both_ways("94 0c a26331 c0 80", ServiceMessage::LeaveGroup(change(None, 0)));
    body_both_ways("95 13 a26331 c0 05 80", ServiceMessage::LeaveGroupWithAck(change(None, 5)));
    let user = |group, ack_id, ttl_s| UserGroupChange { user_id: text("u1"), group, ack_id, ttl_s };
    body_both_ways("94 10 a27531 a26731 8102cd012c", ServiceMessage::UserJoinGroup(user(some("g1"), 0, Some(300))));
    body_both_ways("94 10 a27531 a26731 80", ServiceMessage::UserJoinGroup(user(some("g1"), 0, None)));
    body_both_ways("94 11 a27531 c0 80", ServiceMessage::UserLeaveGroup(user(None, 0, None)));
    body_both_ways("95 1b a27531 a26731 05 80", ServiceMessage::UserLeaveGroupWithAck(user(some("g1"), 5, None)));
}

#[test]
fn layouts_of_questions_and_orders() {
    body_both_ways(
        "95 15 a27531 a26731 05 80",
        ServiceMessage::CheckUserInGroupWithAck(CheckUserInGroup { user_id: text("u1"), group: text("g1"), ack_id: 5 }),
    );
    let check = || Check { subject: text("x1"), ack_id: 5 };
    body_both_ways("94 17 a27831 05 80", ServiceMessage::CheckGroupExistenceWithAck(check()));
    body_both_ways("94 18 a27831 05 80", ServiceMessage::CheckConnectionExistenceWithAck(check()));
    body_both_ways("94 19 a27831 05 80", ServiceMessage::CheckUserExistenceWithAck(check()));
    let close = |subject, excluded| CloseWithAck { subject: text(subject), reason: some("r"), ack_id: 5, excluded };
    body_both_ways("95 1e a26331 a172 05 80", ServiceMessage::CloseConnectionWithAck(close("c1", Vec::new())));
    body_both_ways("95 1f a172 05 91 a26331 80", ServiceMessage::CloseConnectionsWithAck(close("", vec![text("c1")])));
    body_both_ways(
        "96 20 a27531 a172 05 91 a26331 80",
        ServiceMessage::CloseUserConnectionsWithAck(close("u1", vec![text("c1")])),
    );
    body_both_ways("96 21 a26731 a172 05 90 80", ServiceMessage::CloseGroupConnectionsWithAck(close("g1", Vec::new())));
}

#[test]
fn layouts_of_flow_to_one_client() {
    let mark = |number| DownMark { connection_id: text("c1"), number };
    body_both_ways("94 4d a26331 cd012c 80", ServiceMessage::DownMark(mark(300)));
    body_both_ways("94 4e a26331 05 80", ServiceMessage::DownDone(mark(5)));
}

#[test]
fn layouts_of_records() {
    let recorded = Recorded { set: RecordedSet::group("g1"), epoch: 7, number: 5, ..Recorded::default() };
    body_both_ways("97 50 92 c2 a26731 07 05 c0 c400 80", ServiceMessage::Recorded(recorded));
    let (set, start) = (RecordedSet::user("u1"), text("0"));
    let request = RecordRequest { set, start, ..RecordRequest::default() };
    body_both_ways("99 51 92 c3 a27531 02 c0 a130 c400 00 90 80", ServiceMessage::RecordRequest(request));
}

#[test]
fn golden_refreshes_of_authentication() {
    // Nanoseconds are dropped, so it can only be decoded.
    let golden = "1f9629a5544f4b454e82a161a131a161a132d7ff1d53530070dbd880cd012c80";
    let expected = |expires_s| {
        let claims = vec![(text("a"), text("1")), (text("a"), text("2"))];
        ServiceMessage::RefreshAuth(RefreshAuth { connection: text("TOKEN"), claims, expires_s, ack_id: 300 })
    };
    assert_eq!(decode_frame(golden), Ok(Some(expected(1_893_456_000))));
    body_both_ways("9629a5544f4b454e82a161a131a161a132d6ff70dbd880cd012c80", expected(1_893_456_000));
    body_both_ways(
        "9629a5544f4b454e82a161a131a161a132c70cff000000000000003afff4417fcd012c80",
        expected(253_402_300_799),
    );
    assert!(decode_body("9629a5544f4b454e82a161a131a161a1320ccd012c80").is_err());
    let question = Check { subject: text("TOKEN"), ack_id: 300 };
    both_ways("0c942aa5544f4b454ecd012c80", ServiceMessage::GetConnectionClaims(question));
    let claims = vec![(text("a"), text("1")), (text("a"), text("2"))];
    let update = ConnectionClaims { connection_id: text("<connectionId>"), claims: claims.clone() };
    both_ways(
        "1b942bae3c636f6e6e656374696f6e49643e82a161a131a161a13280",
        ServiceMessage::UpdateConnectionClaims(update),
    );
    assert_eq!(claims_from_payload(&claims_to_payload(&claims)), Some(claims));
}

#[test]
fn layouts_of_member_queries_and_their_answers() {
    let query = GroupMemberQuery {
        group: text("g1"),
        ack_id: 5,
        page_size: Some(100),
        top: None,
        continuation_token: some("t"),
    };
    let golden = GroupMemberQuery { continuation_token: None, ..query.clone() };
    let first_revision = decode_frame("09962880a267310564c0");
    assert_eq!(first_revision, Ok(Some(ServiceMessage::GroupMemberQuery(golden))), "of Azure's first revision");
    body_both_ways("97 28 80 a26731 05 c0 a174 64", ServiceMessage::GroupMemberQuery(query.clone()));
    let first = GroupMemberQuery { page_size: None, continuation_token: None, ..query.clone() };
    body_both_ways("97 28 80 a26731 05 c0 c0 c0", ServiceMessage::GroupMemberQuery(first));
    let both = ServiceMessage::GroupMemberQuery(GroupMemberQuery { top: Some(7), ..query });
    body_both_ways("97 28 80 a26731 05 07 a174 64", both);
    let red = |ack_id, top, page_size| {
        let query = GroupMemberQuery { group: text("red"), ack_id, page_size, top, continuation_token: None };
        ServiceMessage::GroupMemberQuery(query)
    };
    both_ways("0b972880a37265646c03c0c0", red(108, Some(3), None));
    for (frame, query) in
        [("0b972880a37265646bc0c0c0", red(107, None, None)), ("0b972880a37265646dc0c002", red(109, None, Some(2)))]
    {
        assert_eq!(decode_frame(frame), Ok(Some(query)), "{frame} of Azure's SDK");
    }
    let member = GroupMember { connection_id: text("c1"), user_id: some("u1") };
    let page = MemberPage { members: vec![member], ..MemberPage::default() };
    let answer = Ack { ack_id: 5, status: AckStatus::Ok, message: some(""), payload: Some(page.to_payload()) };
    body_both_ways("96 14 05 01 a0 80 c40a 92 91 92 a26331 a27531 c0", ServiceMessage::Ack(answer));
}

#[test]
fn layouts_of_client_results() {
    body_both_ways(
        "96 22 a26931 a26331 a27331 81 a46a736f6e c4037b7d1e 80",
        ServiceMessage::ClientInvocation(ClientInvocation {
            invocation_id: text("i1"),
            connection_id: text("c1"),
            caller_server_id: text("s1"),
            payloads: json(),
        }),
    );
    body_both_ways(
        "96 24 a26931 a26331 a27331 a4676f6e65 80",
        ServiceMessage::ErrorCompletion(ErrorCompletion {
            invocation_id: text("i1"),
            connection_id: text("c1"),
            caller_server_id: text("s1"),
            error: text("gone"),
        }),
    );
    body_both_ways(
        "95 25 a26931 a26331 a26e31 80",
        ServiceMessage::ServiceMapping(ServiceMapping {
            invocation_id: text("i1"),
            connection_id: text("c1"),
            instance_id: text("n1"),
        }),
    );
}

#[test]
fn a_leaving_user_is_written_without_a_time_to_live() {
    let change = UserGroupChange { user_id: text("u1"), group: some("g1"), ack_id: 0, ttl_s: Some(60) };
    assert_eq!(hex(&ServiceMessage::UserLeaveGroup(change).to_frame()), "099411a27531a2673180");
}

/// Each message in the shortest form accepted by Azure's SDK, and the resulting defaults.
#[track_caller]
fn reads_as(cases: &[(&str, ServiceMessage)]) {
    for (body, message) in cases {
        assert_eq!(decode_body(body), Ok(Some(message.clone())), "{body}");
    }
}

#[test]
fn short_forms_of_handshakes_and_acks_are_read() {
    let version_only = LinkHandshakeRequest { version: 1, ..LinkHandshakeRequest::default() };
    let weak = LinkHandshakeRequest { kind: LinkKind::Weak, ..version_only.clone() };
    let welcome = || ServiceMessage::HandshakeResponse(LinkHandshakeResponse::default());
    reads_as(&[
        ("92 01 01", ServiceMessage::HandshakeRequest(version_only)),
        ("94 01 01 02 a0", ServiceMessage::HandshakeRequest(weak)),
        ("92 02 c0", welcome()),
        ("92 02 a0", welcome()),
        ("93 02 a0 80", welcome()),
        (
            "94 14 05 02 c0",
            ServiceMessage::Ack(Ack { ack_id: 5, status: AckStatus::NotFound, message: None, payload: None }),
        ),
    ]);
}

#[test]
fn short_forms_about_one_connection_are_read() {
    let open = OpenConnection { connection_id: text("c1"), ..OpenConnection::default() };
    let close = CloseConnection { connection_id: text("c1"), ..CloseConnection::default() };
    let data = ConnectionData { connection_id: text("c1"), payload: Bytes::from_static(b"a"), ..Default::default() };
    reads_as(&[
        ("93 04 a26331 80", ServiceMessage::OpenConnection(open.clone())),
        ("94 04 a26331 80 80", ServiceMessage::OpenConnection(open.clone())),
        ("94 04 a26331 80 81a4486f7374c3", ServiceMessage::OpenConnection(open.clone())),
        ("95 04 a26331 80 80 c0", ServiceMessage::OpenConnection(open)),
        ("93 05 a26331 c0", ServiceMessage::CloseConnection(close.clone())),
        ("94 05 a26331 c0 80", ServiceMessage::CloseConnection(close)),
        ("93 06 a26331 c40161", ServiceMessage::ConnectionData(data)),
    ]);
}

#[test]
fn short_forms_of_data_to_many_are_read() {
    let group_data = GroupBroadcastData { group: text("g1"), payloads: json(), ..GroupBroadcastData::default() };
    let group_data = || ServiceMessage::GroupBroadcastData(group_data.clone());
    reads_as(&[
        ("93 07 90 80", ServiceMessage::MultiConnectionData(MultiConnectionData::default())),
        ("93 08 a0 80", ServiceMessage::UserData(UserData::default())),
        ("93 09 90 80", ServiceMessage::MultiUserData(MultiUserData::default())),
        ("93 0a 90 80", ServiceMessage::BroadcastData(BroadcastData::default())),
        ("94 0d a26731 90 81a46a736f6ec4037b7d1e", group_data()),
        ("96 0d a26731 90 81a46a736f6ec4037b7d1e 80 91a27531", group_data()),
        ("93 0e 90 80", ServiceMessage::MultiGroupBroadcastData(MultiGroupBroadcastData::default())),
    ]);
}

#[test]
fn short_forms_of_groups_and_orders_are_read() {
    let joined = GroupChange { connection_id: text("c1"), group: some("g1"), ack_id: 0 };
    let left = GroupChange { group: None, ..joined.clone() };
    let user = UserGroupChange { user_id: text("u1"), group: some("g1"), ack_id: 0, ttl_s: None };
    let closed = CloseWithAck { subject: text("c1"), reason: None, ack_id: 5, excluded: Vec::new() };
    let all_closed = CloseWithAck { subject: text(""), ..closed.clone() };
    reads_as(&[
        ("93 0b a26331 a26731", ServiceMessage::JoinGroup(joined)),
        ("93 0c a26331 c0", ServiceMessage::LeaveGroup(left)),
        ("93 10 a27531 a26731", ServiceMessage::UserJoinGroup(user)),
        ("94 1e a26331 c0 05", ServiceMessage::CloseConnectionWithAck(closed.clone())),
        ("94 1f c0 05 90", ServiceMessage::CloseConnectionsWithAck(all_closed)),
        ("95 20 a26331 c0 05 90", ServiceMessage::CloseUserConnectionsWithAck(closed)),
    ]);
}

#[test]
fn claims_may_repeat_and_keep_their_order() {
    let body = "96 04 a26331 83 a172a161 a16ea178 a172a162 80 c0 80";
    let Ok(Some(ServiceMessage::OpenConnection(it))) = decode_body(body) else { panic!("no OpenConnection") };
    let pair = |name, value| (text(name), text(value));
    assert_eq!(it.claims, [pair("r", "a"), pair("n", "x"), pair("r", "b")]);
    body_both_ways(body, ServiceMessage::OpenConnection(it));
}

#[test]
fn the_extension_map_may_be_nil_or_have_unknown_members() {
    let expected =
        ConnectionData { connection_id: text("c1"), payload: Bytes::from_static(b"a"), ..Default::default() };
    let plain = "94 06 a26331 c40161 c0";
    assert_eq!(decode_body(plain), Ok(Some(ServiceMessage::ConnectionData(expected.clone()))));
    // 9: a list, 1: a tracing id, 5: the expected field, 77: a map.
    let odd = "94 06 a26331 c40161 84 09 9301a16192c0c2 01 cfffffffffffffffff 05 02 4d 81a16bc0";
    let expected = ConnectionData { data_type: 2, ..expected };
    assert_eq!(decode_body(odd), Ok(Some(ServiceMessage::ConnectionData(expected))));
    let before_more_fields = "97 0d a26731 90 80 82 07 a3612062 63 91c0 91a27539 c0";
    let Ok(Some(ServiceMessage::GroupBroadcastData(it))) = decode_body(before_more_fields) else { panic!("no 13") };
    assert_eq!(it.excluded_users, ["u9"]);
    assert_eq!(decode_body("94 02 c0 c0 a178").unwrap().unwrap().name(), "HandshakeResponse");
}

#[test]
fn integers_of_any_width_are_read() {
    let numbers = ["06", "cc06", "cd0006", "ce00000006", "cf0000000000000006"];
    for number in numbers.into_iter().chain(["d006", "d10006", "d200000006", "d30000000000000006"]) {
        let expected = Ack { ack_id: 6, status: AckStatus::Unknown(6), message: None, payload: None };
        let body = format!("94 cc14 {number} {number} c0");
        assert_eq!(decode_body(&body), Ok(Some(ServiceMessage::Ack(expected))), "{number}");
    }
}

#[test]
fn an_error_names_the_message_and_the_field() {
    let cases = [
        ("93 04 c0 80", "service message OpenConnection (4): connectionId: a text was expected, not nil"),
        ("92 04 a26331", "service message OpenConnection (4): claims: is missing"),
        ("95 04 a26331 80 90 c0", "service message OpenConnection (4): headers: a map was expected, not a list"),
        ("93 0b a26331 c0", "service message JoinGroup (11): group: a text was expected, not nil"),
        (
            "95 12 a26331 a26731 a0 80",
            "service message JoinGroupWithAck (18): ackId: an integer was expected, not a text",
        ),
        (
            "95 27 a26331 00 01 80",
            "service message ConnectionFlowControl (39): connectionType: is 0, which has no meaning",
        ),
        ("95 27 a26331 01 09 80", "service message ConnectionFlowControl (39): operation: is 9, which has no meaning"),
        (
            "93 0a df7fffffff 80",
            "service message BroadcastData (10): excludedConnectionIds: a list was expected, not a map",
        ),
        (
            "93 0a dd7fffffff 80",
            "service message BroadcastData (10): excludedConnectionIds: the header announces 2147483647 items, but \
             only 1 bytes follow",
        ),
        ("93 06 a26331 c6ffffffff61", "service message ConnectionData (6): payload: the bytes end too early"),
        (
            "94 06 a26331 c40161 8105c0",
            "service message ConnectionData (6): dataMessageType: an integer was expected, not nil",
        ),
        ("93 08 a1ff 80", "service message UserData (8): userId: a text is not UTF-8"),
        ("90", "service message of no type: the bytes end too early"),
        ("", "service message of no type: the bytes end too early"),
        ("80", "service message of no type: a list was expected, not a map"),
        ("91 c0", "service message of no type: an integer was expected, not nil"),
    ];
    for (body, expected) in cases {
        assert_eq!(decode_body(body).unwrap_err().to_string(), expected, "{body}");
    }
}

#[test]
fn frames_follow_each_other_in_one_buffer() {
    let first = ServiceMessage::Ping(Ping::default());
    let second = ServiceMessage::ServiceError(ServiceError { error: text("reloading") });
    let mut out = BytesMut::new();
    first.encode(&mut out);
    second.encode(&mut out);
    assert_eq!(hex(&out), "0291030c920fa972656c6f6164696e67");
}
