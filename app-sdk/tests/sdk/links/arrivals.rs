//! Tests of delivery: linked proxies, and acknowledged messages.

use std::pin::pin;
use std::time::Duration;

use futures_util::FutureExt;
use trunkline::{Hub, NotAcknowledged, NotAcknowledgedReason};
use trunkline_protocol::service::*;

use super::resume::{LONG_MS, SHORT_MS, begin, session};
use crate::harness::{App, LinkRequest, ProxyLink};

/// The acknowledgement of this number of frames.
fn acknowledgement(frames: u64) -> ServiceMessage {
    ServiceMessage::Ping(Ping { pairs: vec![(ACKNOWLEDGE_KEY.into(), frames.to_string().into())] })
}

#[tokio::test]
async fn a_send_is_acknowledged_once_every_proxy_has_it_over_any_socket() {
    let mut app = App::start().await;
    let (mut first, _client) = begin(&mut app, LONG_MS).await;
    let (mut second, _) = ProxyLink::open_as(&app, LinkRequest { node: "b", ..session(None, LONG_MS) }).await;
    let hub = app.handle.hub("test").unwrap();
    let sent = hub.clients().all().send("M", (1,)).await.unwrap();
    assert_eq!(sent.proxies(), 2);
    let mut waiting = pin!(sent.acknowledged());
    for link in [&mut first, &mut second] {
        assert!(matches!(link.next().await, ServiceMessage::BroadcastData(_)));
    }
    second.send(acknowledgement(1)).await;
    second.fence().await;
    assert_eq!(waiting.as_mut().now_or_never(), None, "one proxy has not acknowledged it");
    drop(first);
    let (_first, _) = ProxyLink::open_as(&app, session(Some(2), LONG_MS)).await;
    assert_eq!(waiting.await, Ok(2), "the proxy that is back says that it has it");
}

#[tokio::test]
async fn a_send_that_a_crashed_proxy_may_not_have_names_it() {
    let mut app = App::start().await;
    let (mut first, _client) = begin(&mut app, SHORT_MS).await;
    let (mut second, _) = ProxyLink::open_as(&app, LinkRequest { node: "b", ..session(None, LONG_MS) }).await;
    let hub = app.handle.hub("test").unwrap();
    let sent = hub.clients().all().send("M", (1,)).await.unwrap();
    assert!(matches!(first.next().await, ServiceMessage::BroadcastData(_)));
    drop(first);
    let late = sent.acknowledged_within(Duration::from_millis(1)).await.unwrap_err();
    let all = [("a", NotAcknowledgedReason::Timeout), ("b", NotAcknowledgedReason::Timeout)];
    assert_eq!(late, NotAcknowledged::Proxies(all.map(|(name, reason)| (name.to_owned(), reason)).to_vec()));
    assert!(matches!(second.next().await, ServiceMessage::BroadcastData(_)));
    second.send(acknowledgement(1)).await;
    let error = sent.acknowledged().await.unwrap_err();
    assert_eq!(error, NotAcknowledged::Proxies(vec![("a".to_owned(), NotAcknowledgedReason::LinkLost)]));
    assert_eq!(error.to_string(), "not acknowledged by a (its link was lost)");
}

#[tokio::test]
async fn a_send_that_no_proxy_took_is_not_acknowledged() {
    let app = App::start().await;
    let sent = app.handle.hub("test").unwrap().clients().all().send("M", (1,)).await.unwrap();
    assert_eq!((sent.proxies(), sent.acknowledged().await), (0, Err(NotAcknowledged::NoProxy)));
}

#[tokio::test]
async fn an_app_server_is_linked_with_the_first_link_of_each_proxy_that_has_called() {
    let app = App::start_with(|hub| hub, |server| server.hub(Hub::new("/other"))).await;
    let (hub, other) = (app.handle.hub("test").unwrap(), app.handle.hub("other").unwrap());
    let (mut hub_is_linked, mut all_are_linked) = (pin!(hub.linked()), pin!(app.handle.linked()));
    assert_eq!((hub_is_linked.as_mut().now_or_never(), all_are_linked.as_mut().now_or_never()), (None, None));
    assert_eq!(hub.clients().all().send("M", (1,)).await.unwrap().proxies(), 0, "as it is before the first link");
    let _first = ProxyLink::open(&app, "a", 0).await;
    hub_is_linked.await;
    assert_eq!((hub.proxies(), other.proxies()), (1, 0));
    assert_eq!(all_are_linked.as_mut().now_or_never(), None, "the other hub has no link");
    let of_other = |node, slot| LinkRequest { hub: "other", ..LinkRequest::of(node, slot) };
    let _second = ProxyLink::open_as(&app, of_other("b", 0)).await;
    assert_eq!(all_are_linked.as_mut().now_or_never(), None, "each proxy has a link to one of the hubs");
    let _third = ProxyLink::open_as(&app, of_other("a", 1)).await;
    let last = ProxyLink::open(&app, "b", 1).await;
    all_are_linked.await;
    assert_eq!((hub.proxies(), other.proxies()), (2, 2));
    assert_eq!(hub.clients().all().send("M", (1,)).await.unwrap().proxies(), hub.proxies());
    drop(last);
    hub.linked().await;
}
