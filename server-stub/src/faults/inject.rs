//! Making a fault happen: a different answer, or a connection that ends in the middle of one.
//!
//! A connection is cut below HTTP: [`CutStream`] passes on only so many bytes of what is written to it,
//! and fails afterwards, which makes the server close the connection. So the client sees exactly what
//! it would see when the network breaks.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::{Context, Poll, ready},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};

const UNLIMITED: usize = usize::MAX;

/// How much may still be written to a connection; shared between the connection and its requests.
#[derive(Clone, Debug)]
pub(crate) struct Scissors(Arc<Cut>);

#[derive(Debug)]
struct Cut {
    bytes_left: AtomicUsize,
    reset: AtomicBool,
}

/// A connection that can be cut.
#[derive(Debug)]
pub(crate) struct CutStream {
    stream: TcpStream,
    scissors: Scissors,
}

impl Scissors {
    /// Cuts the connection after `bytes` more.
    pub(crate) fn cut_after(&self, bytes: usize) {
        self.0.bytes_left.store(bytes, Ordering::Relaxed);
    }

    /// Lets nothing more through, and resets the connection when it ends: the other side sees an error and no
    /// orderly end.
    pub(crate) fn reset(&self) {
        self.0.reset.store(true, Ordering::Relaxed);
        self.cut_after(0);
    }
}

impl CutStream {
    /// A connection that is whole.
    pub(crate) fn new(stream: TcpStream) -> Self {
        Self {
            stream,
            scissors: Scissors(Arc::new(Cut {
                bytes_left: AtomicUsize::new(UNLIMITED),
                reset: AtomicBool::new(false),
            })),
        }
    }

    /// What cuts it.
    pub(crate) fn scissors(&self) -> Scissors {
        self.scissors.clone()
    }
}

impl Drop for CutStream {
    fn drop(&mut self) {
        if self.scissors.0.reset.load(Ordering::Relaxed) {
            // Where the system refuses, the connection ends in order.
            let _ = self.stream.set_zero_linger();
        }
    }
}

impl AsyncWrite for CutStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let left = self.scissors.0.bytes_left.load(Ordering::Relaxed);
        let allowed = bytes.get(..left).unwrap_or(bytes);
        if allowed.is_empty() && !bytes.is_empty() {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let written = ready!(Pin::new(&mut self.stream).poll_write(context, allowed))?;
        if left != UNLIMITED {
            self.scissors.cut_after(left.saturating_sub(written));
        }
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

impl AsyncRead for CutStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}
