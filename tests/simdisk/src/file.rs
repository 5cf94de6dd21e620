//! One file: its content as programs see it, and what of it has not reached the medium.
//!
//! The content is kept as one image, with a log of the changes since the last sync. The log has the
//! bytes each change wrote and those it wrote over, so a write costs the bytes it writes and not the
//! file's length, and a power loss can go back to the synced image and apply the changes anew.

use std::ops::Range;

use crate::random::Random;

/// What the medium writes as a whole, or damages as a whole.
pub(crate) const SECTOR: usize = 512;

/// A change since the last sync. Its bytes are in [`File::bytes`]: first those it wrote, then those
/// it wrote over or cut off.
#[derive(Clone, Copy)]
struct Change {
    kind: ChangeKind,
    /// The first byte concerned.
    start: usize,
    /// The byte after the last one concerned.
    end: usize,
    /// The file's length before.
    length_before: usize,
    /// Where its bytes begin.
    bytes: usize,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum ChangeKind {
    /// Wrote `start..end`.
    Write,
    /// Set the length to `start`.
    Resize,
}

impl Change {
    fn new_len(&self) -> usize {
        match self.kind {
            ChangeKind::Write => self.end - self.start,
            ChangeKind::Resize => 0,
        }
    }

    fn new_bytes<'a>(&self, bytes: &'a [u8]) -> &'a [u8] {
        &bytes[self.bytes..self.bytes + self.new_len()]
    }

    fn old_bytes<'a>(&self, bytes: &'a [u8]) -> &'a [u8] {
        let old_len = self.end.min(self.length_before).saturating_sub(self.start);
        let old = self.bytes + self.new_len();
        &bytes[old..old + old_len]
    }
}

/// What a power loss makes of one unsynced change.
#[derive(Clone, Copy)]
enum Fate {
    Kept,
    Dropped,
    Torn,
}

/// A file's content, synced and not.
#[derive(Default)]
pub(crate) struct File {
    content: Vec<u8>,
    unsynced: Vec<Change>,
    bytes: Vec<u8>,
}

impl File {
    pub(crate) fn content(&self) -> &[u8] {
        &self.content
    }

    /// Replaces the content, durably.
    pub(crate) fn replace(&mut self, content: Vec<u8>) {
        self.content = content;
        self.sync();
    }

    /// Reads into the buffer, and says how many bytes there were to read.
    pub(crate) fn read(&self, start: usize, buffer: &mut [u8]) -> usize {
        let there = self.content.get(start..).unwrap_or_default();
        let length = there.len().min(buffer.len());
        buffer[..length].copy_from_slice(&there[..length]);
        length
    }

    /// Writes, and extends the file if need be. Not durable until [`sync`](Self::sync).
    pub(crate) fn write(&mut self, start: usize, data: &[u8]) {
        let end = start + data.len();
        self.log(ChangeKind::Write, start, end, data);
        put(&mut self.content, start, data);
    }

    /// Sets the length, with zeros if it grows. Not durable until [`sync`](Self::sync).
    pub(crate) fn resize(&mut self, length: usize) {
        let end = length.max(self.content.len());
        self.log(ChangeKind::Resize, length, end, &[]);
        self.content.resize(length, 0);
    }

    /// Makes all changes so far durable.
    pub(crate) fn sync(&mut self) {
        self.unsynced.clear();
        self.bytes.clear();
    }

    fn log(&mut self, kind: ChangeKind, start: usize, end: usize, data: &[u8]) {
        self.unsynced.push(Change {
            kind,
            start,
            end,
            length_before: self.content.len(),
            bytes: self.bytes.len(),
        });
        self.bytes.extend_from_slice(data);
        let old_end = end.min(self.content.len());
        let old = self.content.get(start..old_end).unwrap_or_default();
        self.bytes.extend_from_slice(old);
    }

    /// What a power loss leaves of the file: the synced content, and by chance some of the rest.
    pub(crate) fn lose_power(&mut self, random: &mut Random) {
        for change in self.unsynced.iter().rev() {
            self.content.resize(change.length_before, 0);
            let old = change.old_bytes(&self.bytes);
            if !old.is_empty() {
                put(&mut self.content, change.start, old);
            }
        }
        for (change, fate) in fates(&self.unsynced, random) {
            let data = change.new_bytes(&self.bytes);
            match (fate, change.kind) {
                (Fate::Dropped, _) => {}
                (Fate::Kept, ChangeKind::Write) => put(&mut self.content, change.start, data),
                (Fate::Torn, ChangeKind::Write) => {
                    tear(&mut self.content, change.start, data, random);
                }
                (Fate::Kept | Fate::Torn, ChangeKind::Resize) => {
                    self.content.resize(change.start, 0);
                }
            }
        }
        self.sync();
    }
}

/// The fate of each change, in the order in which the medium took them. One way for all of a file's
/// changes: were each on its own, all of them kept or all dropped would hardly ever come up.
fn fates(changes: &[Change], random: &mut Random) -> Vec<(Change, Fate)> {
    let mut fates: Vec<_> = match random.below(8) {
        0 => changes.iter().map(|&change| (change, Fate::Kept)).collect(),
        1 => Vec::new(),
        2 | 3 => {
            let kept = random.below(changes.len() + 1);
            let fate = |at: usize| match at.cmp(&kept) {
                std::cmp::Ordering::Less => Fate::Kept,
                std::cmp::Ordering::Equal => Fate::Torn,
                std::cmp::Ordering::Greater => Fate::Dropped,
            };
            let numbered = changes.iter().enumerate();
            return numbered.map(|(at, &change)| (change, fate(at))).collect();
        }
        _ => changes
            .iter()
            .map(|&change| match random.below(4) {
                0 | 1 => (change, Fate::Kept),
                2 => (change, Fate::Dropped),
                _ => (change, Fate::Torn),
            })
            .collect(),
    };
    if random.coin() {
        random.shuffle(&mut fates);
    }
    fates
}

fn put(content: &mut Vec<u8>, start: usize, data: &[u8]) {
    let end = start + data.len();
    if content.len() < end {
        content.resize(end, 0);
    }
    content[start..end].copy_from_slice(data);
}

/// Writes only some of the sectors, and at times garbles one. The length may have reached the medium
/// without the data: then zeros stand there.
fn tear(content: &mut Vec<u8>, start: usize, data: &[u8], random: &mut Random) {
    let end = start + data.len();
    if random.coin() && content.len() < end {
        content.resize(end, 0);
    }
    let sectors = start / SECTOR..end.div_ceil(SECTOR);
    let garbled = (random.below(4) == 0 && !sectors.is_empty())
        .then(|| sectors.start + random.below(sectors.len()));
    for sector in sectors {
        let from = (sector * SECTOR).max(start);
        let to = ((sector + 1) * SECTOR).min(end);
        if garbled == Some(sector) {
            garble(content, from..to, random);
        } else if random.coin() {
            put(content, from, &data[from - start..to - start]);
        }
    }
}

/// Leaves what was being written of a sector half old and half garbage. Bytes beside the write stay as
/// they are, as SQLite's VFS for Unix believes of disks ("powersafe overwrite").
fn garble(content: &mut [u8], written: Range<usize>, random: &mut Random) {
    let end = written.end.min(content.len());
    let from = written.start + random.below(written.len().max(1));
    for byte in content.get_mut(from..end).unwrap_or_default() {
        *byte = random.byte();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn synced(content: &[u8]) -> File {
        let mut file = File::default();
        file.replace(content.to_vec());
        file
    }

    /// Shrinks, extends and writes beyond the end, over `length` bytes of `1`.
    fn changed(length: usize) -> File {
        let mut file = synced(&vec![1; length]);
        file.write(100, &[2; 1500]);
        file.resize(700);
        file.write(5000, &[3; 600]);
        file.resize(9000);
        file.write(0, &[4; 4096]);
        file.resize(1000);
        file
    }

    #[test]
    fn a_synced_change_survives_every_power_loss() {
        for seed in 0..100 {
            let mut file = changed(4096);
            let content = file.content().to_vec();
            file.sync();
            file.lose_power(&mut Random::new(seed));
            assert_eq!(file.content(), content);
        }
    }

    #[test]
    fn unsynced_changes_are_undone_exactly_when_all_are_dropped() {
        let found = (0..100).any(|seed| {
            let mut file = changed(4096);
            file.lose_power(&mut Random::new(seed));
            file.content() == [1; 4096]
        });
        assert!(found, "no seed drops everything");
    }

    #[test]
    fn unsynced_changes_may_all_be_kept() {
        let found = (0..100).any(|seed| {
            let mut file = changed(4096);
            let content = file.content().to_vec();
            file.lose_power(&mut Random::new(seed));
            file.content() == content
        });
        assert!(found, "no seed keeps everything");
    }

    #[test]
    fn a_seed_decides_every_byte_and_seeds_differ() {
        let outcome = |seed| {
            let mut file = changed(4096);
            file.lose_power(&mut Random::new(seed));
            file.content().to_vec()
        };
        let outcomes: std::collections::BTreeSet<_> = (0..50).map(outcome).collect();
        assert!(outcomes.len() > 20, "{} outcomes", outcomes.len());
        for seed in 0..50 {
            assert_eq!(outcome(seed), outcome(seed));
        }
    }

    #[test]
    fn a_torn_write_stays_within_its_sectors() {
        for seed in 0..200 {
            let mut content = vec![1; 4096];
            tear(&mut content, 1024, &[2; 1024], &mut Random::new(seed));
            assert!(content[..1024].iter().all(|&byte| byte == 1));
            assert!(content[2048..].iter().all(|&byte| byte == 1));
        }
    }
}
