//! nginx and HAProxy, each with a configuration of its own, a port of its own and a folder of its own, as a process in
//! the foreground that ends with the test.

use std::{
    fs::File,
    net::{SocketAddr, TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
};

use anyhow::{Context as _, bail};
use tally_tests::wait;
use tempfile::TempDir;

/// How often another port is tried, where somebody took the one that was free.
const TRIES: usize = 3;

/// A gateway that is a program.
#[derive(Clone, Copy, Debug)]
pub(super) enum Program {
    /// nginx that sends a request again where the answer was lost.
    Nginx,
    /// nginx that keeps answers to look-ups, and sends nothing again.
    NginxCache,
    Haproxy,
}

/// A running gateway.
pub(super) struct Running {
    child: Child,
    address: SocketAddr,
    _folder: TempDir,
}

impl Program {
    /// Starts it before two entries that lead to the same server.
    pub(super) fn start(self, servers: [SocketAddr; 2]) -> tally_tests::Result<Running> {
        let mut last = None;
        for _ in 0..TRIES {
            match self.try_start(servers) {
                Ok(running) => return Ok(running),
                Err(error) => last = Some(error),
            }
        }
        Err(last.context("no try")?)
    }

    fn try_start(self, servers: [SocketAddr; 2]) -> tally_tests::Result<Running> {
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let folder = TempDir::new()?;
        let file = folder.path().join("gateway.conf");
        std::fs::write(&file, self.configuration(folder.path(), address, servers))?;
        let log = folder.path().join("gateway.log");
        let child = self
            .command(&file, folder.path())
            .stdin(Stdio::null())
            .stdout(File::create(folder.path().join("out"))?)
            .stderr(File::create(&log)?)
            .spawn()
            .with_context(|| format!("cannot start {self:?}; tests/gateways/run installs it"))?;
        let mut running = Running {
            child,
            address,
            _folder: folder,
        };
        let served = wait::until("the gateway", || running.serves(), Option::is_some);
        if served?.context("a state")? {
            return Ok(running);
        }
        bail!(
            "{self:?} ended at once: {}",
            std::fs::read_to_string(log).unwrap_or_default()
        )
    }

    fn command(self, file: &Path, folder: &Path) -> Command {
        match self {
            Self::Nginx | Self::NginxCache => {
                let mut command = Command::new("nginx");
                command.arg("-p").arg(folder).arg("-c").arg(file);
                command.args(["-e", "stderr"]);
                command
            }
            Self::Haproxy => {
                let mut command = Command::new("haproxy");
                command.arg("-db").arg("-f").arg(file);
                command
            }
        }
    }

    fn configuration(self, folder: &Path, address: SocketAddr, servers: [SocketAddr; 2]) -> String {
        match self {
            Self::Nginx => nginx(
                folder,
                address,
                servers,
                "",
                "proxy_next_upstream error timeout non_idempotent;",
            ),
            Self::NginxCache => {
                let kept = format!(
                    "proxy_cache_path {} keys_zone=answers:1m;",
                    folder.join("cache").display()
                );
                nginx(
                    folder,
                    address,
                    servers,
                    &kept,
                    "proxy_next_upstream off;
                    proxy_cache answers;
                    proxy_cache_valid 200 15m;
                    proxy_ignore_headers Cache-Control Expires Vary;",
                )
            }
            Self::Haproxy => format!(
                "global
                    maxconn 1024
                defaults
                    mode http
                    timeout connect 5s
                    timeout client 60s
                    timeout server 60s
                    retries 3
                    option redispatch
                    retry-on all-retryable-errors
                frontend gateway
                    bind {address}
                    default_backend licences
                backend licences
                    balance roundrobin
                    server one {}
                    server two {}\n",
                servers[0], servers[1]
            ),
        }
    }
}

/// A configuration of nginx; `http` and `location` are what is its own in these two blocks.
fn nginx(
    folder: &Path,
    address: SocketAddr,
    [one, two]: [SocketAddr; 2],
    http: &str,
    location: &str,
) -> String {
    // `max_fails=0`: a server that lost answers is not left out for a while, or nothing would be repeated.
    format!(
        "daemon off;
        master_process off;
        pid {folder}/pid;
        error_log stderr crit;
        events {{ worker_connections 1024; }}
        http {{
            access_log off;
            client_body_temp_path {folder}/body;
            proxy_temp_path {folder}/proxy;
            fastcgi_temp_path {folder}/fastcgi;
            uwsgi_temp_path {folder}/uwsgi;
            scgi_temp_path {folder}/scgi;
            {http}
            upstream licences {{
                server {one} max_fails=0;
                server {two} max_fails=0;
                keepalive 32;
            }}
            server {{
                listen {address};
                location / {{
                    proxy_pass http://licences;
                    proxy_http_version 1.1;
                    proxy_set_header Connection '';
                    proxy_set_header Host $http_host;
                    {location}
                }}
            }}
        }}\n",
        folder = folder.display(),
    )
}

impl Running {
    /// Where it listens.
    pub(super) const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Whether it serves; `Some(false)` where it has ended.
    fn serves(&mut self) -> tally_tests::Result<Option<bool>> {
        if self.child.try_wait()?.is_some() {
            return Ok(Some(false));
        }
        Ok(TcpStream::connect(self.address).is_ok().then_some(true))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
