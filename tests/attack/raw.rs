//! A connection that sends what it is told to, byte by byte.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use anyhow::Context as _;
use serde_json::Value;
use tally_tests::Result;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// A connection.
pub(crate) struct Raw(TcpStream);

/// What came back.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Raw {
    pub(crate) fn connect(address: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect_timeout(&address, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        stream.set_nodelay(true)?;
        Ok(Self(stream))
    }

    pub(crate) fn send(&mut self, bytes: &[u8]) -> Result {
        Ok(self.0.write_all(bytes)?)
    }

    /// Sends nothing more.
    pub(crate) fn finish(&mut self) -> Result {
        match self.0.shutdown(std::net::Shutdown::Write) {
            // The other end was faster.
            Err(error) if error.kind() == std::io::ErrorKind::NotConnected => Ok(()),
            other => Ok(other?),
        }
    }

    /// The next answer; `None` where the connection ends without one.
    pub(crate) fn answer(&mut self) -> Result<Option<Answer>> {
        let mut read = Vec::new();
        let head_end = loop {
            if let Some(end) = read.windows(4).position(|four| four == b"\r\n\r\n") {
                break end + 4;
            }
            if !self.more(&mut read)? {
                return Ok(None);
            }
        };
        let head = String::from_utf8_lossy(&read[..head_end]).into_owned();
        let status = head.split(' ').nth(1).context("a status")?.parse()?;
        let length: usize = header(&head, "content-length").map_or(Ok(0), str::parse)?;
        while read.len() < head_end + length && self.more(&mut read)? {}
        let body = String::from_utf8_lossy(&read[head_end..]).into_owned();
        Ok(Some(Answer { status, head, body }))
    }

    /// Waits until the other end closes; says what else came.
    pub(crate) fn closed(&mut self) -> Result<Vec<u8>> {
        let mut rest = Vec::new();
        while self.more(&mut rest)? {}
        Ok(rest)
    }

    fn more(&mut self, into: &mut Vec<u8>) -> Result<bool> {
        let mut buffer = [0; 4096];
        match self.0.read(&mut buffer) {
            Ok(length) => {
                into.extend_from_slice(&buffer[..length]);
                Ok(length > 0)
            }
            // Closed while we were sending.
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => Ok(false),
            Err(error) => Err(error).context("waiting for the agent"),
        }
    }
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        header(&self.head, name)
    }

    /// The code, where it is an error in the contract's form: exactly these three fields.
    pub(crate) fn code(&self) -> Option<String> {
        let body: Value = serde_json::from_str(&self.body).ok()?;
        let fields = body.as_object()?;
        let is_error =
            fields.len() == 3 && fields.get("status")?.as_u64()? == u64::from(self.status);
        is_error.then(|| fields.get("code")?.as_str().map(str::to_owned))?
    }
}

fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines()
        .filter_map(|line| line.split_once(':'))
        .find_map(|(found, value)| found.eq_ignore_ascii_case(name).then(|| value.trim()))
}
