//! SQLite's pages and records, read without trust: every offset is checked, and a cell that makes no
//! sense costs only itself.

use rusqlite::types::Value;

use super::image::{Image, PAGE_BYTES};

/// More than any page can hold.
const CELLS_MAX: usize = PAGE_BYTES / 4;

/// More than any record of ours is long.
const PAYLOAD_MAX: usize = 64 << 20;

/// What a page of a tree holds.
#[derive(Debug, Default)]
pub(super) struct Node {
    /// The pages below it.
    pub(super) children: Vec<u32>,
    /// The records on it.
    pub(super) records: Vec<Record>,
    /// The pages on which the records go on.
    pub(super) overflow: Vec<u32>,
    /// How many cells make no sense.
    pub(super) unreadable: usize,
}

/// A record, with its row's number where its tree has those.
#[derive(Debug)]
pub(super) struct Record {
    pub(super) rowid: Option<i64>,
    pub(super) values: Vec<Value>,
}

/// Which kind of page it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    IndexInterior,
    TableInterior,
    IndexLeaf,
    TableLeaf,
}

impl Kind {
    const fn of(flag: u8) -> Option<Self> {
        match flag {
            2 => Some(Self::IndexInterior),
            5 => Some(Self::TableInterior),
            10 => Some(Self::IndexLeaf),
            13 => Some(Self::TableLeaf),
            _ => None,
        }
    }

    const fn is_table(self) -> bool {
        matches!(self, Self::TableInterior | Self::TableLeaf)
    }

    const fn is_interior(self) -> bool {
        matches!(self, Self::TableInterior | Self::IndexInterior)
    }
}

/// Reads a page as one of a tree; `None` where it is none. `is_table` says which trees there may be.
pub(super) fn read(image: &mut Image, no: u32, is_table: Option<bool>) -> Option<Node> {
    let page = image.page(no)?;
    let page = page.as_slice();
    let start = if no == 1 { 100 } else { 0 };
    let kind = Kind::of(*page.get(start)?)?;
    if is_table.is_some_and(|is_table| is_table != kind.is_table()) {
        return None;
    }
    let cells = usize::from(short(page, start + 3)?);
    if cells > CELLS_MAX {
        return None;
    }
    let mut node = Node::default();
    let pointers = start + if kind.is_interior() { 12 } else { 8 };
    for index in 0..cells {
        let cell = short(page, pointers + 2 * index).map(usize::from);
        let cell = cell.filter(|at| *at >= pointers + 2 * cells);
        if cell
            .and_then(|at| read_cell(image, page, at, kind, &mut node))
            .is_none()
        {
            node.unreadable += 1;
        }
    }
    if kind.is_interior() {
        node.children.push(long(page, start + 8)?);
    }
    Some(node)
}

fn read_cell(
    image: &mut Image,
    page: &[u8],
    mut at: usize,
    kind: Kind,
    node: &mut Node,
) -> Option<()> {
    if kind.is_interior() {
        node.children.push(long(page, at)?);
        at += 4;
        if kind == Kind::TableInterior {
            return Some(());
        }
    }
    let length = usize::try_from(varint(page, &mut at)?).ok()?;
    let rowid = if kind == Kind::TableLeaf {
        Some(varint(page, &mut at)?)
    } else {
        None
    };
    let payload = read_payload(image, page, at, (length, kind.is_table()), node)?;
    let values = read_record(&payload)?;
    node.records.push(Record { rowid, values });
    Some(())
}

/// A record's bytes: on the page, and where they do not fit, on a chain of others.
fn read_payload(
    image: &mut Image,
    page: &[u8],
    at: usize,
    (length, is_table): (usize, bool),
    node: &mut Node,
) -> Option<Vec<u8>> {
    if length > PAYLOAD_MAX {
        return None;
    }
    let most = if is_table {
        PAGE_BYTES - 35
    } else {
        (PAGE_BYTES - 12) * 64 / 255 - 23
    };
    if length <= most {
        return Some(page.get(at..at + length)?.to_vec());
    }
    let least = (PAGE_BYTES - 12) * 32 / 255 - 23;
    let fitting = least + (length - least) % (PAGE_BYTES - 4);
    let here = if fitting <= most { fitting } else { least };
    let mut payload = page.get(at..at + here)?.to_vec();
    let mut next = long(page, at + here)?;
    while payload.len() < length {
        let page = image.page(next).filter(|_| next > 1)?;
        node.overflow.push(next);
        let wanted = (length - payload.len()).min(PAGE_BYTES - 4);
        payload.extend_from_slice(page.get(4..4 + wanted)?);
        next = long(page.as_slice(), 0)?;
    }
    Some(payload)
}

fn read_record(payload: &[u8]) -> Option<Vec<Value>> {
    let mut at = 0;
    let header = usize::try_from(varint(payload, &mut at)?).ok()?;
    let mut body = header;
    let mut values = Vec::new();
    while at < header {
        let kind = varint(payload, &mut at)?;
        let bytes = match kind {
            0 | 8 | 9 => 0,
            1..=4 => usize::try_from(kind).ok()?,
            5 => 6,
            6 | 7 => 8,
            12.. => usize::try_from((kind - 12) / 2).ok()?,
            _ => return None,
        };
        let field = payload.get(body..body.checked_add(bytes)?)?;
        body += bytes;
        values.push(match kind {
            0 => Value::Null,
            1..=6 => Value::Integer(integer(field)),
            // No column of ours is real.
            7 => return None,
            8 => Value::Integer(0),
            9 => Value::Integer(1),
            _ if kind % 2 == 0 => Value::Blob(field.to_vec()),
            _ => Value::Text(std::str::from_utf8(field).ok()?.to_owned()),
        });
    }
    (at == header && body == payload.len()).then_some(values)
}

/// The pages that are free, by the lists that begin at `first`; `None` where those are not whole.
pub(super) fn free_pages(image: &mut Image, first: u32, count: u32) -> Option<Vec<u32>> {
    let mut free = Vec::new();
    let mut trunk = first;
    while trunk != 0 {
        let page = image.page(trunk)?;
        free.push(trunk);
        let leaves = usize::try_from(long(page.as_slice(), 4)?).ok()?;
        for index in 0..leaves {
            free.push(long(page.as_slice(), 8 + 4 * index)?);
        }
        if free.len() > usize::try_from(count).ok()? {
            return None;
        }
        trunk = long(page.as_slice(), 0)?;
    }
    (free.len() == usize::try_from(count).ok()?).then_some(free)
}

/// A big-endian number of four bytes.
pub(super) fn long(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..at.checked_add(4)?)?;
    Some(u32::from_be_bytes(bytes.try_into().ok()?))
}

fn short(bytes: &[u8], at: usize) -> Option<u16> {
    let bytes = bytes.get(at..at.checked_add(2)?)?;
    Some(u16::from_be_bytes(bytes.try_into().ok()?))
}

fn integer(bytes: &[u8]) -> i64 {
    let negative = bytes.first().is_some_and(|byte| byte & 0x80 != 0);
    let start = if negative { -1 } else { 0 };
    bytes
        .iter()
        .fold(start, |number: i64, byte| (number << 8) | i64::from(*byte))
}

fn varint(bytes: &[u8], at: &mut usize) -> Option<i64> {
    let mut number: u64 = 0;
    for index in 0..9 {
        let byte = *bytes.get(*at)?;
        *at += 1;
        if index == 8 {
            number = (number << 8) | u64::from(byte);
            break;
        }
        number = (number << 7) | u64::from(byte & 0x7f);
        if byte & 0x80 == 0 {
            break;
        }
    }
    Some(number.cast_signed())
}
