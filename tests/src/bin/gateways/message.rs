//! An HTTP/1.1 message as it goes over a connection: the first line, the headers, a body of a stated length.
//!
//! The programs under test send no other kind, and a proxy of this test needs no more of HTTP than that. One moment
//! matters to it more than to any library: whether the other side closed before its first byte, or after.

use std::{fmt::Write as _, io};

use tokio::io::{
    AsyncBufRead, AsyncBufReadExt as _, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _,
};

/// A request or an answer.
#[derive(Clone, Debug)]
pub(super) struct Message {
    /// The first line, without its end.
    pub(super) start: String,
    /// The headers, in their order, as they were written.
    pub(super) headers: Vec<(String, String)>,
    /// The body.
    pub(super) body: Vec<u8>,
}

/// Why no answer could be read.
#[derive(Debug)]
pub(super) enum Unread {
    /// The connection ended, or failed, before the first byte.
    BeforeFirstByte,
    /// The connection ended later, or what came is not HTTP.
    Later,
}

impl Message {
    /// An answer of a proxy itself, as a gateway gives it where the server did not answer.
    pub(super) fn bad_gateway() -> Self {
        let body = b"<html><body><h1>502 Bad Gateway</h1></body></html>\n".to_vec();
        Self {
            start: "HTTP/1.1 502 Bad Gateway".to_owned(),
            headers: vec![
                ("Content-Type".to_owned(), "text/html".to_owned()),
                ("Content-Length".to_owned(), body.len().to_string()),
            ],
            body,
        }
    }

    /// An answer of something that bounds the rate of requests.
    pub(super) fn too_many() -> Self {
        Self {
            start: "HTTP/1.1 429 Too Many Requests".to_owned(),
            headers: vec![("Content-Length".to_owned(), "0".to_owned())],
            body: Vec::new(),
        }
    }

    /// Reads one message.
    pub(super) async fn read(from: &mut (impl AsyncBufRead + Unpin)) -> Result<Self, Unread> {
        match from.fill_buf().await {
            Ok([]) | Err(_) => return Err(Unread::BeforeFirstByte),
            Ok(_) => {}
        }
        Self::read_begun(from).await.map_err(|_| Unread::Later)
    }

    async fn read_begun(from: &mut (impl AsyncBufRead + Unpin)) -> io::Result<Self> {
        let start = line(from).await?;
        let mut headers = Vec::new();
        loop {
            let line = line(from).await?;
            if line.is_empty() {
                break;
            }
            let (name, value) = line.split_once(':').ok_or(io::ErrorKind::InvalidData)?;
            headers.push((name.to_owned(), value.trim().to_owned()));
        }
        let mut message = Self {
            start,
            headers,
            body: Vec::new(),
        };
        if message.header("transfer-encoding").is_some() {
            // Nothing here sends one; read as a message without a body, it would be misunderstood.
            return Err(io::ErrorKind::Unsupported.into());
        }
        let length = match message.header("content-length") {
            Some(length) => length.parse().map_err(|_| io::ErrorKind::InvalidData)?,
            None => 0,
        };
        message.body = vec![0; length];
        from.read_exact(&mut message.body).await?;
        Ok(message)
    }

    /// Writes it. What it says of the connection is left out: each side of a proxy has its own.
    pub(super) async fn write(&self, to: &mut (impl AsyncWrite + Unpin)) -> io::Result<()> {
        let mut head = format!("{}\r\n", self.start);
        for (name, value) in &self.headers {
            if !name.eq_ignore_ascii_case("connection") && !name.eq_ignore_ascii_case("keep-alive")
            {
                // Writing to a string does not fail.
                let _ = write!(head, "{name}: {value}\r\n");
            }
        }
        head.push_str("\r\n");
        let mut bytes = head.into_bytes();
        bytes.extend_from_slice(&self.body);
        to.write_all(&bytes).await
    }

    /// The value of a header.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        let mut all = self.headers.iter();
        let found = all.find(|(other, _)| other.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }

    /// Sets a header, in the place of an older one.
    pub(super) fn set_header(&mut self, name: &str, value: String) {
        self.headers
            .retain(|(other, _)| !other.eq_ignore_ascii_case(name));
        self.headers.push((name.to_owned(), value));
    }

    /// Gives it another body.
    pub(super) fn set_body(&mut self, body: Vec<u8>) {
        self.set_header("Content-Length", body.len().to_string());
        self.body = body;
    }

    /// The method of a request.
    pub(super) fn method(&self) -> &str {
        self.start.split(' ').next().unwrap_or_default()
    }

    /// The path and query of a request.
    pub(super) fn target(&self) -> &str {
        self.start.split(' ').nth(1).unwrap_or_default()
    }

    /// Whether it is an answer with status 200.
    pub(super) fn is_ok(&self) -> bool {
        self.start.split(' ').nth(1) == Some("200")
    }
}

async fn line(from: &mut (impl AsyncBufRead + Unpin)) -> io::Result<String> {
    let mut line = String::new();
    from.read_line(&mut line).await?;
    match line.strip_suffix("\r\n") {
        Some(text) => Ok(text.to_owned()),
        None => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}
