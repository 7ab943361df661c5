//! HTTP/1.1 client: encoded requests, and responses with a length or chunked bodies.

use anyhow::{Context, Result, bail, ensure};

use crate::upgrade::head_end;

const HEAD_MAX_BYTES: usize = 16 * 1024;

/// Encodes a request with additional header lines, each with its line end.
#[must_use]
pub fn request(method: &str, target: &str, host: &str, headers: &str, body: &str) -> Vec<u8> {
    let length = if method == "GET" { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
    format!("{method} {target} HTTP/1.1\r\nHost: {host}\r\n{headers}{length}\r\n{body}").into_bytes()
}

/// Response after its head, with the state of its body.
///
/// ```text
///  Length ──all of it──► Over          ChunkSize ──data──► Chunk ──all of it──► ChunkEnd ──► ChunkSize
///                                          └─── 0 ──► Trailer ──► Over
/// ```
#[derive(Debug)]
pub struct Answer {
    /// Status code of the response.
    pub status: u16,
    body: Body,
}

#[derive(Debug)]
enum Body {
    Length(usize),
    ChunkSize(usize),
    Chunk(usize),
    ChunkEnd,
    Trailer,
    Over,
}

impl Answer {
    /// Parses the head at the start of these bytes and returns the bytes after it; `None` if it is incomplete.
    pub fn begin(bytes: &[u8]) -> Result<Option<(Self, &[u8])>> {
        let Some(end) = head_end(bytes) else {
            ensure!(bytes.len() < HEAD_MAX_BYTES, "the head of an answer has no end");
            return Ok(None);
        };
        let (head, rest) = bytes.split_at_checked(end).context("a head within its bytes")?;
        let head = std::str::from_utf8(head)?;
        let mut lines = head.split("\r\n");
        let status = lines.next().and_then(|line| line.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok());
        let status = status.with_context(|| format!("{head:?} begins no answer"))?;
        let mut body = Body::Length(0);
        for (name, value) in lines.filter_map(|line| line.split_once(':')) {
            if name.eq_ignore_ascii_case("content-length") {
                body = Body::Length(value.trim().parse().context("Content-Length")?);
            } else if name.eq_ignore_ascii_case("transfer-encoding") {
                ensure!(value.trim().eq_ignore_ascii_case("chunked"), "a body comes as {value:?}");
                body = Body::ChunkSize(0);
            }
        }
        let body = if let Body::Length(0) = body { Body::Over } else { body };
        Ok(Some((Self { status, body }, rest)))
    }

    /// Whether the body is complete.
    #[must_use]
    pub fn is_over(&self) -> bool {
        matches!(self.body, Body::Over)
    }

    /// Processes bytes of the body and passes each part on. Returns the bytes after the response.
    ///
    /// # Errors
    /// The first error of `each`, or if the chunks are invalid.
    pub fn take<'a>(&mut self, mut bytes: &'a [u8], mut each: impl FnMut(&[u8]) -> Result<()>) -> Result<&'a [u8]> {
        while let Some((&first, rest)) = bytes.split_first() {
            match &mut self.body {
                Body::Over => return Ok(bytes),
                Body::Length(left) | Body::Chunk(left) => {
                    let (part, behind) = bytes.split_at_checked((*left).min(bytes.len())).unwrap_or((bytes, &[]));
                    each(part)?;
                    *left -= part.len();
                    bytes = behind;
                    if *left == 0 {
                        self.body = if matches!(self.body, Body::Chunk(_)) { Body::ChunkEnd } else { Body::Over };
                    }
                    continue;
                }
                Body::ChunkSize(size) => match first {
                    b'\r' => {}
                    b'\n' => self.body = if *size == 0 { Body::Trailer } else { Body::Chunk(*size) },
                    digit => {
                        let digit = char::from(digit).to_digit(16).context("a chunk has no size")?;
                        let larger = size.checked_mul(16).context("a chunk is too large")?;
                        *size = larger | usize::try_from(digit)?;
                    }
                },
                Body::ChunkEnd | Body::Trailer if first == b'\r' => {}
                Body::ChunkEnd if first == b'\n' => self.body = Body::ChunkSize(0),
                Body::Trailer if first == b'\n' => self.body = Body::Over,
                Body::ChunkEnd | Body::Trailer => bail!("something else than a line end is behind a chunk"),
            }
            bytes = rest;
        }
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Body and remaining bytes of a response split at this position.
    fn read(bytes: &[u8], cut: usize) -> (Vec<u8>, Vec<u8>) {
        let (mut answer, rest) = Answer::begin(&bytes[..cut]).unwrap().unwrap();
        let mut body = Vec::new();
        let mut note = |part: &[u8]| -> Result<()> {
            body.extend_from_slice(part);
            Ok(())
        };
        let mut behind = answer.take(rest, &mut note).unwrap().to_vec();
        behind.extend_from_slice(answer.take(&bytes[cut..], &mut note).unwrap());
        assert!(answer.is_over());
        (body, behind)
    }

    #[test]
    fn a_body_is_found_wherever_its_bytes_are_cut() {
        for (head, body) in [
            ("HTTP/1.1 200 OK\r\ncontent-length: 11\r\n\r\n", "hello world"),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "6\r\nhello \r\n5\r\nworld\r\n0\r\n\r\n"),
        ] {
            let bytes = [head, body, "next"].concat().into_bytes();
            for cut in head.len()..bytes.len() - "next".len() {
                assert_eq!(read(&bytes, cut), (b"hello world".to_vec(), b"next".to_vec()), "cut at {cut}");
            }
        }
    }

    #[test]
    fn an_answer_without_a_body_is_over_at_once_and_an_incomplete_head_is_none() {
        let bytes = b"HTTP/1.1 204 No Content\r\n\r\n";
        let (answer, rest) = Answer::begin(bytes).unwrap().unwrap();
        assert!(answer.is_over() && answer.status == 204 && rest.is_empty());
        assert!(Answer::begin(&bytes[..20]).unwrap().is_none());
        assert!(Answer::begin(b"SSH-2.0\r\n\r\n").is_err());
    }
}
