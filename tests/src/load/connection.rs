//! One keep-alive connection: what is sent on it, and reading an answer off it.

use std::{
    io::{self, Read as _, Write as _},
    time::Instant,
};

use anyhow::{Context as _, bail};
use mio::{Interest, Registry, Token};

use super::Target;

/// Answers are far smaller.
const ANSWER_BYTES_MAX: usize = 16 * 1024;

/// A connection, and the answer that is being read off it.
pub(super) struct Connection {
    stream: Stream,
    head: String,
    body: String,
    request: Vec<u8>,
    read: Vec<u8>,
    filled: usize,
    /// When the request left that is not answered yet.
    pub(super) sent_at: Instant,
}

enum Stream {
    Tcp(mio::net::TcpStream),
    Unix(mio::net::UnixStream),
}

impl Connection {
    pub(super) fn connect(target: &Target, body: &str) -> crate::Result<Self> {
        let (stream, host) = match target {
            Target::Tcp(address) => {
                let stream = std::net::TcpStream::connect(address)
                    .with_context(|| format!("cannot connect to {address}"))?;
                stream.set_nodelay(true)?;
                stream.set_nonblocking(true)?;
                let stream = mio::net::TcpStream::from_std(stream);
                (Stream::Tcp(stream), address.to_string())
            }
            Target::Unix(path) => {
                let stream = std::os::unix::net::UnixStream::connect(path)
                    .with_context(|| format!("cannot connect to {}", path.display()))?;
                stream.set_nonblocking(true)?;
                let stream = mio::net::UnixStream::from_std(stream);
                (Stream::Unix(stream), "localhost".to_owned())
            }
        };
        let head = format!(
            "POST /api/v4/add_consumption HTTP/1.1\r\nHost: {host}\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n",
            body.len()
        );
        Ok(Self {
            stream,
            head,
            body: body.to_owned(),
            request: Vec::new(),
            read: vec![0; ANSWER_BYTES_MAX],
            filled: 0,
            sent_at: Instant::now(),
        })
    }

    pub(super) fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        match &mut self.stream {
            Stream::Tcp(stream) => registry.register(stream, token, Interest::READABLE),
            Stream::Unix(stream) => registry.register(stream, token, Interest::READABLE),
        }
    }

    /// Sends the request, with a date and its signature.
    pub(super) fn send(&mut self, date: &str, authorization: &str) -> crate::Result {
        self.request.clear();
        for part in [
            &self.head,
            "Date: ",
            date,
            "\r\nAuthorization: ",
            authorization,
            "\r\n\r\n",
            &self.body,
        ] {
            self.request.extend_from_slice(part.as_bytes());
        }
        self.filled = 0;
        self.sent_at = Instant::now();
        let sent = match &mut self.stream {
            Stream::Tcp(stream) => stream.write(&self.request),
            Stream::Unix(stream) => stream.write(&self.request),
        };
        // The socket's buffer is empty: the answer to the last request has been read.
        anyhow::ensure!(
            sent? == self.request.len(),
            "the socket did not take a request whole"
        );
        Ok(())
    }

    /// Reads on; the status, once the answer is complete.
    pub(super) fn receive(&mut self) -> crate::Result<Option<u16>> {
        loop {
            let free = self.read.get_mut(self.filled..).unwrap_or_default();
            let read = match &mut self.stream {
                Stream::Tcp(stream) => stream.read(free),
                Stream::Unix(stream) => stream.read(free),
            };
            match read {
                Ok(0) => bail!("the agent closed a connection"),
                Ok(bytes) => self.filled += bytes,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                Err(error) => return Err(error.into()),
            }
            let answer = self.read.get(..self.filled).unwrap_or_default();
            if let Some(status) = complete(answer)? {
                return Ok(Some(status));
            }
        }
    }
}

/// The status of an answer that is all there.
fn complete(answer: &[u8]) -> crate::Result<Option<u16>> {
    let Some(end) = answer.windows(4).position(|four| four == b"\r\n\r\n") else {
        return Ok(None);
    };
    let head = std::str::from_utf8(answer.get(..end).unwrap_or_default())?;
    let mut lines = head.split("\r\n");
    let status = lines
        .next()
        .and_then(|line| line.strip_prefix("HTTP/1.1 "))
        .and_then(|line| line.get(..3)?.parse().ok())
        .with_context(|| format!("not HTTP: {head}"))?;
    let length: usize = lines
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
        .and_then(|(_, value)| value.trim().parse().ok())
        .with_context(|| format!("no length: {head}"))?;
    Ok((answer.len() >= end + 4 + length).then_some(status))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_complete_with_its_last_byte() {
        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}";
        for end in 0..answer.len() {
            assert_eq!(complete(&answer[..end]).unwrap(), None, "{end}");
        }
        assert_eq!(complete(answer).unwrap(), Some(200));
    }
}
