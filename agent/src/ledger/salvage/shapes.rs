//! The ledger's tables, as their records look: what a page belongs to can be told from what is on it.

use rusqlite::types::Value;

use super::btree::Record;

/// What a column may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Column {
    /// A number.
    Number,
    /// A number, or nothing.
    MaybeNumber,
    /// A text.
    Text,
    /// A text, or nothing.
    MaybeText,
    /// A hash.
    Hash,
    /// One of these texts.
    OneOf(&'static [&'static str]),
    /// A number, 0 in records from before the column was added.
    Added,
    /// A number or nothing; nothing in records from before the column was added.
    MaybeAdded,
    /// A text or nothing; nothing in records from before the column was added.
    MaybeTextAdded,
    /// A hash or nothing; nothing in records from before the column was added.
    MaybeHashAdded,
}

/// A table.
#[derive(Debug)]
pub(super) struct Table {
    pub(super) name: &'static str,
    /// Whether its first column is the number of the row.
    pub(super) has_rowid: bool,
    pub(super) columns: &'static [Column],
}

use Column::{
    Added, Hash, MaybeAdded, MaybeHashAdded, MaybeNumber, MaybeText, MaybeTextAdded, Number, OneOf,
    Text,
};

const STATES: &[&str] = &[
    "open",
    "sealed",
    "sent",
    "unknown",
    "held",
    "settled",
    "superseded",
    "waived",
];

/// All tables, in the order of the migrations.
pub(super) const TABLES: &[Table] = &[
    table("meta", false, &[Text, Text]),
    table(
        "licenses",
        true,
        &[
            Number,
            Text,
            OneOf(&["license_key", "username"]),
            Text,
            Number,
            Text,
            MaybeText,
            Number,
        ],
    ),
    table("devices", false, &[Number, Text, MaybeText]),
    table(
        "accounts",
        true,
        &[
            Number,
            Number,
            MaybeText,
            Number,
            Number,
            Number,
            Number,
            Number,
            MaybeText,
            Number,
            Number,
            Number,
            Number,
            Number,
            Number,
            Added,
            Added,
            MaybeHashAdded,
            Added,
            MaybeTextAdded,
            Added,
            Added,
            MaybeTextAdded,
        ],
    ),
    table("apps", true, &[Number, Text]),
    table(
        "lanes",
        true,
        &[
            Number,
            Number,
            Text,
            Text,
            MaybeNumber,
            MaybeNumber,
            MaybeNumber,
        ],
    ),
    table(
        "batches",
        true,
        &[
            Number,
            Number,
            Number,
            Number,
            Number,
            Number,
            OneOf(STATES),
            MaybeText,
            Number,
            MaybeText,
            MaybeNumber,
            MaybeNumber,
            MaybeNumber,
            MaybeNumber,
            MaybeNumber,
            MaybeTextAdded,
            MaybeAdded,
            Added,
            MaybeAdded,
            Added,
            Added,
            MaybeTextAdded,
            Added,
            Added,
        ],
    ),
    table(
        "consumptions",
        true,
        &[Number, Number, Number, Number, Number, Number, Number, Hash],
    ),
    table(
        "answers",
        false,
        &[Number, Text, Hash, Number, Text, Number, Added],
    ),
    table("notes", true, &[Number, Number, Number, Text, Text, Hash]),
    table(
        "anchors",
        true,
        &[Number, Number, Hash, Number, Number, MaybeHashAdded],
    ),
    table(
        "daily",
        false,
        &[
            Number,
            Number,
            Number,
            OneOf(&["settled", "waived"]),
            Number,
            Number,
            Number,
        ],
    ),
    table(
        "names",
        false,
        &[
            Text,
            OneOf(&["license_key", "username"]),
            Text,
            Text,
            Number,
            Number,
        ],
    ),
    table(
        "judgements",
        false,
        &[
            Number, Number, Number, Number, Number, Number, Number, Number, Number, MaybeText,
        ],
    ),
];

const fn table(name: &'static str, has_rowid: bool, columns: &'static [Column]) -> Table {
    Table {
        name,
        has_rowid,
        columns,
    }
}

impl Table {
    /// The record's values as this table's, where they can be.
    pub(super) fn read(&self, record: &Record) -> Option<Vec<Value>> {
        if record.rowid.is_some() != self.has_rowid || record.values.len() > self.columns.len() {
            return None;
        }
        let mut values = Vec::with_capacity(self.columns.len());
        for (index, column) in self.columns.iter().enumerate() {
            let found = record.values.get(index).cloned();
            values.push(match (found, record.rowid) {
                // The number of the row stands for its first column, whose own place is empty.
                (Some(Value::Null), Some(rowid)) if index == 0 && rowid > 0 => {
                    Value::Integer(rowid)
                }
                (Some(_), Some(_)) if index == 0 => return None,
                (Some(value), _) => value,
                (None, _) => column.default()?,
            });
        }
        let fits = |(column, value): (&Column, &Value)| column.fits(value);
        let is_sane = self.columns.iter().zip(&values).all(fits) && self.is_plausible(&values);
        is_sane.then_some(values)
    }

    /// Whether the numbers can be what they say. Sums of plausible ones do not overflow.
    fn is_plausible(&self, values: &[Value]) -> bool {
        let number = |index: usize| match values.get(index) {
            Some(Value::Integer(number)) => *number,
            _ => 0,
        };
        let are_places = |from: usize, to: usize| (from..=to).all(|at| is_place(number(at)));
        let are_small = |from: usize, to: usize| (from..=to).all(|at| is_small(number(at)));
        match self.name {
            "licenses" | "apps" | "devices" | "notes" => is_place(number(0)),
            "accounts" => are_places(0, 1) && are_small(9, 16) && number(14) >= 0,
            "lanes" | "judgements" => are_places(0, 1),
            "batches" => {
                let is_counted = (0..=u32::MAX.into()).contains(&number(11));
                let rows_max = number(3) - number(2) + 1;
                are_places(0, 3)
                    && (0..=rows_max).contains(&number(4))
                    && is_small(number(5))
                    && is_counted
            }
            "consumptions" => are_places(0, 2) && are_small(3, 4),
            "anchors" => are_places(0, 1) && number(0) <= number(1),
            "daily" => are_places(1, 2) && number(5) >= 0 && are_small(5, 6),
            _ => true,
        }
    }
}

/// Whether this can be the number of something.
const fn is_place(number: i64) -> bool {
    0 < number && number < 1 << 48
}

/// Whether this can be a sum of units.
const fn is_small(number: i64) -> bool {
    number.unsigned_abs() < 1 << 53
}

impl Column {
    const fn default(self) -> Option<Value> {
        match self {
            Self::Added => Some(Value::Integer(0)),
            Self::MaybeAdded | Self::MaybeTextAdded | Self::MaybeHashAdded => Some(Value::Null),
            _ => None,
        }
    }

    fn fits(self, value: &Value) -> bool {
        match (self, value) {
            (
                Self::MaybeNumber
                | Self::MaybeText
                | Self::MaybeAdded
                | Self::MaybeTextAdded
                | Self::MaybeHashAdded,
                Value::Null,
            )
            | (
                Self::Number | Self::MaybeNumber | Self::Added | Self::MaybeAdded,
                Value::Integer(_),
            )
            | (Self::Text | Self::MaybeText | Self::MaybeTextAdded, Value::Text(_)) => true,
            (Self::OneOf(names), Value::Text(text)) => names.contains(&text.as_str()),
            (Self::Hash | Self::MaybeHashAdded, Value::Blob(bytes)) => bytes.len() == 32,
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shapes_are_those_of_the_schema() {
        let folder = tempfile::tempdir().unwrap();
        let ledger = crate::ledger::schema::open(&folder.path().join("ledger.db")).unwrap();
        let mut statement = ledger
            .prepare("SELECT name, (SELECT count(*) FROM pragma_table_info(s.name)) FROM sqlite_schema s WHERE type = 'table' AND name NOT LIKE 'sqlite_%' ORDER BY name")
            .unwrap();
        let found: Vec<(String, i64)> = statement
            .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))
            .unwrap()
            .map(Result::unwrap)
            .collect();
        let mut known: Vec<(String, i64)> = TABLES
            .iter()
            .map(|table| {
                (
                    table.name.to_owned(),
                    i64::try_from(table.columns.len()).unwrap(),
                )
            })
            .collect();
        known.sort();
        assert_eq!(found, known);
    }
}
