//! Tests for delivery to a shard's clients.

use std::io::Read;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Wake;

use trunkline_protocol::cause::Cause;
use trunkline_protocol::hub::HubProtocol;
use trunkline_protocol::service::Payloads;

use super::framed::Framed;
use super::*;
use crate::engine::shard::command::ShardCommand;
use crate::engine::shard::content::FrameForm;
use crate::engine::shard::delivery::framed::frame_for;
use crate::engine::shard::shard_core::ShardCore;
use crate::engine::shard::testbed::{Testbed, whole_id};
use crate::engine::shard::{ClientTraits, CloseReason, Content, Liveness};
use crate::engine::upstream::AppServerId;
use crate::ground::net::socket::Socket;
#[cfg(feature = "tls")]
use crate::ground::net::socket::TlsSocket;
#[cfg(feature = "tls")]
use crate::ground::net::tls::TlsStream;
#[cfg(feature = "tls")]
use crate::ground::net::tls::made_identity::{HOST, configs};

#[cfg(feature = "tls")]
type TlsPeer = rustls::StreamOwned<rustls::ClientConnection, std::net::TcpStream>;

fn message(text: &str) -> Framed {
    let payloads = Payloads::single(HubProtocol::Json, Bytes::copy_from_slice(text.as_bytes()));
    Framed::new(&payloads)
}

fn send(bed: &mut Testbed, to: &Receivers, text: &str, flush: Flush) {
    let mode = bed.state.core.mode(flush);
    let hub = bed.hub.index();
    let state = &mut bed.state;
    let origin = SendOrigin::Sender(AppServerId::from(7), 0);
    let run = SendRun::new((message(text), origin));
    state.core.delivery.send(&mut state.core.connections, hub, to, &run, mode);
}

#[test]
fn a_send_reaches_its_receivers_but_the_excluded_ones() {
    let mut bed = Testbed::new();
    let (ann, ben, eve) = (bed.client("ann"), bed.client("ben"), bed.client("eve"));
    let excluded = vec![whole_id("eve").into()];
    send(&mut bed, &Receivers { excluded, ..Audience::Everyone.into() }, "hi", Flush::Deferred);
    bed.end_step();
    assert_eq!(
        (bed.received(ann), bed.received(ben), bed.received(eve)),
        (vec!["hi".into()], vec!["hi".into()], vec![])
    );
    bed.state.close_client(ben, &CloseReason::by_app(None, None));
    send(&mut bed, &Audience::Users(vec!["ann".into()]).into(), "you", Flush::Deferred);
    bed.end_step();
    assert_eq!(
        (bed.received(ann), bed.received(ben), bed.received(eve)),
        (vec!["you".into()], vec!["close".into()], vec!["you".into()])
    );
}

#[test]
fn deferred_frames_wait_for_the_end_of_the_batch_and_stay_in_order() {
    let mut bed = Testbed::new();
    let ann = bed.client("ann");
    for text in ["1", "2", "3"] {
        send(&mut bed, &Audience::Everyone.into(), text, Flush::Deferred);
    }
    assert_eq!(bed.received(ann), [""; 0]);
    bed.end_step();
    assert_eq!(bed.received(ann), ["1", "2", "3"]);
}

#[test]
fn a_run_is_one_frame_for_an_empty_outbox_and_several_for_clients_that_count_messages() {
    let mut bed = Testbed::new();
    let [idle, waiting, stateful] = ["idle", "waiting", "stateful"].map(|name| bed.client(name));
    send(&mut bed, &Audience::Connections(vec![whole_id("waiting").into()]).into(), "0", Flush::Deferred);
    bed.make_resumable(stateful);
    let origins = [1, 2, 3].map(|epoch| SendOrigin::Sender(AppServerId::from(7), epoch));
    let call = |number: u8| message(&format!("{{\"type\":1,\"target\":\"{number}\",\"arguments\":[]}}\u{1e}"));
    let mut run = SendRun::new((call(1), origins[0]));
    assert!(run.take_send((&call(2), origins[1])) && run.take_send((&call(3), origins[2])));
    run.join();
    let ShardCore { connections, delivery, .. } = &mut bed.state.core;
    let mode = BatchMode { flush: Flush::Deferred, now: 0 };
    delivery.send(connections, bed.hub.index(), &Audience::Everyone.into(), &run, mode);
    let frames = [idle, waiting, stateful].map(|slot| connections.get(slot).unwrap().wire().outbox().slices().count());
    assert_eq!(frames, [1, 4, 3]);
    let resumption = connections.get(stateful).unwrap().cold().resumption().unwrap();
    assert_eq!(resumption.ownership().bytes(), run.whole().get(Content::Hub(HubProtocol::Json)).unwrap().len());
    delivery.acknowledge(stateful, connections.get_mut(stateful).unwrap(), 2, mode);
    let resumption = connections.get(stateful).unwrap().cold().resumption().unwrap();
    assert_eq!(resumption.ownership().bytes(), call(3).bytes(), "each message is acknowledged by itself");
}

#[test]
fn a_client_over_its_limit_that_takes_nothing_is_closed_and_its_outbox_does_not_count_then() {
    let mut bed = Testbed::with(|settings| settings.outbox.client_bytes = 4000);
    let ann = bed.client("ann");
    for _ in 0..4 {
        send(&mut bed, &Audience::Everyone.into(), &"x".repeat(1500), Flush::Now);
        bed.end_step();
    }
    for _ in 1..bed.state.core.context.shared.settings.outbox.slow_client_timeout_s {
        bed.advance();
    }
    assert!(bed.state.core.connections.live(ann).is_some());
    assert!(bed.state.core.context.counters.outbox_bytes.get() > 4000);
    bed.advance();
    assert!(bed.state.core.connections.live(ann).is_none());
    assert_eq!(bed.state.core.context.counters.outbox_bytes.get(), 0);
}

#[test]
fn of_pongs_only_the_newest_wait_for_a_client_that_does_not_read_and_its_time_is_bounded() {
    let mut bed = Testbed::new();
    let [deaf, reader] = ["deaf", "reader"].map(|name| bed.client(name));
    let timeout = bed.state.core.context.shared.settings.outbox.slow_client_timeout_s;
    for second in 0..=timeout + 1 {
        for _ in 0..50 {
            bed.state.core.send_transport(deaf, &Bytes::from_static(&[b'p'; 2000]));
        }
        bed.state.core.send_transport(reader, &Bytes::from_static(&[b'p'; 2000]));
        bed.end_step();
        bed.received(reader);
        let is_here = |slot| bed.state.core.connections.live(slot).is_some();
        assert_eq!([deaf, reader].map(is_here), [second <= timeout, true], "{second}");
        assert!(bed.state.core.context.counters.outbox_bytes.get() <= 6000);
        // The client goes on sending.
        let now = bed.state.core.tick();
        bed.state.core.connections.get_mut(deaf).unwrap().liveness_mut().note_received(now);
        bed.advance();
    }
}

#[test]
fn a_client_over_its_limit_makes_no_further_calls_until_it_has_read() {
    let mut bed = Testbed::with(|settings| settings.outbox.client_bytes = 4000);
    let ann = bed.client("ann");
    let is_paused =
        |bed: &Testbed| bed.state.core.connections.get(ann).unwrap().pauses().contains(PauseReason::UnreadAnswers);
    let mut refused = 0;
    while !is_paused(&bed) && refused < 1000 {
        bed.state.core.answer_with_error(ann, "1", "refused");
        bed.end_step();
        refused += 1;
    }
    assert!((40..400).contains(&refused), "{refused}");
    while !bed.received(ann).is_empty() {}
    assert!(!is_paused(&bed));
}

#[test]
fn a_client_that_may_miss_loses_droppable_frames_and_stays() {
    let mut bed = Testbed::with(|settings| settings.outbox.client_bytes = 4000);
    let ann = bed.client("ann");
    bed.state
        .core
        .connections
        .get_mut(ann)
        .unwrap()
        .set_traits(ClientTraits { may_miss: true, ..ClientTraits::default() }, Liveness::default());
    for _ in 0..9 {
        send(&mut bed, &Audience::Everyone.into(), &"x".repeat(1500), Flush::Now);
        bed.end_step();
    }
    assert!(bed.state.core.context.counters.dropped.get() > 0);
    for _ in 0..2 * bed.state.core.context.shared.settings.outbox.slow_client_timeout_s {
        bed.advance();
    }
    assert!(bed.state.core.connections.live(ann).is_some());
}

#[test]
fn the_lists_of_a_batch_are_used_again() {
    let mut bed = Testbed::new();
    bed.client("ann");
    send(&mut bed, &Audience::Everyone.into(), "1", Flush::Deferred);
    bed.end_step();
    let effects = &bed.state.core.delivery.effects;
    assert!(effects.dirty.is_empty() && effects.dirty.capacity() > 0);
}

#[test]
fn a_message_has_a_frame_only_for_the_protocols_that_it_was_encoded_for() {
    let framed = message("hi");
    assert_eq!(framed.get(Content::Hub(HubProtocol::MessagePack)), None);
    assert_eq!(framed.get(Content::Raw), Some(&frame_for(HubProtocol::Json, b"hi")));
}

/// Adds clients with real sockets; the test reads their peers.
async fn crowd(bed: &mut Testbed, count: usize) -> Vec<(Slot, std::net::TcpStream)> {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut crowd = Vec::new();
    for number in 0..count {
        let slot = bed.client(&format!("client-{number}"));
        let far = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let near = listener.accept().await.unwrap().0;
        bed.state.core.connections.get_mut(slot).unwrap().wire_mut().attach(Socket::Tcp(near));
        crowd.push((slot, far));
    }
    crowd
}

/// Sends a batch of these texts to everyone. Returns the expected bytes per client.
fn batch(bed: &mut Testbed, texts: &[&str]) -> Vec<u8> {
    let send = |text: &&str| ShardCommand::Send {
        hub: bed.hub.index(),
        to: Audience::Everyone.into(),
        message: message(text),
        origin: SendOrigin::Sender(AppServerId::from(7), 0),
    };
    bed.apply(texts.iter().map(send).collect());
    texts.iter().flat_map(|text| frame_for(HubProtocol::Json, text.as_bytes())).collect()
}

#[tokio::test]
async fn what_many_get_is_the_same_by_one_system_call_and_by_one_for_each() {
    for vectored_sends in [true, false] {
        let mut bed = Testbed::with(|settings| settings.outbox.vectored_sends = vectored_sends);
        let mut crowd = crowd(&mut bed, WINDOW + 40).await;
        let (stalled, gone) = (crowd.pop().unwrap(), crowd.pop().unwrap());
        socket2::SockRef::from(&stalled.1).set_recv_buffer_size(1).unwrap();
        if let Socket::Tcp(near) = bed.state.core.connections.get_mut(stalled.0).unwrap().wire().socket() {
            socket2::SockRef::from(near).set_send_buffer_size(1).unwrap();
        }
        bed.state.core.connections.get_mut(gone.0).unwrap().wire().socket().cut();
        let large = "x".repeat(3_000);
        let mut sent = Vec::new();
        // Each fits the socket buffer, except for the client that does not read.
        let long: [&str; 12] = [&large; 12];
        let batches = [&["lone"][..], &["a", "batch", "of four", ""], &long[..1], &["y", &large], &["last"]];
        for texts in batches.into_iter().chain([&long[..]; 10]) {
            let expected = batch(&mut bed, texts);
            for (_, far) in &mut crowd {
                let mut came = vec![0; expected.len()];
                far.read_exact(&mut came).unwrap();
                assert!(came == expected, "{texts:.20?}");
            }
            sent.extend(expected);
        }
        let client = bed.state.core.connections.get_mut(stalled.0).unwrap();
        assert!(client.wire().is_flushing() && !client.wire().outbox().is_empty(), "its socket has taken everything");
        socket2::SockRef::from(&stalled.1).set_recv_buffer_size(1 << 20).unwrap();
        let mut came = vec![0; sent.len() - client.wire().bytes()];
        (&stalled.1).read_exact(&mut came).unwrap();
        let next: Vec<u8> = client.wire().outbox().slices().flatten().copied().collect();
        assert!(sent.starts_with(&came) && sent[came.len()..].starts_with(&next));
    }
}

/// Task that records being woken.
#[derive(Debug, Default)]
struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[tokio::test]
async fn the_task_that_flushes_a_client_ends_with_it() {
    let mut bed = Testbed::new();
    let (stalled, far) = crowd(&mut bed, 1).await.pop().unwrap();
    socket2::SockRef::from(&far).set_recv_buffer_size(1).unwrap();
    let large = "x".repeat(30_000);
    while !bed.state.core.connections.get_mut(stalled).unwrap().wire().is_flushing() {
        batch(&mut bed, &[&large]);
    }
    let woken = Arc::<Woken>::default();
    let ShardCore { connections, delivery, .. } = &mut bed.state.core;
    let client = connections.get_mut(stalled).unwrap();
    assert!(delivery.poll_flush_by_task(stalled, client, &mut Context::from_waker(&woken.clone().into())).is_pending());
    drop(bed.state.free(stalled, Cause::SocketEnded));
    assert!(woken.0.load(Ordering::Relaxed), "its socket is gone, and wakes nobody");
}

/// Adds a TLS client with a real socket; the test reads its peer.
#[cfg(feature = "tls")]
async fn tls_client(bed: &mut Testbed, name: &str) -> (Slot, TlsPeer) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let far = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (server, client) = configs(&rustls::version::TLS13);
    let shaken = tokio::task::spawn_blocking(move || {
        let name = rustls::pki_types::ServerName::try_from(HOST).unwrap();
        let mut far = rustls::StreamOwned::new(rustls::ClientConnection::new(client, name).unwrap(), far);
        while far.conn.is_handshaking() {
            far.conn.complete_io(&mut far.sock).unwrap();
        }
        far
    });
    let near = TlsStream::accept(server, listener.accept().await.unwrap().0).await.unwrap();
    let (near, records) = near.into_parts();
    let slot = bed.client(name);
    let socket = Socket::Tls(Box::new(TlsSocket::new(near, records)));
    bed.state.core.connections.get_mut(slot).unwrap().wire_mut().attach(socket);
    (slot, shaken.await.unwrap())
}

#[cfg(feature = "tls")]
#[tokio::test]
async fn clients_with_tls_get_the_same_by_one_system_call_and_by_one_for_each() {
    for vectored_sends in [true, false] {
        let mut bed = Testbed::with(|settings| settings.outbox.vectored_sends = vectored_sends);
        let mut plain = crowd(&mut bed, 8).await;
        let mut sealed = Vec::new();
        for number in 0..8 {
            sealed.push(tls_client(&mut bed, &format!("tls-{number}")).await);
        }
        let (stalled, mut far) = sealed.pop().unwrap();
        socket2::SockRef::from(&far.sock).set_recv_buffer_size(1).unwrap();
        let near = bed.state.core.connections.get_mut(stalled).unwrap().wire().socket().descriptor().unwrap();
        socket2::SockRef::from(&near).set_send_buffer_size(1).unwrap();
        let large = "x".repeat(3_000);
        let long: [&str; 12] = [&large; 12];
        let mut sent = Vec::new();
        let batches = [&["lone"][..], &["a", "batch", "of four", ""], &long[..1], &["y", &large]];
        // One frame per batch, so that the unsent rest is below the outbox, which is empty.
        for texts in batches.into_iter().chain([&long[..1]; 200]) {
            let expected = batch(&mut bed, texts);
            let mut came = vec![0; expected.len()];
            for (_, far) in &mut plain {
                far.read_exact(&mut came).unwrap();
                assert!(came == expected, "{texts:.20?}");
            }
            for (_, far) in &mut sealed {
                far.read_exact(&mut came).unwrap();
                assert!(came == expected, "{texts:.20?}");
            }
            sent.extend(expected);
            if bed.state.core.connections.get_mut(stalled).unwrap().wire().is_flushing() {
                break;
            }
        }
        let client = bed.state.core.connections.get_mut(stalled).unwrap();
        assert!(client.wire().is_flushing() && client.wire().socket().has_unsent(), "its socket has taken everything");
        assert!(client.wire().outbox().is_empty(), "records wait, and no frame");
        for text in ["one more", "and another"] {
            let mode = bed.state.core.mode(Flush::Now);
            let frame = frame_for(HubProtocol::Json, text.as_bytes());
            let client = bed.state.core.connections.get_mut(stalled).unwrap();
            bed.state.core.delivery.put(stalled, client, (&frame).into(), mode);
            sent.extend(frame);
        }
        let waiting = bed.state.core.context.counters.outbox_bytes.get();
        let client = bed.state.core.connections.get_mut(stalled).unwrap();
        assert_eq!(waiting, client.wire().bytes() as u64);
        socket2::SockRef::from(&far.sock).set_recv_buffer_size(1 << 20).unwrap();
        let length = sent.len();
        let read = tokio::task::spawn_blocking(move || {
            let mut came = vec![0; length];
            far.read_exact(&mut came).map(|()| came)
        });
        let delivery = &bed.state.core.delivery;
        let ((), came) = tokio::join!(std::future::poll_fn(|cx| delivery.poll_flush(client, cx)), read);
        assert!(came.unwrap().unwrap() == sent);
        assert_eq!(bed.state.core.context.counters.outbox_bytes.get(), 0);
    }
}

/// Frames in the outboxes of these clients after a run of sends.
fn queued(bed: &mut Testbed, slots: &[Slot], messages: &[&str]) -> Vec<Vec<Vec<u8>>> {
    let origin = SendOrigin::Sender(AppServerId::from(7), 0);
    let mut run = SendRun::new((message(messages[0]), origin));
    messages[1..].iter().for_each(|text| assert!(run.take_send((&message(text), origin))));
    run.join();
    let (mode, hub) = (bed.state.core.mode(Flush::Deferred), bed.hub.index());
    let ShardCore { connections, delivery, .. } = &mut bed.state.core;
    delivery.send(connections, hub, &Audience::Everyone.into(), &run, mode);
    let slices = |slot: &Slot| connections.get(*slot).unwrap().wire().outbox().slices().map(<[u8]>::to_vec).collect();
    slots.iter().map(slices).collect()
}

#[test]
fn compressed_frames_of_a_run_are_joined_and_replay_buffers_keep_plain_ones() {
    let mut bed = Testbed::new();
    let [plain, packed, stateful] = ["plain", "packed", "stateful"].map(|name| bed.client(name));
    bed.make_resumable(stateful);
    for slot in [packed, stateful] {
        bed.state.core.connections.live_mut(slot).unwrap().set_compressed(true);
    }
    let texts =
        ["a", "b"].map(|text| format!("{{\"type\":1,\"target\":\"{}\",\"arguments\":[]}}\u{1e}", text.repeat(400)));
    let frames = queued(&mut bed, &[plain, packed, stateful], &[&texts[0], "short", &texts[1]]);
    let [of_plain, of_packed, of_stateful] = frames.try_into().unwrap();
    let plain_frames = [&texts[0], "short", &texts[1]].map(|text| frame_for(HubProtocol::Json, text.as_bytes()));
    assert_eq!(of_plain, [plain_frames.concat()]);
    let twins = [0, 2].map(|at| websocket::Deflater::default().deflate_frame(&plain_frames[at]).unwrap());
    assert!(twins.iter().all(|twin| twin.len() < 60));
    let sent = [&twins[0], &plain_frames[1], &twins[1]].map(|frame| frame.to_vec());
    assert_eq!((of_packed, of_stateful.as_slice()), (vec![sent.concat()], &sent[..]));
    let resumption = bed.state.core.connections.get(stateful).unwrap().cold().resumption().unwrap();
    let kept: Vec<_> = resumption.ownership().replay().1.cloned().collect();
    assert_eq!(kept, [plain_frames[0].clone(), plain_frames[2].clone()], "messages that count");
}

#[test]
fn a_message_is_compressed_once_for_all_its_receivers_and_not_without_one() {
    let mut bed = Testbed::new();
    let slots = ["ann", "ben", "eve"].map(|name| bed.client(name));
    let text = "news ".repeat(200);
    let mut run = SendRun::new((message(&text), SendOrigin::Sender(AppServerId::from(7), 0)));
    run.join();
    let mut compression = framed::Compression::new(&OutboxLimits::default());
    let plain = run.frames(FrameForm::Json, &mut compression).unwrap();
    assert!(std::ptr::eq(plain.plain, plain.wire) && !compression.has_begun(), "no receiver wants it");
    let first = run.frames(FrameForm::JsonDeflated, &mut compression).unwrap();
    let second = run.frames(FrameForm::JsonDeflated, &mut compression).unwrap();
    assert!(std::ptr::eq(first.wire, second.wire) && first.wire.len() < plain.wire.len());
    assert_eq!(run.frames(FrameForm::MessagePackDeflated, &mut compression).map(|frame| frame.wire.len()), None);
    for slot in slots {
        bed.state.core.connections.live_mut(slot).unwrap().set_compressed(true);
    }
    let frames = queued(&mut bed, &slots, &[&text]);
    assert!(frames.iter().all(|frames| *frames == [first.wire.to_vec()]));
    let counters = bed.state.core.context.counters.hub(bed.hub.index().get());
    let bytes = [first.plain, first.wire].map(|frame| 3 * frame.len() as u64);
    assert_eq!([counters.compression_plain.get(), counters.compression_sent.get()], bytes);
    assert_eq!(counters.bytes_down.get(), 3000);
}
