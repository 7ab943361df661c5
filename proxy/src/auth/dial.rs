//! The way to an issuer. Whoever knows of TLS stands in a higher room, and opens it.

use std::fmt::Debug;
use std::io;

use futures_util::future::BoxFuture;
use http::Uri;
use tokio::io::{AsyncRead, AsyncWrite};

/// A connection to an issuer, plain or in TLS.
pub trait Wire: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Wire for T {}

/// Opens connections to issuers.
pub trait Dial: Debug + Send + Sync {
    /// Connects to the host of a URL, by its scheme.
    ///
    /// # Errors
    /// When nobody answers there, or not as who it should be.
    fn dial(&self, url: &Uri) -> BoxFuture<'static, io::Result<Box<dyn Wire>>>;
}

/// Issuers who answer whatever they are asked with the same, byte by byte.
#[cfg(test)]
#[derive(Debug)]
pub(super) struct Canned(pub(super) Vec<u8>);

#[cfg(test)]
impl Dial for Canned {
    fn dial(&self, _url: &Uri) -> BoxFuture<'static, io::Result<Box<dyn Wire>>> {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};

        let answer = self.0.clone();
        let (near, mut far) = tokio::io::duplex(1024);
        tokio::spawn(async move {
            let _ = far.read(&mut [0; 1024]).await;
            let _ = far.write_all(&answer).await;
            // Open until the other end goes.
            let _ = far.read(&mut [0; 1024]).await;
        });
        Box::pin(async move { Ok(Box::new(near) as Box<dyn Wire>) })
    }
}
