//! A connection that can be cut after so many bytes of an answer.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, ready},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};

/// No cut is ordered.
const UNLIMITED: usize = usize::MAX;

/// Orders a connection cut; handlers find it among a request's extensions.
#[derive(Clone, Debug)]
pub struct Scissors(Arc<AtomicUsize>);

/// A connection that obeys its [`Scissors`].
pub struct Cuttable {
    stream: TcpStream,
    left: Arc<AtomicUsize>,
}

impl Scissors {
    /// Lets so many more bytes through, and then cuts the connection.
    pub fn cut_after(&self, bytes: usize) {
        self.0.store(bytes, Ordering::Release);
    }
}

impl Cuttable {
    /// Wraps a connection.
    pub fn new(stream: TcpStream) -> (Self, Scissors) {
        let left = Arc::new(AtomicUsize::new(UNLIMITED));
        (
            Self {
                stream,
                left: Arc::clone(&left),
            },
            Scissors(left),
        )
    }
}

impl AsyncRead for Cuttable {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Cuttable {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let left = self.left.load(Ordering::Acquire);
        if left == UNLIMITED {
            return Pin::new(&mut self.stream).poll_write(cx, bytes);
        }
        if left == 0 {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        let allowed = bytes.get(..left).unwrap_or(bytes);
        let written = ready!(Pin::new(&mut self.stream).poll_write(cx, allowed))?;
        self.left.store(left - written, Ordering::Release);
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
