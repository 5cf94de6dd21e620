//! Reading every record that can be read, and putting it into the new ledger.
//!
//! Each table's tree is walked from its root. Where a part of it is damaged, the pages that no tree
//! reaches are looked through for what the part held: a page tells by its records whose it is.

use std::collections::{BTreeMap, BTreeSet};

use rusqlite::{Connection, ErrorCode, params_from_iter, types::Value};

use super::{
    btree::{self, Record},
    image::Image,
    shapes::{TABLES, Table},
};

/// What reading came to.
#[derive(Debug, Default)]
pub(super) struct Gathered {
    /// The tables of which a part could not be read where it should be, by the number of such parts.
    pub(super) damaged: BTreeMap<&'static str, usize>,
    /// Batches that were found on pages that may be old.
    pub(super) stale_batches: BTreeSet<i64>,
}

struct Gatherer<'a> {
    image: &'a mut Image,
    target: &'a Connection,
    seen: BTreeSet<u32>,
    found: Gathered,
}

/// Reads all that can be read into `target`, which has the tables and nothing in them.
pub(super) fn gather(image: &mut Image, target: &Connection) -> rusqlite::Result<Gathered> {
    let mut gatherer = Gatherer {
        image,
        target,
        seen: BTreeSet::new(),
        found: Gathered::default(),
    };
    let free = gatherer.read_free_pages();
    let roots = gatherer.read_roots();
    for table in TABLES {
        match roots.get(table.name) {
            Some(root) => gatherer.walk(table, *root)?,
            None => gatherer.add_damage(table),
        }
    }
    if !gatherer.found.damaged.is_empty() {
        gatherer.look_through(free.as_ref())?;
    }
    Ok(gatherer.found)
}

impl Gatherer<'_> {
    fn read_free_pages(&mut self) -> Option<BTreeSet<u32>> {
        let page = self.image.page(1)?;
        if !page.starts_with(b"SQLite format 3\0") {
            return None;
        }
        let (first, count) = (btree::long(&*page, 32)?, btree::long(&*page, 36)?);
        let free = btree::free_pages(self.image, first, count)?;
        Some(free.into_iter().collect())
    }

    /// The first page of each table that the schema names.
    fn read_roots(&mut self) -> BTreeMap<String, u32> {
        let mut roots = BTreeMap::new();
        let mut waiting = vec![1];
        while let Some(no) = waiting.pop() {
            if !self.seen.insert(no) {
                continue;
            }
            let Some(node) = btree::read(self.image, no, Some(true)) else {
                continue;
            };
            waiting.extend(node.children);
            for Record { values, .. } in node.records {
                if let [
                    Value::Text(kind),
                    Value::Text(name),
                    _,
                    Value::Integer(root),
                    _,
                ] = values.as_slice()
                    && kind == "table"
                    && let Ok(root) = u32::try_from(*root)
                {
                    roots.insert(name.clone(), root);
                }
            }
        }
        roots
    }

    fn walk(&mut self, table: &'static Table, root: u32) -> rusqlite::Result<()> {
        let mut waiting = vec![root];
        while let Some(no) = waiting.pop() {
            if self.seen.contains(&no) {
                self.add_damage(table);
                continue;
            }
            let Some(node) = btree::read(self.image, no, Some(table.has_rowid)) else {
                self.add_damage(table);
                continue;
            };
            let is_foreign = |record: &Record| table.read(record).is_none();
            if !node.records.is_empty() && node.records.iter().all(is_foreign) {
                // A page of another tree: whoever it belongs to shall find it.
                self.add_damage(table);
                continue;
            }
            self.seen.insert(no);
            self.seen.extend(&node.overflow);
            if node.unreadable > 0 {
                self.add_damage(table);
            }
            for record in &in_order(table, node.records) {
                let values = table.read(record);
                if !values.map_or(Ok(false), |values| self.insert(table, values))? {
                    self.add_damage(table);
                }
            }
            waiting.extend(node.children.into_iter().rev());
        }
        Ok(())
    }

    /// Looks for records of the damaged tables on the pages that no tree reached and that are not free.
    fn look_through(&mut self, free: Option<&BTreeSet<u32>>) -> rusqlite::Result<()> {
        for no in 1..=self.image.page_count() {
            if self.seen.contains(&no) || free.is_some_and(|free| free.contains(&no)) {
                continue;
            }
            let Some(node) = btree::read(self.image, no, None) else {
                continue;
            };
            // A row's number can be put right only where the table is known.
            for record in &node.records {
                let mut damaged = TABLES
                    .iter()
                    .filter(|table| self.found.damaged.contains_key(table.name));
                let fit = damaged.find_map(|table| Some((table, table.read(record)?)));
                let Some((table, values)) = fit else { continue };
                let batch = match values.first() {
                    Some(Value::Integer(no)) if table.name == "batches" => Some(*no),
                    _ => None,
                };
                if self.insert(table, values)? && free.is_none() {
                    self.found.stale_batches.extend(batch);
                }
            }
        }
        Ok(())
    }

    /// Puts a record in, unless there is one of its key; returns whether it did.
    fn insert(&self, table: &Table, values: Vec<Value>) -> rusqlite::Result<bool> {
        let places = vec!["?"; table.columns.len()].join(", ");
        let sql = format!("INSERT OR IGNORE INTO {} VALUES ({places})", table.name);
        let mut statement = self.target.prepare_cached(&sql)?;
        match statement.execute(params_from_iter(values)) {
            Ok(count) => Ok(count > 0),
            Err(error) if is_of_value(&error) => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn add_damage(&mut self, table: &Table) {
        *self.found.damaged.entry(table.name).or_default() += 1;
    }
}

/// Rows stand on a page in the order of their numbers, and those of the ledger without gaps: a number
/// that is out of order is the one between its neighbours.
fn in_order(table: &Table, mut records: Vec<Record>) -> Vec<Record> {
    if table.name == "consumptions" {
        for index in 1..records.len().saturating_sub(1) {
            let rowid = |index: usize| records.get(index).and_then(|record| record.rowid);
            let (Some(before), Some(after)) = (rowid(index - 1), rowid(index + 1)) else {
                continue;
            };
            if before.checked_add(2) == Some(after)
                && let Some(record) = records.get_mut(index)
            {
                record.rowid = Some(before + 1);
            }
        }
    }
    records
}

/// Whether SQLite refuses the values, not the writing.
fn is_of_value(error: &rusqlite::Error) -> bool {
    matches!(
        error.sqlite_error_code(),
        Some(ErrorCode::ConstraintViolation | ErrorCode::TypeMismatch)
    )
}
