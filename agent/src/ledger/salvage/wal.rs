//! The write-ahead log, frame by frame.
//!
//! SQLite ends its reading at the first frame that is not right, and says nothing: to it, a damaged
//! log is a shorter one, and what was acknowledged in the rest is forgotten. Each frame's checksum goes
//! on from the frame before it, so a frame behind a damaged one can still be proved. And how far the log
//! went is written in the index beside it as well, after the log itself is on disk: a log that is
//! shorter than that has lost commits.

use std::{
    collections::BTreeMap,
    io::{self, BufReader, Read, Seek as _, SeekFrom},
    path::Path,
};

use super::image::PAGE_BYTES;
use crate::ledger::beside;

const HEADER_BYTES: usize = 32;
const FRAME_HEADER_BYTES: usize = 24;
const MAGIC: u32 = 0x377f_0682;
const VERSION: u32 = 3_007_000;

/// What the log holds of the database's pages.
#[derive(Debug, Default)]
pub(super) struct Wal {
    /// Where the newest committed version of each page begins.
    pub(super) pages: BTreeMap<u32, u64>,
    /// How many pages the database has, by the newest commit.
    pub(super) page_count: u32,
    /// How many frames of finished commits cannot be read.
    pub(super) lost: usize,
    /// Whether SQLite would overlook finished commits.
    pub(super) is_damaged: bool,
}

struct Frame {
    page: u32,
    commit: u32,
    offset: u64,
    salts: [u8; 8],
    is_right: bool,
}

impl Frame {
    /// Whether nothing was ever written here.
    fn is_blank(&self) -> bool {
        self.page == 0 && self.commit == 0 && self.salts == [0; 8]
    }
}

type Sums = (u32, u32);

/// Reads the log of a ledger, which may not exist. Before SQLite opens it: that writes the index anew.
pub(super) fn read(ledger: &Path) -> io::Result<Wal> {
    let index = read_index(&beside(ledger, "-shm"))?;
    let without = |index: Option<Index>| {
        let lost = index.map_or(0, |index| index.count(None));
        Wal {
            lost,
            is_damaged: lost > 0,
            ..Wal::default()
        }
    };
    let file = match std::fs::File::open(beside(ledger, "-wal")) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(without(index)),
        Err(error) => return Err(error),
    };
    let mut file = BufReader::with_capacity(1 << 18, file);
    let mut header = [0; HEADER_BYTES];
    if !read_whole(&mut file, &mut header)? {
        return Ok(without(index));
    }
    let begin = read_header(&header);
    let mut frames = read_frames(&mut file, &header, begin)?;
    // The log is made at its full length, of zeros.
    let written = frames.iter().rposition(|frame| !frame.is_blank());
    frames.truncate(written.map_or(0, |last| last + 1));
    let salts = begin.and_then(|_| header.get(16..24)?.try_into().ok());
    let count = index.map_or(0, |index| index.count(salts));
    let proved = frames.iter().find(|frame| frame.is_right);
    let salts = salts
        .or_else(|| Some(index?.salts))
        .or_else(|| Some(proved?.salts));
    for frame in &mut frames {
        frame.is_right &= Some(frame.salts) == salts && frame.page > 0;
    }
    // Without the header, nothing proves the first frame but that the second goes on from it.
    if let [first, second, ..] = frames.as_mut_slice() {
        let goes_on = second.is_right && Some(first.salts) == salts;
        first.is_right |= begin.is_none() && goes_on && first.page > 0;
    }
    Ok(sort_out(&frames, begin.is_some(), count))
}

/// What the index says of the log.
#[derive(Clone, Copy)]
struct Index {
    frames: u32,
    /// Those that are in the database already.
    copied: u32,
    salts: [u8; 8],
}

impl Index {
    /// How many frames the log with these salts must have. One of another time has none to miss.
    fn count(self, salts: Option<[u8; 8]>) -> usize {
        let is_of_it = salts.is_none_or(|salts| salts == self.salts);
        if is_of_it && self.frames > self.copied {
            usize::try_from(self.frames).unwrap_or(0)
        } else {
            0
        }
    }
}

/// Reads the index's header, which stands there twice, in the byte order of the device.
fn read_index(path: &Path) -> io::Result<Option<Index>> {
    let mut bytes = [0; 100];
    let mut file = match std::fs::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    if !read_whole(&mut file, &mut bytes)? {
        return Ok(None);
    }
    let word = |at: usize| {
        let word = bytes
            .get(at..at + 4)
            .and_then(|bytes| bytes.try_into().ok());
        u32::from_ne_bytes(word.unwrap_or_default())
    };
    let (first, second) = (bytes.get(..48), bytes.get(48..96));
    let is_big_endian = cfg!(target_endian = "big");
    let sums = checksum((0, 0), bytes.get(..40).unwrap_or_default(), is_big_endian);
    let is_right = first == second && word(0) == VERSION && sums == (word(40), word(44));
    let salts = bytes.get(32..40).and_then(|salts| salts.try_into().ok());
    Ok(salts.filter(|_| is_right).map(|salts| Index {
        frames: word(16),
        copied: word(96),
        salts,
    }))
}

/// The checksums that the first frame goes on from, where the header is right.
fn read_header(header: &[u8; HEADER_BYTES]) -> Option<Sums> {
    let magic = number(header, 0);
    let size = usize::try_from(number(header, 8)).ok()?;
    let known = magic & !1 == MAGIC && number(header, 4) == VERSION && size == PAGE_BYTES;
    let sums = checksum((0, 0), header.get(..24)?, magic & 1 == 1);
    let stored = (number(header, 24), number(header, 28));
    (known && sums == stored).then_some(stored)
}

fn read_frames(
    file: &mut BufReader<std::fs::File>,
    header: &[u8; HEADER_BYTES],
    begin: Option<Sums>,
) -> io::Result<Vec<Frame>> {
    let is_big_endian = begin.is_some() && number(header, 0) & 1 == 1;
    let mut sums = begin;
    let mut frames = Vec::new();
    let mut frame = [0; FRAME_HEADER_BYTES + PAGE_BYTES];
    let mut offset = file.seek(SeekFrom::Start(HEADER_BYTES as u64))?;
    while read_whole(file, &mut frame)? {
        let salts = frame.get(8..16).and_then(|salts| salts.try_into().ok());
        let stored = (number(&frame, 16), number(&frame, 20));
        let expected = sums.map(|sums| {
            let sums = checksum(sums, frame.get(..8).unwrap_or_default(), is_big_endian);
            let page = frame.get(FRAME_HEADER_BYTES..).unwrap_or_default();
            checksum(sums, page, is_big_endian)
        });
        frames.push(Frame {
            page: number(&frame, 0),
            commit: number(&frame, 4),
            offset: offset + FRAME_HEADER_BYTES as u64,
            salts: salts.unwrap_or_default(),
            is_right: expected == Some(stored),
        });
        sums = Some(stored);
        offset += frame.len() as u64;
    }
    Ok(frames)
}

/// `count` is how many frames there must be, as far as that is known.
fn sort_out(frames: &[Frame], header_is_right: bool, count: usize) -> Wal {
    let is_commit = |frame: &&Frame| frame.is_right && frame.commit > 0;
    let first_wrong = frames.iter().position(|frame| !frame.is_right);
    let first_wrong = first_wrong.unwrap_or(frames.len());
    let behind = frames.get(first_wrong..).unwrap_or_default();
    // Frames of one commit may reach the disk in any order, and a power cut may keep the later ones of
    // a commit that was never acknowledged. Behind that commit's end, there is no such excuse.
    let ended = behind.first().is_some_and(|frame| frame.commit > 0)
        || behind
            .iter()
            .position(|frame| is_commit(&frame))
            .is_some_and(|end| {
                let later = behind.get(end + 1..).unwrap_or_default();
                later.iter().any(|frame| is_commit(&frame))
            });
    let is_damaged = if header_is_right {
        first_wrong < count || ended && behind.iter().any(|frame| is_commit(&frame))
    } else {
        // Where its writing was cut off, the frames are old ones, and bring nothing new.
        count > 0 || !frames.is_empty()
    };
    let readable = if is_damaged {
        frames
    } else {
        frames.get(..first_wrong).unwrap_or_default()
    };
    let end = readable.iter().rposition(|frame| is_commit(&frame));
    let committed = end.and_then(|end| readable.get(..=end)).unwrap_or_default();
    let count = if is_damaged && committed.is_empty() {
        count.max(frames.len())
    } else {
        count
    };
    let right = committed.iter().filter(|frame| frame.is_right);
    Wal {
        pages: right.map(|frame| (frame.page, frame.offset)).collect(),
        page_count: committed.last().map_or(0, |frame| frame.commit),
        lost: committed.iter().filter(|frame| !frame.is_right).count()
            + count.saturating_sub(committed.len()),
        is_damaged,
    }
}

/// SQLite's checksum over pairs of 32-bit words.
fn checksum((mut a, mut b): Sums, bytes: &[u8], is_big_endian: bool) -> Sums {
    let word = |bytes: &[u8]| {
        let bytes = bytes.try_into().unwrap_or_default();
        if is_big_endian {
            u32::from_be_bytes(bytes)
        } else {
            u32::from_le_bytes(bytes)
        }
    };
    for pair in bytes.chunks_exact(8) {
        let (first, second) = pair.split_at(4);
        a = a.wrapping_add(word(first)).wrapping_add(b);
        b = b.wrapping_add(word(second)).wrapping_add(a);
    }
    (a, b)
}

fn number(bytes: &[u8], at: usize) -> u32 {
    let bytes = bytes
        .get(at..at + 4)
        .and_then(|bytes| bytes.try_into().ok());
    u32::from_be_bytes(bytes.unwrap_or_default())
}

/// Fills the buffer, or says that the file ended before.
fn read_whole(file: &mut impl Read, buffer: &mut [u8]) -> io::Result<bool> {
    match file.read_exact(buffer) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}
