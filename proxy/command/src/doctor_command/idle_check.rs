//! Checks idle timeouts, with connections that send only keep-alives.

use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep_until};
use trunkline_protocol::manifest::Transport;

use super::finding::Finding;
use super::hub_connection::HubConnection;
use super::negotiate_check::{Negotiated, check_negotiate};
use super::probe_client::{ProbeClient, ProbeError};
use super::transport_check::check_name;
use crate::quantity::duration_text;

const IDLE: &str = "idle";
const PING_INTERVAL: Duration = Duration::from_secs(15);

#[derive(Debug)]
struct IdleSeen {
    transport: Transport,
    lived: Duration,
    /// Messages received from the server meanwhile.
    received: usize,
    end: Option<String>,
}

/// Keeps one connection per transport idle for a while, simultaneously.
pub(super) async fn check_idle(client: &ProbeClient, transports: &[Transport], time: Duration) -> Vec<Finding> {
    let seen = join_all(transports.iter().map(|transport| keep_idle(client, *transport, time))).await;
    seen.iter().map(|seen| judge_idle(seen, time)).collect()
}

async fn keep_idle(client: &ProbeClient, transport: Transport, time: Duration) -> IdleSeen {
    let mut seen = IdleSeen { transport, lived: Duration::ZERO, received: 0, end: None };
    let mut begun = Instant::now();
    if let Err(error) = stay(client, time, &mut begun, &mut seen).await {
        seen.end = Some(error.to_string());
    }
    seen.lived = begun.elapsed();
    seen
}

async fn stay(
    client: &ProbeClient,
    time: Duration,
    begun: &mut Instant,
    seen: &mut IdleSeen,
) -> Result<(), ProbeError> {
    let negotiation = check_negotiate(client).await;
    let Some(Negotiated { id, .. }) = negotiation.negotiated else {
        return Err(ProbeError::Closed("the negotiation failed".into()));
    };
    let mut connection = HubConnection::open(&negotiation.client, &id, seen.transport).await?;
    connection.handshake().await?;
    *begun = Instant::now();
    let end = *begun + time;
    let mut pings = interval_at(*begun + PING_INTERVAL, PING_INTERVAL);
    pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            message = connection.message() => {
                message?;
                seen.received += 1;
            }
            // A poll is itself a keep-alive, so clients send no pings.
            _ = pings.tick(), if seen.transport != Transport::LongPolling => connection.ping().await?,
            () = sleep_until(end) => break,
        }
    }
    connection.close().await;
    Ok(())
}

fn judge_idle(seen: &IdleSeen, time: Duration) -> Finding {
    let name = check_name(seen.transport);
    match &seen.end {
        None => {
            let text = format!("{name} stayed open for {}, with {} keep-alives", duration_text(time), seen.received);
            match seen.transport {
                Transport::LongPolling => Finding::ok(IDLE, format!("{name} stayed open for {}", duration_text(time))),
                _ if seen.received == 0 && time > 2 * PING_INTERVAL => Finding::warning(
                    IDLE,
                    text,
                    "let the hub send keep-alives (`Hub::keep_alive_interval`, default 15 s): load balancers close \
                     idle connections",
                ),
                _ => Finding::ok(IDLE, text),
            }
        }
        Some(end) => Finding::failed(
            IDLE,
            format!("{name} ended after {} s: {end}", seen.lived.as_secs()),
            match seen.transport {
                Transport::LongPolling => {
                    "give the nodes a --poll-timeout below the timeout of the load balancer (HAProxy `timeout \
                     server`, nginx `proxy_read_timeout`, or an idle timeout)"
                }
                _ => {
                    "set the load balancer's idle timeout above 15 s: HAProxy `timeout client`, `timeout server`, \
                     `timeout tunnel`; nginx `proxy_read_timeout` and `proxy_send_timeout`"
                }
            },
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::super::finding::Verdict;
    use super::*;

    fn judged(transport: Transport, received: usize, end: Option<&str>) -> Finding {
        let seen = IdleSeen { transport, lived: Duration::from_secs(50), received, end: end.map(str::to_owned) };
        judge_idle(&seen, Duration::from_secs(120))
    }

    #[test]
    fn a_connection_that_is_cut_names_the_settings_of_its_transport() {
        let poll = judged(Transport::LongPolling, 0, Some("the answer is 504"));
        assert_eq!(poll.seen, "long-polling ended after 50 s: the answer is 504");
        assert!(poll.advice.unwrap().contains("--poll-timeout"));
        assert!(judged(Transport::WebSockets, 3, Some("cut")).advice.unwrap().contains("timeout tunnel"));
    }

    #[test]
    fn a_silent_server_is_a_warning_unless_it_is_polled() {
        assert_eq!(judged(Transport::WebSockets, 8, None).verdict, Verdict::Ok);
        assert_eq!(judged(Transport::WebSockets, 0, None).verdict, Verdict::Warning);
        assert_eq!(judged(Transport::LongPolling, 0, None).verdict, Verdict::Ok);
    }
}
