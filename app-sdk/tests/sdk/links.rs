//! Contract tests of the SDK's side of links, over real sockets: each test acts as the proxy.

mod arrivals;
mod awaited_clients;
mod calls;
mod identity;
mod moves;
mod questions;
mod raw_reassignments;
mod reassignments;
mod refreshes;
mod restarts;
mod results;
mod resume;
mod streams;
mod traces;
mod uploads;
mod windows;

use trunkline::HubProtocol::{Json, MessagePack};
use trunkline_protocol::manifest::Manifest;
use trunkline_protocol::service::*;
use trunkline_protocol::wire::{CAPABILITIES_HEADER, INSTANCE_HEADER, MANIFEST_PATH};

use crate::harness::{App, KEY, LinkRequest, ProxyLink, ScriptedClient, invocation};

#[tokio::test]
async fn the_manifest_is_for_proxies_of_this_fleet() {
    let app = App::start().await;
    let (status, body) = app.get(MANIFEST_PATH, KEY).await;
    assert_eq!(status, 200, "{body}");
    let manifest: Manifest = serde_json::from_str(&body).unwrap();
    assert_eq!((manifest.instance.as_str(), manifest.name.as_str()), (app.handle.instance(), "app"));
    let [hub] = manifest.hubs.as_slice() else { panic!("{manifest:?}") };
    assert_eq!((hub.name.as_str(), hub.path.as_str()), ("test", "/test"));
    let (status, body) = app.get(MANIFEST_PATH, "the access key of somebody").await;
    assert_eq!((status, body.lines().count()), (401, 1), "{body}");
}

#[tokio::test]
async fn links_are_refused_with_a_status_for_each_reason() {
    let app = App::start().await;
    let ask = LinkRequest::of("a", 0);
    let refused = [
        (LinkRequest { key: "the access key of somebody", ..ask.clone() }, 401),
        (LinkRequest { instance: Some("another".into()), ..ask.clone() }, 409),
        (LinkRequest { hub: "nope", ..ask.clone() }, 404),
        (LinkRequest { node: "", ..ask.clone() }, 400),
    ];
    for (ask, status) in refused {
        let response = ask.dial(&app).await.unwrap_err();
        assert_eq!(response.status().as_u16(), status);
    }
    let (_, headers) = ask.dial(&app).await.unwrap();
    assert_eq!(headers.get(INSTANCE_HEADER).unwrap(), app.handle.instance());
    assert!(headers.contains_key(CAPABILITIES_HEADER));
}

#[tokio::test]
async fn the_app_server_speaks_first_and_a_refusal_ends_the_link() {
    let app = App::start().await;
    let (socket, _) = LinkRequest::of("a", 0).dial(&app).await.unwrap();
    let mut link = ProxyLink::new(socket);
    let ServiceMessage::HandshakeRequest(request) = link.next().await else { panic!() };
    assert_eq!((request.version, request.kind), (1, LinkKind::Default));
    let error = Some("go away".into());
    link.send(ServiceMessage::HandshakeResponse(LinkHandshakeResponse { error, ..LinkHandshakeResponse::default() }))
        .await;
    link.closed().await;
}

#[tokio::test]
async fn a_client_connects_calls_and_is_answered() {
    let (mut app, mut link, client) = App::start_with_client().await;
    assert_eq!(app.event().await, "connected c1");
    let answers = [
        ("Add", "[40,2]", r#"{"type":3,"invocationId":"7","result":42}"#),
        ("add", "[40,2]", r#"{"type":3,"invocationId":"7","result":42}"#),
        ("Echo", r#"[{"a":[1,"é",null]}]"#, r#"{"type":3,"invocationId":"7","result":{"a":[1,"é",null]}}"#),
        ("Nothing", "[]", r#"{"type":3,"invocationId":"7","result":null}"#),
    ];
    for (target, arguments, answer) in answers {
        assert_eq!(link.call(&client, target, arguments).await, format!("{answer}\x1e"));
    }
    // Labelled with the method's own name, however the client spelled it.
    for (method, count) in [("Add", 2), ("Echo", 1), ("Nothing", 1)] {
        let labels = format!("{{hub=\"test\",method=\"{method}\",outcome=\"ok\"}}");
        assert!(app.metric(&format!("trunkline_app_invocations_total{labels} {count}")));
        assert!(app.metric(&format!("trunkline_app_invocation_duration_seconds_count{labels} {count}")));
    }
    assert!(app.metric("trunkline_app_connections{hub=\"test\"} 1"));
    assert!(app.metric("trunkline_app_links{hub=\"test\"} 1"));
}

#[tokio::test]
async fn clients_of_both_protocols_are_answered_in_theirs() {
    let app = App::start().await;
    let mut link = ProxyLink::open(&app, "a", 0).await;
    let client = link.client("c1", MessagePack).await;
    link.send(client.bytes(hex("0c950180a130a3416464922802"))).await;
    assert_eq!(link.data("c1").await.payload, hex("07950380a130032a"));
}

#[tokio::test]
async fn errors_read_as_the_official_ones() {
    let (_app, mut link, client) = App::start_with_client().await;
    let failed = "Failed to invoke";
    let unexpected = "An unexpected error occurred invoking";
    let calls = [
        ("nope", "[]", format!("{failed} 'nope' due to an error on the server. HubException: Method does not exist.")),
        ("Add", "[1]", format!("{failed} 'Add' due to an error on the server.")),
        ("Add", r#"[1,"two"]"#, format!("{failed} 'Add' due to an error on the server.")),
        ("Fail", "[]", format!("{unexpected} 'Fail' on the server. HubException: as asked")),
        ("Break", "[]", format!("{unexpected} 'Break' on the server.")),
        ("Panic", "[]", format!("{unexpected} 'Panic' on the server.")),
    ];
    for (target, arguments, text) in calls {
        let answer = format!("{{\"type\":3,\"invocationId\":\"7\",\"error\":\"{text}\"}}\x1e");
        assert_eq!(link.call(&client, target, arguments).await, answer);
    }
    assert!(link.call(&client, "Add", "[1,1]").await.contains("\"result\":2"), "nobody was hurt");
}

#[tokio::test]
async fn detailed_errors_show_more() {
    let app = App::start_hub(|hub| hub.detailed_errors()).await;
    let (mut link, client) = ProxyLink::open_with_client(&app).await;
    let calls = [
        ("Add", "[1]", "InvalidDataException: Invocation provides 1 argument(s) but target expects 2."),
        (
            "Add",
            r#"[1,"two"]"#,
            "InvalidDataException: Error binding arguments. Make sure that the types of the provided values match the types of the hub method being invoked. (argument 2: invalid type: string",
        ),
        ("Break", "[]", "TryFromIntError: out of range integral type conversion attempted"),
        ("Panic", "[]", "Panic: on purpose"),
    ];
    for (target, arguments, detail) in calls {
        let answer = link.call(&client, target, arguments).await;
        assert!(answer.contains(detail), "{answer}");
    }
}

#[tokio::test]
async fn streaming_invocations_of_plain_methods_are_refused() {
    let (_app, mut link, client) = App::start_with_client().await;
    let stream = "{\"type\":4,\"invocationId\":\"1\",\"target\":\"Add\",\"arguments\":[1,2]}\x1e";
    link.send(client.bytes(stream.into())).await;
    let text = "The client attempted to invoke the non-streaming 'Add' method with a streaming invocation.";
    assert_eq!(
        link.data("c1").await.payload,
        format!("{{\"type\":3,\"invocationId\":\"1\",\"error\":\"{text}\"}}\x1e")
    );
    let upload = "{\"type\":1,\"invocationId\":\"2\",\"target\":\"Add\",\"arguments\":[1,2],\"streamIds\":[\"0\"]}\x1e";
    link.send(client.bytes(upload.into())).await;
    let text = "An unexpected error occurred invoking 'Add' on the server. HubException: Client sent 1 stream(s), Hub method expects 0.";
    assert_eq!(
        link.data("c1").await.payload,
        format!("{{\"type\":3,\"invocationId\":\"2\",\"error\":\"{text}\"}}\x1e")
    );
}

#[tokio::test]
async fn calls_without_an_id_and_unexpected_messages_are_never_answered() {
    let (_app, mut link, client) = App::start_with_client().await;
    for target in ["Add", "nope", "Panic", "Fail"] {
        link.send(client.call(None, target, "[1]")).await;
    }
    for text in
        ["{\"type\":6}", "{\"type\":77}", "{\"type\":5,\"invocationId\":\"9\"}", "{\"type\":3,\"invocationId\":\"9\"}"]
    {
        link.send(client.bytes(format!("{text}\x1e").into())).await;
    }
    assert!(
        link.call(&client, "Add", "[1,1]").await.contains("\"result\":2"),
        "the next answer is to the next question"
    );
}

#[tokio::test]
async fn each_kind_of_send_is_one_frame_per_proxy() {
    let app = App::start().await;
    let mut home = ProxyLink::open(&app, "a", 0).await;
    let mut idle = ProxyLink::open(&app, "a", 1).await;
    let mut other = ProxyLink::open(&app, "b", 0).await;
    let client = home.client("c1", Json).await;
    let kinds = [
        "all",
        "all_except",
        "others",
        "client",
        "clients",
        "group",
        "groups",
        "group_except",
        "others_in_group",
        "user",
        "users",
    ];
    for kind in kinds {
        home.send(client.call(Some("1"), "Send", &format!("[\"{kind}\"]"))).await;
        let (here, there) = (home.next().await, other.next().await);
        check_send(kind, &here);
        check_send(kind, &there);
        assert!(home.data("c1").await.payload.ends_with(b"\"result\":2}\x1e"));
    }
    home.send(client.call(Some("1"), "Send", "[\"caller\"]")).await;
    let ServiceMessage::MultiConnectionData(data) = home.next().await else { panic!() };
    assert_eq!(data.connection_ids, ["c1"]);
    assert_eq!(data.payloads.0.len(), 1, "only in the protocol that it speaks");
    assert_eq!(invocation(Json, data.payloads.get(Json).unwrap()).target, "M");
    assert!(home.data("c1").await.payload.ends_with(b"\"result\":1}\x1e"));
    idle.quiet().await;
    other.quiet().await;
}

fn check_send(kind: &str, message: &ServiceMessage) {
    let payloads = match (kind, message) {
        ("all", ServiceMessage::BroadcastData(data)) if data.excluded.is_empty() => &data.payloads,
        ("all_except", ServiceMessage::BroadcastData(data)) if data.excluded == ["x"] => &data.payloads,
        ("others", ServiceMessage::BroadcastData(data)) if data.excluded == ["c1"] => &data.payloads,
        ("client", ServiceMessage::MultiConnectionData(data)) if data.connection_ids == ["stranger"] => &data.payloads,
        ("clients", ServiceMessage::MultiConnectionData(data))
            if data.connection_ids == ["c1", "stranger"] || data.connection_ids == ["stranger"] =>
        {
            &data.payloads
        }
        ("group", ServiceMessage::GroupBroadcastData(data)) if data.group == "g" && data.excluded.is_empty() => {
            &data.payloads
        }
        ("group_except", ServiceMessage::GroupBroadcastData(data)) if data.excluded == ["x"] => &data.payloads,
        ("others_in_group", ServiceMessage::GroupBroadcastData(data)) if data.excluded == ["c1"] => &data.payloads,
        ("groups", ServiceMessage::MultiGroupBroadcastData(data)) if data.groups == ["g", "h"] => &data.payloads,
        ("user", ServiceMessage::UserData(data)) if data.user_id == "ann" => &data.payloads,
        ("users", ServiceMessage::MultiUserData(data)) if data.user_ids == ["ann", "bob"] => &data.payloads,
        other => panic!("{other:?}"),
    };
    for protocol in [Json, MessagePack] {
        let invocation = invocation(protocol, payloads.get(protocol).unwrap());
        assert_eq!((&*invocation.target, invocation.invocation_id), ("M", None));
        assert_eq!(protocol.value::<u8>(&invocation.arguments[0]).unwrap(), 1);
    }
}

#[tokio::test]
async fn sends_of_all_kinds_arrive_in_order() {
    let (_app, mut link, client) = App::start_with_client().await;
    link.send(client.call(Some("1"), "Mixed", "[]")).await;
    for n in 0..3_u8 {
        let payloads = [
            match link.next().await {
                ServiceMessage::MultiConnectionData(data) => data.payloads,
                other => panic!("{other:?}"),
            },
            match link.next().await {
                ServiceMessage::BroadcastData(data) => data.payloads,
                other => panic!("{other:?}"),
            },
            match link.next().await {
                ServiceMessage::GroupBroadcastData(data) => data.payloads,
                other => panic!("{other:?}"),
            },
            match link.next().await {
                ServiceMessage::UserData(data) => data.payloads,
                other => panic!("{other:?}"),
            },
        ];
        for payloads in payloads {
            let invocation = invocation(Json, payloads.get(Json).unwrap());
            assert_eq!(Json.value::<u8>(&invocation.arguments[0]).unwrap(), n);
        }
    }
    assert!(link.data("c1").await.payload.ends_with(b"\"result\":\"done\"}\x1e"));
}

#[tokio::test]
async fn sends_from_outside_reach_every_proxy_and_need_none() {
    let app = App::start().await;
    let clients = app.handle.hub("test").unwrap().clients();
    assert_eq!(clients.all().send("M", ()).await.unwrap().proxies(), 0);
    let (mut a, mut b) = (ProxyLink::open(&app, "a", 0).await, ProxyLink::open(&app, "b", 3).await);
    assert_eq!(clients.all().send("M", ()).await.unwrap().proxies(), 2);
    for link in [&mut a, &mut b] {
        assert!(matches!(link.next().await, ServiceMessage::BroadcastData(_)));
    }
    assert!(clients.group("").send("M", ()).await.is_err());
}

#[tokio::test]
async fn a_join_is_done_when_it_is_acknowledged() {
    let app = App::start().await;
    let mut link = ProxyLink::open(&app, "a", 0).await;
    let mut other = ProxyLink::open(&app, "b", 0).await;
    let client = link.client("c1", Json).await;
    link.send(client.call(Some("1"), "Join", "[\"g\"]")).await;
    let ServiceMessage::JoinGroupWithAck(join) = link.next().await else { panic!() };
    assert_eq!((&*join.connection_id, join.group.as_deref()), ("c1", Some("g")));
    link.quiet().await;
    link.send(ServiceMessage::Ack(Ack { ack_id: join.ack_id, ..Ack::default() })).await;
    assert!(link.data("c1").await.payload.ends_with(b"\"result\":null}\x1e"));

    link.send(client.call(Some("1"), "Leave", "[\"g\"]")).await;
    let ServiceMessage::LeaveGroupWithAck(leave) = link.next().await else { panic!() };
    assert_ne!(leave.ack_id, join.ack_id);
    link.send(ServiceMessage::Ack(Ack { ack_id: leave.ack_id, status: AckStatus::NotFound, ..Ack::default() })).await;
    assert!(link.data("c1").await.payload.ends_with(b"\"result\":null}\x1e"));
    other.quiet().await;
}

#[tokio::test]
async fn an_unknown_connection_is_sent_to_every_proxy() {
    let app = App::start().await;
    let (mut a, mut b) = (ProxyLink::open(&app, "a", 0).await, ProxyLink::open(&app, "b", 0).await);
    let groups = app.handle.hub("test").unwrap().groups();
    let adding = tokio::spawn(async move { groups.add("stranger", "g").await });
    for (link, status) in [(&mut a, AckStatus::NotFound), (&mut b, AckStatus::Ok)] {
        let ServiceMessage::JoinGroupWithAck(join) = link.next().await else { panic!() };
        link.send(ServiceMessage::Ack(Ack { ack_id: join.ack_id, status, ..Ack::default() })).await;
    }
    adding.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_join_fails_when_the_proxy_is_lost() {
    let app = App::start().await;
    let mut link = ProxyLink::open(&app, "a", 0).await;
    let groups = app.handle.hub("test").unwrap().groups();
    let adding = tokio::spawn(async move { groups.add("stranger", "g").await });
    assert!(matches!(link.next().await, ServiceMessage::JoinGroupWithAck(_)));
    drop(link);
    assert!(matches!(adding.await.unwrap(), Err(trunkline::GroupError::LinkLost)));
}

#[tokio::test]
async fn too_much_for_a_slow_method_pauses_that_client_alone() {
    let mut app = App::start_hub(|hub| hub.inbox_max_bytes(1000)).await;
    let mut link = ProxyLink::open(&app, "a", 0).await;
    let (slow, quick) = (link.client("slow", Json).await, link.client("quick", Json).await);
    let padding = "x".repeat(300);
    for n in 0..6 {
        link.send(slow.call(None, "Block", &format!("[{n},\"{padding}\"]"))).await;
    }
    let ServiceMessage::ConnectionFlowControl(pause) = link.next().await else { panic!() };
    assert_eq!(
        (&*pause.connection_id, pause.subject, pause.operation),
        ("slow", FlowSubject::Client, FlowOperation::Pause)
    );
    assert!(link.call(&quick, "Add", "[1,1]").await.contains("\"result\":2"), "nobody else notices");
    link.quiet().await;
    app.gate.add_permits(6);
    let ServiceMessage::ConnectionFlowControl(resume) = link.next().await else { panic!() };
    assert_eq!((&*resume.connection_id, resume.operation), ("slow", FlowOperation::Resume));
    let mut events = Vec::new();
    for _ in 0..8 {
        events.push(app.event().await);
    }
    events.retain(|event| event.starts_with("unblocked"));
    assert_eq!(
        events,
        (0..6).map(|n| format!("unblocked {n}")).collect::<Vec<_>>(),
        "what was in flight is taken, in order"
    );
}

#[tokio::test]
async fn abort_closes_the_client_and_ends_the_connection_once() {
    let (mut app, mut link, client) = App::start_with_client().await;
    link.send_all(&[client.call(Some("1"), "Abort", "[]"), client.call(Some("2"), "Add", "[1,1]")]).await;
    let close = link.data("c1").await;
    assert_eq!((close.data_type, &close.payload[..]), (4, &b"{\"type\":7}\x1e"[..]));
    assert_eq!(link.next().await, client.left(None));
    link.send(client.left(None)).await;
    link.quiet().await;
    assert_eq!(app.event().await, "connected c1");
    assert_eq!(app.event().await, "disconnected c1 ");
    app.no_event().await;
}

#[tokio::test]
async fn a_client_that_breaks_the_protocol_is_closed_and_may_reconnect() {
    let mut app = App::start_hub(|hub| hub.message_max_bytes(200)).await;
    let mut link = ProxyLink::open(&app, "a", 0).await;
    let bystander = link.client("bystander", Json).await;
    for (id, bad) in [("c1", "{\"no\":\"type\"}\x1e".to_owned()), ("c2", "x".repeat(201))] {
        let client = link.client(id, Json).await;
        link.send(client.bytes(bad.into())).await;
        let close = link.data(id).await;
        let text = "{\"type\":7,\"error\":\"Connection closed with an error.\",\"allowReconnect\":true}\x1e";
        assert_eq!((close.data_type, &close.payload[..]), (4, text.as_bytes()));
        assert_eq!(link.next().await, client.left(None));
    }
    assert!(link.call(&bystander, "Add", "[1,1]").await.contains("\"result\":2"));
    let mut events = Vec::new();
    for _ in 0..5 {
        events.push(app.event().await);
    }
    events.sort();
    assert!(events[3].starts_with("disconnected c1 Missing required property"), "{events:?}");
    assert!(events[4].starts_with("disconnected c2 The maximum message size of 200B was exceeded."), "{events:?}");
}

#[tokio::test]
async fn a_refused_connection_is_closed_without_a_close_message() {
    let mut app = App::start().await;
    let mut link = ProxyLink::open(&app, "a", 0).await;
    let client = ScriptedClient { id: "c1", protocol: Json };
    link.send_all(&[client.opening("?refuse=1"), client.handshake(), client.call(Some("1"), "Add", "[1,1]")]).await;
    assert_eq!(link.data("c1").await.payload, "{}\x1e");
    let close = link.data("c1").await;
    assert_eq!(close.payload, "{\"type\":7,\"error\":\"Connection closed with an error.\"}\x1e");
    assert_eq!(link.next().await, client.left(None));
    link.quiet().await;
    app.no_event().await;
}

#[tokio::test]
async fn messages_of_a_client_that_leaves_are_handled_before_one_on_disconnected() {
    let (mut app, mut link, client) = App::start_with_client().await;
    assert_eq!(app.event().await, "connected c1");
    link.send(client.call(None, "WaitForEnd", "[]")).await;
    assert_eq!(app.event().await, "waiting");
    app.gate.add_permits(1);
    link.send_all(&[client.call(None, "Block", "[1,\"\"]"), client.left(Some("gone"))]).await;
    for event in ["cancelled", "unblocked 1", "disconnected c1 gone"] {
        assert_eq!(app.event().await, event);
    }
    link.send_all(&[client.left(None), client.call(Some("1"), "Add", "[1,1]")]).await;
    link.quiet().await;
    app.no_event().await;
    assert!(app.metric("trunkline_app_connections{hub=\"test\"} 0"));
}

#[tokio::test]
async fn a_lost_link_ends_the_connections_at_home_on_it_once() {
    let mut app = App::start().await;
    let mut lost = ProxyLink::open(&app, "a", 1).await;
    let mut kept = ProxyLink::open(&app, "a", 0).await;
    // Slot 1 was first and is therefore the send link: results for clients of slot 0 go there too.
    kept.send_all(&[
        ScriptedClient { id: "c2", protocol: Json }.opening(""),
        ScriptedClient { id: "c2", protocol: Json }.handshake(),
    ])
    .await;
    assert_eq!(lost.data("c2").await.payload, "{}\x1e");
    lost.client("c1", Json).await;
    assert_eq!([app.event().await, app.event().await], ["connected c2", "connected c1"]);
    drop(lost);
    assert_eq!(app.event().await, "disconnected c1 The link to the proxy was lost.");
    app.no_event().await;
    let c2 = ScriptedClient { id: "c2", protocol: Json };
    assert!(kept.call(&c2, "Add", "[1,1]").await.contains("\"result\":2"), "the next open slot is the lane");
}

#[tokio::test]
async fn a_newer_link_for_a_slot_ends_the_old_one_first() {
    let mut app = App::start().await;
    let mut old = ProxyLink::open(&app, "a", 0).await;
    old.client("c1", Json).await;
    assert_eq!(app.event().await, "connected c1");
    let mut new = ProxyLink::open(&app, "a", 0).await;
    assert_eq!(app.event().await, "disconnected c1 The link to the proxy was lost.");
    old.closed().await;
    let client = new.client("c2", Json).await;
    assert!(new.call(&client, "Add", "[1,1]").await.contains("\"result\":2"));
    assert!(app.metric("trunkline_app_links{hub=\"test\"} 1"));
}

#[tokio::test]
async fn an_id_that_another_proxy_has_is_refused() {
    let app = App::start().await;
    let (mut a, mut b) = (ProxyLink::open(&app, "a", 0).await, ProxyLink::open(&app, "b", 0).await);
    let first = a.client("c1", Json).await;
    b.send(first.opening("")).await;
    assert!(matches!(b.next().await, ServiceMessage::CloseConnection(close) if close.connection_id == "c1"));
    assert!(a.call(&first, "Add", "[1,1]").await.contains("\"result\":2"));
}

#[tokio::test]
async fn a_malformed_frame_ends_only_the_connections_that_it_is_for() {
    let app = App::start().await;
    let mut link = ProxyLink::open(&app, "a", 0).await;
    let client = link.client("c1", Json).await;
    link.client("c2", Json).await;
    // No type, no fields, and data for c2 without a payload.
    for bad in [&b"\x03\x91\xa1x"[..], b"\x02\x91\x04", b"\x05\x92\x06\xa2c2"] {
        link.send_bytes(bad).await.unwrap();
    }
    let ServiceMessage::CloseConnection(close) = link.next().await else { panic!("c2 is closed") };
    assert_eq!(
        (close.connection_id.as_ref(), close.error.as_deref()),
        ("c2", Some("service message ConnectionData (6): payload: is missing"))
    );
    assert!(link.call(&client, "Add", "[1,1]").await.contains("\"result\":2"));
    assert!(app.metric("trunkline_app_frames_skipped_total{hub=\"test\"} 3"));
}

#[tokio::test]
async fn a_malformed_prefix_drops_its_link_and_no_other() {
    let app = App::start().await;
    let mut other = ProxyLink::open(&app, "b", 0).await;
    let mut link = ProxyLink::open(&app, "a", 0).await;
    link.send_bytes(b"\xff\xff\xff\xff\xff\x01").await.unwrap();
    link.closed().await;
    let client = other.client("c1", Json).await;
    assert!(other.call(&client, "Add", "[1,1]").await.contains("\"result\":2"));
}

#[tokio::test]
async fn received_frames_are_acknowledged_and_pings_are_echoed() {
    let app = App::start().await;
    // A proxy that cannot resume gets no session headers.
    let request = LinkRequest { session: Some((1, None, 10_000)), ..LinkRequest::of("a", 0) };
    let (mut link, _) = ProxyLink::open_as(&app, request).await;
    link.client("c1", Json).await;
    let mut counters = Counters::new();
    (0..2).for_each(|_| {
        counters.handle_sent();
    });
    while counters.acknowledged() < 2 {
        if let ServiceMessage::Ping(ping) = link.next_of_any_kind().await {
            counters.handle_ping(&ping).unwrap();
        }
    }
    link.fence().await;
}

#[tokio::test]
async fn a_shutdown_closes_links_and_refuses_new_ones() {
    let mut app = App::start().await;
    let mut link = ProxyLink::open(&app, "a", 0).await;
    link.client("c1", Json).await;
    assert_eq!(app.event().await, "connected c1");
    let stopping = app.begin_shutdown();
    link.closed().await;
    stopping.await.unwrap();
    assert_eq!(app.event().await, "disconnected c1 ");
    assert_eq!(LinkRequest::of("a", 0).dial(&app).await.unwrap_err().status().as_u16(), 503);
}

#[tokio::test]
async fn a_send_waits_while_the_link_is_full_and_calls_are_still_answered() {
    let app = App::start_with(|hub| hub, |server| server.link_outbox_max_bytes(64 * 1024)).await;
    let (mut link, client) = ProxyLink::open_with_client(&app).await;
    let everyone = app.handle.hub("test").unwrap().clients().all();
    let sending = tokio::spawn(async move {
        let text = "x".repeat(32 * 1024);
        for n in 0..1000 {
            everyone.send("M", (n, &text)).await.unwrap();
        }
    });
    // Nothing is read here yet: 32 MiB exceed the outbox and the sockets' buffers.
    while app.metric("trunkline_app_frames_down_total{hub=\"test\"} 1") {
        tokio::task::yield_now().await;
    }
    assert!(!sending.is_finished());
    link.send(client.call(Some("1"), "Add", "[1,1]")).await;
    let (mut broadcasts, mut answers) = (0, 0);
    while broadcasts < 1000 || answers < 1 {
        match link.next().await {
            ServiceMessage::BroadcastData(data) => {
                let invocation = invocation(Json, data.payloads.get(Json).unwrap());
                assert_eq!(Json.value::<usize>(&invocation.arguments[0]).unwrap(), broadcasts);
                broadcasts += 1;
            }
            ServiceMessage::ConnectionData(_) => answers += 1,
            other => panic!("{other:?}"),
        }
    }
    sending.await.unwrap();
}

fn hex(text: &str) -> bytes::Bytes {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}
