//! PROXY protocol header, with which a load balancer sends the client's address ahead of the client's data.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use proxy_header::{Error, ParseConfig, ProxyHeader};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::ground::metrics::{Outcome, OutcomeCounters};

/// First bytes of each version.
const SIGNATURES: [&[u8]; 2] = [b"PROXY ", b"\r\n\r\n\0\r\nQUIT\n"];

/// Maximum length of a version 2 header. Load balancers add some hundred bytes of their own.
const HEADER_MAX_BYTES: usize = 4096;

/// Maximum length of a version 1 header, according to its specification.
const VERSION_1_MAX_BYTES: usize = 107;

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum HeaderStart {
    /// A header of this length. Without an address, the load balancer speaks for itself.
    Header {
        length: usize,
        client: Option<SocketAddr>,
    },
    /// An incomplete PROXY header.
    Part,
    Other,
}

/// Reads exactly one header; returns its address, if any.
///
/// `None` without a valid header, which is counted.
pub(crate) async fn read_header(
    stream: &TcpStream,
    limit: Duration,
    outcomes: &OutcomeCounters,
) -> Option<Option<SocketAddr>> {
    let (outcome, told) = match timeout(limit, peek_header(stream)).await {
        Ok(Ok(Some(client))) => (Outcome::Done, Some(client)),
        Ok(Ok(None)) => (Outcome::Invalid, None),
        Ok(Err(_)) => (Outcome::Closed, None),
        Err(_) => (Outcome::Timeout, None),
    };
    outcomes.of(outcome).increment();
    told
}

async fn peek_header(stream: &TcpStream) -> io::Result<Option<Option<SocketAddr>>> {
    let mut bytes = vec![0; HEADER_MAX_BYTES];
    let mut taken = 0;
    loop {
        let rest = bytes.get_mut(taken..).filter(|rest| !rest.is_empty());
        let Some(rest) = rest else { return Ok(None) };
        // Peeks first, so that only the header is consumed.
        let end = taken + stream.peek(rest).await?;
        if end == taken {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let (end, header) = match header_start(bytes.get(..end).unwrap_or_default()) {
            HeaderStart::Header { length, client } => (length, Some(client)),
            HeaderStart::Part => (end, None),
            HeaderStart::Other => return Ok(None),
        };
        taken += take_bytes(stream, bytes.get_mut(taken..end).unwrap_or_default())?;
        if let Some(client) = header
            && taken == end
        {
            return Ok(Some(client));
        }
    }
}

/// Consumes bytes that were peeked at.
fn take_bytes(stream: &TcpStream, bytes: &mut [u8]) -> io::Result<usize> {
    match stream.try_read(bytes) {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
        other => other,
    }
}

pub(crate) fn header_start(bytes: &[u8]) -> HeaderStart {
    let is_signature = |signature: &&[u8]| signature.iter().zip(bytes).all(|(expected, byte)| expected == byte);
    if !SIGNATURES.iter().any(is_signature) {
        return HeaderStart::Other;
    }
    let config = ParseConfig { include_tlvs: false, allow_v1: true, allow_v2: true };
    match ProxyHeader::parse(bytes, config) {
        // Independent of TCP segmentation: a header in parts is not read further either.
        Ok((_, length)) if bytes.starts_with(b"PROXY") && length > VERSION_1_MAX_BYTES => HeaderStart::Other,
        Ok((header, length)) => {
            HeaderStart::Header { length, client: header.proxied_address().map(|address| canonical(address.source)) }
        }
        Err(Error::BufferTooShort) => HeaderStart::Part,
        Err(_) => HeaderStart::Other,
    }
}

fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

    fn version_2(command: u8, family: u8, addresses: &[u8]) -> Vec<u8> {
        let length = u8::try_from(addresses.len()).unwrap();
        [SIGNATURE, &[command, family, 0, length], addresses].concat()
    }

    fn client(text: &str) -> Option<SocketAddr> {
        Some(text.parse().unwrap())
    }

    fn headers() -> Vec<(Vec<u8>, Option<SocketAddr>)> {
        let ipv6 = [&[0x20, 1, 0xd, 0xb8][..], &[0; 11], &[1], &[0; 15], &[1], &[0x1f, 0x90, 0, 80]].concat();
        vec![
            (b"PROXY TCP4 192.0.2.7 10.0.0.1 4711 80\r\n".to_vec(), client("192.0.2.7:4711")),
            (b"PROXY TCP6 2001:db8::1 ::1 4711 443\r\n".to_vec(), client("[2001:db8::1]:4711")),
            (b"PROXY TCP6 ::ffff:192.0.2.7 ::1 4711 443\r\n".to_vec(), client("192.0.2.7:4711")),
            (b"PROXY UNKNOWN\r\n".to_vec(), None),
            (b"PROXY UNKNOWN 1 2 3 4\r\n".to_vec(), None),
            (version_2(0x21, 0x11, &[192, 0, 2, 7, 10, 0, 0, 1, 0x12, 0x67, 0, 80]), client("192.0.2.7:4711")),
            (version_2(0x21, 0x21, &ipv6), client("[2001:db8::1]:8080")),
            // With custom fields of the load balancer after the addresses.
            (
                version_2(0x21, 0x11, &[192, 0, 2, 7, 10, 0, 0, 1, 0x12, 0x67, 0, 80, 4, 0, 1, 9]),
                client("192.0.2.7:4711"),
            ),
            // A health check of the load balancer itself.
            (version_2(0x20, 0x00, &[]), None),
            (version_2(0x20, 0x11, &[1, 1, 1, 1, 2, 2, 2, 2, 0, 1, 0, 2]), None),
        ]
    }

    #[test]
    fn both_versions_have_the_client_address_and_end_before_client_data() {
        for (header, client) in headers() {
            let bytes = [&header[..], b"GET / HTTP/1.1\r\n"].concat();
            assert_eq!(
                header_start(&bytes),
                HeaderStart::Header { length: header.len(), client },
                "{}",
                header.escape_ascii()
            );
            for end in 0..header.len() {
                assert_eq!(header_start(&header[..end]), HeaderStart::Part, "{} up to {end}", header.escape_ascii());
            }
        }
    }

    #[test]
    fn the_first_wrong_byte_shows_that_there_is_no_header() {
        for bytes in [
            &b"G"[..],
            b"PROXYX",
            b"PROXY TCP5 1.1.1.1 2.2.2.2 1 2\r\n",
            b"PROXY TCP4 ::1 2.2.2.2 1 2\r\n",
            b"PROXY TCP4 1.1.1.1 2.2.2.2 70000 2\r\n",
            b"PROXY TCP4 1.1.1.1 2.2.2.2 1 2\rX",
            &[&b"PROXY UNKNOWN "[..], &[b'x'; 100]].concat(),
            &[&b"PROXY UNKNOWN "[..], &[b'x'; 92], b"\r\n"].concat(),
            &version_2(0x31, 0x11, &[0; 12]),
            &[version_2(0x21, 0x11, &[0; 4]), b"GET / HTTP/1.1".to_vec()].concat(),
            b"\r\n\r\n\0\r\nQUIX",
            b"\x16\x03\x01",
        ] {
            assert_eq!(header_start(bytes), HeaderStart::Other, "{}", bytes.escape_ascii());
        }
    }

    /// A header arriving byte by byte is read completely, and the client's own bytes are left.
    #[tokio::test]
    async fn nothing_behind_a_header_is_taken() {
        for (header, told) in headers() {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let mut balancer = tokio::net::TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
            let (mut stream, _) = listener.accept().await.unwrap();
            let writer = tokio::spawn(async move {
                balancer.set_nodelay(true).unwrap();
                for byte in header {
                    balancer.write_all(&[byte]).await.unwrap();
                    tokio::task::yield_now().await;
                }
                balancer.write_all(b"GET").await.unwrap();
            });
            let outcomes = OutcomeCounters::default();
            let read = read_header(&stream, Duration::from_secs(60), &outcomes).await;
            assert_eq!(read, Some(told));
            assert_eq!(outcomes.of(Outcome::Done).get(), 1);
            writer.await.unwrap();
            let mut rest = String::new();
            stream.read_to_string(&mut rest).await.unwrap();
            assert_eq!(rest, "GET");
        }
    }

    #[tokio::test]
    async fn a_header_that_never_ends_is_refused() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut balancer = tokio::net::TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (stream, _) = listener.accept().await.unwrap();
        let endless = [SIGNATURE, &[0x21, 0x11, 0xff, 0xff], &[0; HEADER_MAX_BYTES]].concat();
        balancer.write_all(&endless).await.unwrap();
        let outcomes = OutcomeCounters::default();
        assert_eq!(read_header(&stream, Duration::from_secs(60), &outcomes).await, None);
        assert_eq!(outcomes.of(Outcome::Invalid).get(), 1);
    }
}
