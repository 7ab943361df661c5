//! Dials the addresses of one server, staggered as in RFC 8305: an unreachable address family delays a connection only
//! briefly.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::time::sleep;

/// Time before the next address is dialled, unless the previous one fails sooner.
const STAGGER_INTERVAL: Duration = Duration::from_millis(250);

/// Connects to the first of these addresses that accepts; returns the connection and its address. Addresses of both
/// families alternate, starting with the preferred family. Fails when no address accepts. Reports refusal if every
/// reachable address refuses.
pub async fn dial_staggered<T, D>(
    addresses: impl IntoIterator<Item = SocketAddr>,
    dial: impl Fn(SocketAddr) -> D,
) -> io::Result<(T, SocketAddr)>
where
    D: Future<Output = io::Result<T>>,
{
    let mut waiting = alternating(addresses.into_iter().collect()).into_iter();
    let mut dials = FuturesUnordered::new();
    let mut error = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    loop {
        if let Some(at) = waiting.next() {
            let dialled = dial(at);
            dials.push(async move { dialled.await.map(|connection| (connection, at)) });
        }
        tokio::select! {
            biased;
            dialled = dials.next() => match dialled {
                Some(Ok(connected)) => return Ok(connected),
                Some(Err(failed)) if rank(&failed) >= rank(&error) => error = failed,
                Some(Err(_)) => {}
                None => return Err(error),
            },
            () = sleep(STAGGER_INTERVAL), if !waiting.as_slice().is_empty() => {}
        }
    }
}

fn alternating(addresses: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let is_v4 = addresses.first().is_some_and(SocketAddr::is_ipv4);
    let (preferred, others): (Vec<_>, Vec<_>) = addresses.into_iter().partition(|at| at.is_ipv4() == is_v4);
    let mut ranked: Vec<_> = preferred.into_iter().enumerate().chain(others.into_iter().enumerate()).collect();
    // Stable: among equal ranks, the preferred address stays first.
    ranked.sort_by_key(|(rank, _)| *rank);
    ranked.into_iter().map(|(_, at)| at).collect()
}

/// Ranks errors by how informative they are about the server; the highest is reported.
fn rank(error: &io::Error) -> u8 {
    match error.kind() {
        io::ErrorKind::NotFound => 0,
        // This host lacks that address family.
        io::ErrorKind::NetworkUnreachable | io::ErrorKind::AddrNotAvailable => 1,
        io::ErrorKind::ConnectionRefused => 2,
        _ => 3,
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use tokio::time::Instant;

    use super::*;

    fn at(address: &str) -> SocketAddr {
        address.parse().unwrap()
    }

    /// Dials addresses: some accept, others never answer, and the rest refuse. Returns the result, and the dialled
    /// addresses with their times in milliseconds.
    async fn dial(
        addresses: &[&str],
        accepting: &[&str],
        silent: &[&str],
    ) -> (Result<SocketAddr, io::ErrorKind>, Vec<(String, u128)>) {
        let (begun, dialled) = (Instant::now(), RefCell::new(Vec::new()));
        let outcome = dial_staggered(addresses.iter().map(|address| at(address)), |to| {
            dialled.borrow_mut().push((to.to_string(), begun.elapsed().as_millis()));
            let is_one_of = |of: &[&str]| of.iter().any(|address| at(address) == to);
            let (accepts, is_silent) = (is_one_of(accepting), is_one_of(silent));
            async move {
                if is_silent {
                    // sleep: virtual time, longer than a kernel tries to connect
                    sleep(Duration::from_secs(120)).await;
                    return Err(io::ErrorKind::TimedOut.into());
                }
                if accepts { Ok(()) } else { Err(io::ErrorKind::ConnectionRefused.into()) }
            }
        });
        let outcome = outcome.await.map(|((), at)| at).map_err(|error| error.kind());
        (outcome, dialled.into_inner())
    }

    #[tokio::test(start_paused = true)]
    async fn the_next_address_is_dialled_after_a_failure_immediately_and_after_silence_soon() {
        let [v6, v4, other] = ["[2001:db8::1]:80", "10.0.0.1:80", "10.0.0.2:80"];
        let refused = dial(&[v6, v4, other], &[v4], &[]).await;
        assert_eq!(refused, (Ok(at(v4)), vec![(v6.into(), 0), (v4.into(), 0)]));
        let silent = dial(&[v6, v4, other], &[v4], &[v6]).await;
        assert_eq!(silent, (Ok(at(v4)), vec![(v6.into(), 0), (v4.into(), 250)]));
        assert_eq!(dial(&[v6], &[v6], &[]).await.0, Ok(at(v6)));
        assert_eq!(dial(&[], &[], &[]).await, (Err(io::ErrorKind::NotFound), vec![]));
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_refuses_only_if_all_of_its_addresses_do() {
        let [v6, v4] = ["[2001:db8::1]:80", "10.0.0.1:80"];
        assert_eq!(dial(&[v6, v4], &[], &[]).await.0, Err(io::ErrorKind::ConnectionRefused));
        assert_eq!(dial(&[v6, v4], &[], &[v6]).await.0, Err(io::ErrorKind::TimedOut));
        let no_family = dial_staggered([at(v6), at(v4)], async |to: SocketAddr| -> io::Result<()> {
            Err(if to.is_ipv6() { io::ErrorKind::NetworkUnreachable } else { io::ErrorKind::ConnectionRefused }.into())
        });
        assert_eq!(no_family.await.map_err(|error| error.kind()), Err(io::ErrorKind::ConnectionRefused));
    }

    #[test]
    fn families_alternate_from_the_preferred_one() {
        let all = ["[2001:db8::1]:1", "[2001:db8::2]:1", "[2001:db8::3]:1", "10.0.0.1:1"].map(at).to_vec();
        assert_eq!(alternating(all.clone()), [all[0], all[3], all[1], all[2]]);
    }
}
