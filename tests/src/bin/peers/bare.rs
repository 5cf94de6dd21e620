//! The least that a server does which answers only when the disk has it: one thread reads what arrives, as long as more
//! does, overwrites 4 KiB for all of it, and answers.
//!
//! It checks nothing, decides nothing, and writes nothing that could be read again. What it takes of the processor is what
//! one `recv` and one `send` for each request and the shared wait cost, and is missing to every other server over the same
//! sockets.

use std::{
    io::{self, Read, Write},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::Context as _;
use mio::{
    Events, Interest, Poll, Token,
    event::Source,
    net::{TcpListener, UnixListener},
};
use tally_tests::{process::Process, watched::Watched};

use crate::{
    disk::Disk,
    measure::{self, Measured},
};

/// The first argument of this program where it is the server; the second one is its folder.
pub(crate) const ROLE: &str = "bare-server";

const TCP: Token = Token(0);
const UNIX: Token = Token(1);

/// More than a request of the load generator has.
const REQUEST_BYTES_MAX: usize = 4096;

/// As long as an agent's.
const ANSWER: &str = r#"{"id":1,"max_consumptions":0,"total_consumptions":1234567,"allow_unlimited_consumptions":true,"allow_negative_consumptions":false,"allow_overages":false,"max_overages":0,"reset_consumption":false,"consumption_period":null}"#;

/// The server, in a process of its own.
pub(crate) struct Bare {
    process: Process,
    socket: PathBuf,
}

impl Bare {
    pub(crate) fn start(folder: &Path) -> tally_tests::Result<Self> {
        std::fs::create_dir(folder)?;
        let mut command = Command::new(std::env::current_exe()?);
        command.arg(ROLE).arg(folder);
        Ok(Self {
            process: Process::start(&mut command, &folder.join("log"))?,
            socket: socket(folder),
        })
    }

    pub(crate) fn measure(
        &self,
        unix: bool,
        connections: usize,
        duration: Duration,
    ) -> tally_tests::Result<Measured> {
        let target = measure::target(unix, &self.socket, self.process.url())?;
        // Nobody looks at the signature, but the load generator has to make it.
        let keys = ("key".to_owned(), "secret".to_owned());
        let load = measure::load(target, connections, duration, &keys);
        let measured = measure::under(&load, Watched(self.process.id()));
        measured.with_context(|| self.process.said().unwrap_or_default())
    }
}

fn socket(folder: &Path) -> PathBuf {
    folder.join("socket")
}

/// Serves until it is killed, or (Linux) whoever started it is gone.
#[expect(clippy::print_stdout, reason = "the readiness line")]
pub(crate) fn serve(folder: &Path) -> tally_tests::Result {
    #[cfg(target_os = "linux")]
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?;
    let mut disk = Disk::create(&folder.join("disk"))?;
    let mut server = Server::bind(folder)?;
    println!("ready http://{}", server.tcp.local_addr()?);
    let answer = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\
         date: Thu, 26 Nov 2026 12:00:00 GMT\r\n\r\n{ANSWER}",
        ANSWER.len()
    );
    let mut events = Events::with_capacity(1024);
    let mut asking = Vec::new();
    loop {
        server.wait(&mut events, None)?;
        loop {
            let before = asking.len();
            server.read(&events, &mut asking)?;
            if asking.len() == before {
                break;
            }
            server.wait(&mut events, Some(Duration::ZERO))?;
        }
        if !asking.is_empty() {
            disk.overwrite()?;
        }
        for token in asking.drain(..) {
            server.answer(token, answer.as_bytes());
        }
    }
}

struct Server {
    poll: Poll,
    tcp: TcpListener,
    unix: UnixListener,
    /// By their token; one that was closed leaves its place empty.
    connections: Vec<Option<Box<dyn Stream>>>,
}

trait Stream: Source + Read + Write {}

impl<S: Source + Read + Write> Stream for S {}

impl Server {
    fn bind(folder: &Path) -> io::Result<Self> {
        let poll = Poll::new()?;
        let mut tcp = TcpListener::bind(([127, 0, 0, 1], 0).into())?;
        let mut unix = UnixListener::bind(socket(folder))?;
        let listen = Interest::READABLE;
        poll.registry().register(&mut tcp, TCP, listen)?;
        poll.registry().register(&mut unix, UNIX, listen)?;
        Ok(Self {
            poll,
            tcp,
            unix,
            connections: vec![None, None],
        })
    }

    fn wait(&mut self, events: &mut Events, timeout: Option<Duration>) -> io::Result<()> {
        match self.poll.poll(events, timeout) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => Err(error),
            _ => Ok(()),
        }
    }

    /// Adds the connections that have sent a request. One that is new has not, or is told of once more.
    fn read(&mut self, events: &Events, asking: &mut Vec<Token>) -> io::Result<()> {
        for event in events {
            match event.token() {
                TCP => {
                    while let Some((stream, _)) = unless_blocked(self.tcp.accept())? {
                        stream.set_nodelay(true)?;
                        self.add(Box::new(stream))?;
                    }
                }
                UNIX => {
                    while let Some((stream, _)) = unless_blocked(self.unix.accept())? {
                        self.add(Box::new(stream))?;
                    }
                }
                token => {
                    if self.asks(token) {
                        asking.push(token);
                    }
                }
            }
        }
        Ok(())
    }

    fn add(&mut self, mut stream: Box<dyn Stream>) -> io::Result<()> {
        // The listeners have the first tokens.
        let free = self.connections.iter().skip(2).position(Option::is_none);
        let at = free.map_or(self.connections.len(), |free| free + 2);
        let registry = self.poll.registry();
        registry.register(&mut stream, Token(at), Interest::READABLE)?;
        match self.connections.get_mut(at) {
            Some(place) => *place = Some(stream),
            None => self.connections.push(Some(stream)),
        }
        Ok(())
    }

    /// Whether a whole request has come: the load generator sends each in one piece.
    fn asks(&mut self, token: Token) -> bool {
        let Some(connection) = self.connections.get_mut(token.0) else {
            return false;
        };
        let mut request = [0; REQUEST_BYTES_MAX];
        let read = match connection {
            Some(stream) => stream.read(&mut request),
            None => return false,
        };
        match read {
            Ok(bytes) if bytes > 0 => return true,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            // The load is over: its connections are closed or reset.
            _ => *connection = None,
        }
        false
    }

    fn answer(&mut self, token: Token, answer: &[u8]) {
        if let Some(connection) = self.connections.get_mut(token.0)
            && let Some(stream) = connection
            && stream.write_all(answer).is_err()
        {
            // The load is over, and who asked is gone.
            *connection = None;
        }
    }
}

fn unless_blocked<T>(done: io::Result<T>) -> io::Result<Option<T>> {
    match done {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
        done => done.map(Some),
    }
}
