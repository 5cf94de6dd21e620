//! TLS, for a listener that other devices can reach. The certificate is read again when its files change.

use std::{
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError, RwLock},
    time::{Duration, Instant, SystemTime},
};

use rustls::{
    ServerConfig,
    client::verify_server_name,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem, pem::PemObject as _},
    server::ParsedCertificate,
};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use super::guard::{self, Names};
use crate::private_file::{self, NotPrivate, ReadError, Who};

/// How often the files are looked at, at most; and only while somebody connects.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// How a listener proves who it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificate, and those between it and its root (PEM).
    pub certificate: PathBuf,
    /// Its private key (PEM).
    pub key: PathBuf,
    /// Names under which the agent is served besides those of the certificate, such as a proxy's.
    pub names: Vec<String>,
}

/// Why a certificate cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("cannot read {path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: pem::Error,
    },
    /// Others can read the key, or own it.
    #[error(transparent)]
    NotPrivate(#[from] NotPrivate),
    /// The file holds no certificate.
    #[error("there is no certificate in {path}; it must be PEM")]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// They do not go together, or are of a kind that is not safe.
    #[error("cannot use the certificate {certificate} with the key {key}: {source}")]
    Unusable {
        /// The certificate.
        certificate: PathBuf,
        /// The key.
        key: PathBuf,
        /// Why.
        source: rustls::Error,
    },
}

/// What serves TLS.
pub struct Tls {
    files: TlsFiles,
    current: RwLock<Arc<Current>>,
    looked: Mutex<(Instant, Stamp)>,
}

struct Current {
    acceptor: TlsAcceptor,
    certificate: CertificateDer<'static>,
}

/// When the files were changed, how long they are, and who may use them.
type Stamp = [Option<(SystemTime, u64, (u32, u32))>; 2];

impl Tls {
    /// Reads the certificate and its key.
    ///
    /// # Errors
    ///
    /// [`TlsError`].
    pub fn open(files: TlsFiles) -> Result<Self, TlsError> {
        let stamp = stamp(&files);
        let current = RwLock::new(Arc::new(read(&files)?));
        Ok(Self {
            files,
            current,
            looked: Mutex::new((Instant::now(), stamp)),
        })
    }

    /// Shakes hands with a client.
    pub(super) async fn accept<S>(self: Arc<Self>, stream: S) -> io::Result<TlsStream<S>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        if self.is_time_to_look() {
            let this = Arc::clone(&self);
            // Where it fails, the certificate that was there goes on.
            let _ = tokio::task::spawn_blocking(move || this.look()).await;
        }
        let acceptor = self.current().acceptor.clone();
        acceptor.accept(stream).await
    }

    fn current(&self) -> Arc<Current> {
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(&current)
    }

    fn is_time_to_look(&self) -> bool {
        let mut looked = self.looked.lock().unwrap_or_else(PoisonError::into_inner);
        let is_time = looked.0.elapsed() >= LOOK_INTERVAL;
        if is_time {
            looked.0 = Instant::now();
        }
        is_time
    }

    fn look(&self) {
        let stamp = stamp(&self.files);
        {
            let mut looked = self.looked.lock().unwrap_or_else(PoisonError::into_inner);
            if looked.1 == stamp {
                return;
            }
            looked.1 = stamp;
        }
        match read(&self.files) {
            Ok(current) => {
                let mut slot = self.current.write().unwrap_or_else(PoisonError::into_inner);
                *slot = Arc::new(current);
                tracing::info!("the certificate was read again");
            }
            // They may be half replaced: the second file changes soon.
            Err(error) => tracing::warn!(%error, "the certificate stays as it was"),
        }
    }
}

impl Names for Tls {
    fn is_own(&self, host: &str) -> bool {
        let Some(name) = guard::without_port(host) else {
            return false;
        };
        let given = &self.files.names;
        if given.iter().any(|own| own.eq_ignore_ascii_case(name)) {
            return true;
        }
        let name = name
            .strip_prefix('[')
            .and_then(|name| name.strip_suffix(']'))
            .unwrap_or(name);
        let current = self.current();
        let (Ok(name), Ok(certificate)) = (
            ServerName::try_from(name),
            ParsedCertificate::try_from(&current.certificate),
        ) else {
            return false;
        };
        verify_server_name(&certificate, &name).is_ok()
    }

    fn scheme(&self) -> &'static str {
        "https://"
    }
}

#[cfg(unix)]
fn rights(found: &std::fs::Metadata) -> (u32, u32) {
    use std::os::unix::fs::MetadataExt as _;
    (found.mode(), found.uid())
}

#[cfg(not(unix))]
const fn rights(_found: &std::fs::Metadata) -> (u32, u32) {
    (0, 0)
}

fn stamp(files: &TlsFiles) -> Stamp {
    [&files.certificate, &files.key].map(|path| {
        let found = std::fs::metadata(path).ok()?;
        Some((found.modified().ok()?, found.len(), rights(&found)))
    })
}

fn read(files: &TlsFiles) -> Result<Current, TlsError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| TlsError::File { path, source }
    };
    let path = &files.certificate;
    let chain = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(failed(path))?;
    let certificate = chain.first().cloned().ok_or_else(|| TlsError::Empty {
        path: path.to_owned(),
    })?;
    let key = match private_file::read(&files.key, Who::OwnerAndGroup) {
        Ok(text) => PrivateKeyDer::from_pem_slice(text.expose().as_bytes()),
        Err(ReadError::Io(error)) => Err(pem::Error::Io(error)),
        Err(ReadError::NotPrivate(error)) => return Err(error.into()),
    };
    let key = key.map_err(failed(&files.key))?;
    let provider = Arc::new(aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, key));
    let mut config = config.map_err(|source| TlsError::Unusable {
        certificate: files.certificate.clone(),
        key: files.key.clone(),
        source,
    })?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Current {
        acceptor: TlsAcceptor::from(Arc::new(config)),
        certificate,
    })
}
