//! Evidence that the ledger was changed behind the agent's back: the chain's key, and a mark outside the
//! database that says how far it had come.
//!
//! The mark is written after each commit and never waits for the disk: after a power loss it may be
//! older than the ledger, never newer. So a ledger that is behind its mark was put back from a copy, or
//! its end was cut off. `docs/evidence.md` says what this shows and what it does not.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use rusqlite::Connection;
use zeroize::Zeroizing;

use super::{
    LedgerError,
    known::Known,
    store::{self, Placed},
    verify,
};
use crate::{
    core::{
        book::{Contents, Seq},
        chain::{self, Hash},
        doubt::Doubt,
    },
    private_file,
    secret::Secret,
};

/// Each slot has a sector of its own, so that a write that is cut off leaves the other whole.
const SLOT_BYTES: usize = 512;

const SLOTS: usize = 2;

const MAGIC: &[u8; 8] = b"tallymk1";

/// The newest rows that are looked at in each start: a hundredth of a second.
const RECENT_ROWS: i64 = 10_000;

/// What one mark takes.
pub const MARK_BYTES: usize = 8 + 3 * 8 + 2 * 32;

/// Where marks are kept: a file beside the ledger, or a simulated one.
pub trait Marks: Send {
    /// What stands in each slot; nothing where there never was a mark.
    ///
    /// # Errors
    ///
    /// What the system says.
    fn read(&mut self) -> io::Result<Vec<[u8; MARK_BYTES]>>;

    /// Writes a slot. The first one is durable when this returns; later ones need not be.
    ///
    /// # Errors
    ///
    /// What the system says.
    fn write(&mut self, slot: usize, mark: &[u8; MARK_BYTES]) -> io::Result<()>;

    /// Looks for the place anew: what was there may be gone. The next one written is durable again.
    fn renew(&mut self) {}
}

/// Marks in a file.
pub struct MarkFile {
    path: PathBuf,
    file: Option<fs::File>,
}

impl MarkFile {
    /// The file need not exist.
    pub const fn new(path: PathBuf) -> Self {
        Self { path, file: None }
    }
}

impl Marks for MarkFile {
    fn read(&mut self) -> io::Result<Vec<[u8; MARK_BYTES]>> {
        let bytes = match fs::read(&self.path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let slots = bytes.chunks(SLOT_BYTES).take(SLOTS);
        let marks = slots.filter_map(|slot| slot.first_chunk().copied());
        Ok(marks.collect())
    }

    fn write(&mut self, slot: usize, mark: &[u8; MARK_BYTES]) -> io::Result<()> {
        if self.file.is_none() {
            if !self.path.exists() {
                private_file::create(&self.path, &[0; SLOTS * SLOT_BYTES])?;
            }
            let file = fs::OpenOptions::new().write(true).open(&self.path)?;
            write_at(&file, slot, mark)?;
            file.sync_all()?;
            self.file = Some(file);
            return Ok(());
        }
        self.file
            .as_ref()
            .map_or(Ok(()), |file| write_at(file, slot, mark))
    }

    fn renew(&mut self) {
        self.file = None;
    }
}

#[cfg(unix)]
fn write_at(file: &fs::File, slot: usize, bytes: &[u8]) -> io::Result<()> {
    std::os::unix::fs::FileExt::write_all_at(file, bytes, (slot * SLOT_BYTES) as u64)
}

#[cfg(windows)]
fn write_at(file: &fs::File, slot: usize, bytes: &[u8]) -> io::Result<()> {
    let at = (slot * SLOT_BYTES) as u64;
    match std::os::windows::fs::FileExt::seek_write(file, bytes, at)? {
        written if written == bytes.len() => Ok(()),
        _ => Err(io::ErrorKind::WriteZero.into()),
    }
}

/// How far the ledger had come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Mark {
    /// Which of the marks is the newest.
    counter: u64,
    /// How many commits of more than rows there were.
    generation: u64,
    /// The newest place, and its hash.
    head: (Seq, Hash),
}

impl Mark {
    fn to_bytes(self, key: &chain::Key) -> [u8; MARK_BYTES] {
        let mut bytes = [0; MARK_BYTES];
        let numbers = [
            self.counter.to_be_bytes(),
            self.generation.to_be_bytes(),
            self.head.0.0.to_be_bytes(),
        ];
        let parts = [MAGIC.as_slice(), numbers.as_flattened(), &self.head.1.0];
        let said = parts.concat();
        let seal = key.seal(b"mark", &said);
        for (to, from) in bytes.iter_mut().zip(said.iter().chain(&seal.0)) {
            *to = *from;
        }
        bytes
    }

    fn from_bytes(bytes: &[u8; MARK_BYTES], key: &chain::Key) -> Option<Self> {
        let (magic, rest) = bytes.split_first_chunk::<8>()?;
        let (counter, rest) = rest.split_first_chunk::<8>()?;
        let (generation, rest) = rest.split_first_chunk::<8>()?;
        let (seq, rest) = rest.split_first_chunk::<8>()?;
        let hash = rest.first_chunk::<32>()?;
        let mark = Self {
            counter: u64::from_be_bytes(*counter),
            generation: u64::from_be_bytes(*generation),
            head: (Seq(i64::from_be_bytes(*seq)), Hash(*hash)),
        };
        // Marks are no secret, and nobody can try seals here.
        (magic == MAGIC && mark.to_bytes(key) == *bytes).then_some(mark)
    }
}

/// The newest valid mark.
fn newest(marks: &mut dyn Marks, key: &chain::Key) -> io::Result<Option<Mark>> {
    let found = marks.read()?.into_iter();
    let valid = found.filter_map(|bytes| Mark::from_bytes(&bytes, key));
    Ok(valid.max_by_key(|mark| mark.counter))
}

/// How far a ledger had come by the newest valid mark: its generation and its newest place.
///
/// # Errors
///
/// [`LedgerError::Mark`].
pub(super) fn marked(path: &Path, key: &chain::Key) -> Result<Option<(u64, Seq)>, LedgerError> {
    let mark = newest(&mut MarkFile::new(path.to_owned()), key);
    let mark = mark.map_err(|source| LedgerError::Mark { source })?;
    Ok(mark.map(|mark| (mark.generation, mark.head.0)))
}

/// Reads the chain's key, or makes one.
///
/// # Errors
///
/// [`LedgerError::Key`].
pub fn open_key(path: &Path) -> Result<chain::Key, LedgerError> {
    match read_key(path) {
        Err(LedgerError::Key { source, .. }) if source.kind() == io::ErrorKind::NotFound => {}
        other => return other,
    }
    let failed = |source| LedgerError::Key {
        path: path.to_owned(),
        source,
    };
    let secret = Secret::random::<32>().map_err(|error| failed(io::Error::other(error)))?;
    let content = Secret::new(format!("{}\n", secret.expose()));
    private_file::create(path, content.expose().as_bytes()).map_err(failed)?;
    Ok(chain::Key::new(secret.expose().as_bytes()))
}

/// Reads the chain's key.
///
/// # Errors
///
/// [`LedgerError::Key`].
pub fn read_key(path: &Path) -> Result<chain::Key, LedgerError> {
    let failed = |source| LedgerError::Key {
        path: path.to_owned(),
        source,
    };
    let text = Zeroizing::new(fs::read_to_string(path).map_err(failed)?);
    match text.trim() {
        // A key that everybody knows would prove nothing.
        "" => Err(failed(io::Error::other("it is empty"))),
        secret => Ok(chain::Key::new(secret.as_bytes())),
    }
}

/// What guards a ledger that is being written.
pub struct Evidence {
    key: chain::Key,
    marks: Box<dyn Marks>,
    counter: u64,
    generation: u64,
    /// Whether the ledger says which key it has.
    is_introduced: bool,
    is_failing: bool,
}

impl Evidence {
    /// With the chain's key, and where marks are kept.
    pub fn new(key: chain::Key, marks: Box<dyn Marks>) -> Self {
        Self {
            key,
            marks,
            counter: 0,
            generation: 0,
            is_introduced: false,
            is_failing: false,
        }
    }

    /// What the chain is keyed with.
    pub const fn key(&self) -> &chain::Key {
        &self.key
    }

    /// Compares a ledger at its start with what guards it. Looks at the mark, at the sums' seals, and at
    /// the newest rows.
    pub(super) fn examine(
        &mut self,
        connection: &Connection,
        contents: &Contents,
    ) -> Result<Vec<Doubt>, LedgerError> {
        let head = contents.head.0;
        let fingerprint = store::chain_key(connection)?;
        let generation = store::generation(connection)?;
        let mark = newest(self.marks.as_mut(), &self.key);
        let mark = mark.map_err(|source| LedgerError::Mark { source })?;
        self.is_introduced = fingerprint.as_deref() == Some(&self.key.fingerprint());
        self.counter = mark.map_or(0, |mark| mark.counter);
        self.generation = generation.unwrap_or(0);
        let is_new = head == Seq(0) && generation.is_none() && fingerprint.is_none();
        if let Some(mark) = mark {
            self.generation = self.generation.max(mark.generation);
        } else if is_new {
            // Before anything else is written: from here on, a mark that is gone was taken away.
            self.mark(contents.head);
        }
        if !self.is_introduced && !is_new {
            return Ok(vec![Doubt::KeyReplaced]);
        }
        let mut doubts = Vec::new();
        match mark {
            Some(mark) => doubts.extend(compare(connection, contents, generation, &mark)?),
            None if is_new => {}
            None => doubts.push(Doubt::MarkLost),
        }
        doubts.extend(verify::recent(connection, &self.key, RECENT_ROWS)?);
        Ok(doubts)
    }

    /// Writes what a commit must say of itself, within its transaction.
    pub(super) fn write(
        &self,
        connection: &Connection,
        is_structural: bool,
    ) -> rusqlite::Result<()> {
        if is_structural {
            store::write_generation(connection, self.generation + 1)?;
        }
        if !self.is_introduced {
            store::write_chain_key(connection, &self.key.fingerprint())?;
        }
        Ok(())
    }

    /// Notes that a commit is on disk.
    pub(super) fn committed(&mut self, head: (Seq, Hash), is_structural: bool) {
        self.generation += u64::from(is_structural);
        self.is_introduced = true;
        self.mark(head);
    }

    /// Marks how far the ledger has come in a file that may have to be made again.
    pub(super) fn renew(&mut self, head: (Seq, Hash)) {
        self.marks.renew();
        self.mark(head);
    }

    /// How many commits of more than rows there were.
    pub(super) const fn generation(&self) -> u64 {
        self.generation
    }

    fn mark(&mut self, head: (Seq, Hash)) {
        self.counter += 1;
        let mark = Mark {
            counter: self.counter,
            generation: self.generation,
            head,
        };
        let slot = usize::from(self.counter % 2 == 1);
        let written = self.marks.write(slot, &mark.to_bytes(&self.key));
        if let Err(error) = &written
            && !self.is_failing
        {
            tracing::warn!(%error, "the mark beside the ledger cannot be written");
        }
        self.is_failing = written.is_err();
    }
}

/// What the mark says of the ledger.
fn compare(
    connection: &Connection,
    contents: &Contents,
    generation: Option<u64>,
    mark: &Mark,
) -> Result<Option<Doubt>, LedgerError> {
    let (newest, (marked, hash)) = (contents.head.0, mark.head);
    let generations = mark.generation.saturating_sub(generation.unwrap_or(0));
    if marked > newest || generations > 0 {
        return Ok(Some(Doubt::OlderCopy {
            marked,
            generations,
        }));
    }
    if marked == Seq(0) {
        return Ok(None);
    }
    let is_same = match store::hash_at(connection, marked)? {
        Placed::Hash(found) => found == hash,
        Placed::Folded => true,
        Placed::Nothing => {
            let known = Known::read(connection);
            let known = known.map_err(LedgerError::while_doing("reading what is known of it"))?;
            known.is_missing((marked.0, marked.0))
        }
    };
    Ok((!is_same).then_some(Doubt::Rewritten { marked }))
}

/// What the mark beside a ledger says of it, for who only reads. The mark must be read before the
/// ledger: it only goes forward.
///
/// # Errors
///
/// [`LedgerError`] where either cannot be read.
pub fn compare_with_mark(
    marks: &mut dyn Marks,
    key: &chain::Key,
    open: impl FnOnce() -> Result<Connection, LedgerError>,
) -> Result<(Connection, Option<Doubt>), LedgerError> {
    let mark = newest(marks, key).map_err(|source| LedgerError::Mark { source })?;
    let connection = open()?;
    let contents = store::load(&connection, key)?;
    let fingerprint = store::chain_key(&connection)?;
    let generation = store::generation(&connection)?;
    let is_new = contents.head.0 == Seq(0) && generation.is_none() && fingerprint.is_none();
    let doubt = match mark {
        _ if !is_new && fingerprint.as_deref() != Some(&key.fingerprint()) => {
            Some(Doubt::KeyReplaced)
        }
        Some(mark) => compare(&connection, &contents, generation, &mark)?,
        None => (!is_new).then_some(Doubt::MarkLost),
    };
    Ok((connection, doubt))
}
