//! Quantities of consumption: what is added, and what it adds up to.
//!
//! Both are 64-bit signed integers on the wire. They are kept apart as types because mixing a
//! request's units with a licence's total is the mistake that costs money. Arithmetic is checked:
//! nothing here wraps or saturates.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Units that one request, row or batch adds to a total. May be zero (reading, or setting overages)
/// or negative (where the licence allows it).
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Units(i64);

/// How much of a licence has been consumed in its current period. May be below zero where negative
/// units were allowed, and past the limit where overage was.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Total(i64);

impl Units {
    /// No units.
    pub const ZERO: Self = Self(0);

    /// Wraps a count of units.
    pub const fn new(units: i64) -> Self {
        Self(units)
    }

    /// The count.
    pub const fn get(self) -> i64 {
        self.0
    }

    /// The sum, or `None` where it does not fit in 64 bits.
    #[must_use]
    pub const fn checked_add(self, other: Self) -> Option<Self> {
        match self.0.checked_add(other.0) {
            Some(units) => Some(Self(units)),
            None => None,
        }
    }

    /// The difference, or `None` where it does not fit in 64 bits.
    #[must_use]
    pub const fn checked_sub(self, other: Self) -> Option<Self> {
        match self.0.checked_sub(other.0) {
            Some(units) => Some(Self(units)),
            None => None,
        }
    }
}

impl Total {
    /// The total of a period that has just begun.
    pub const ZERO: Self = Self(0);

    /// Wraps a total.
    pub const fn new(total: i64) -> Self {
        Self(total)
    }

    /// The number.
    pub const fn get(self) -> i64 {
        self.0
    }

    /// The total after `units`, or `None` where it does not fit in 64 bits.
    #[must_use]
    pub const fn checked_add(self, units: Units) -> Option<Self> {
        match self.0.checked_add(units.0) {
            Some(total) => Some(Self(total)),
            None => None,
        }
    }

    /// By how much this total moved since `earlier`, or `None` where that does not fit in 64 bits.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Option<Units> {
        match self.0.checked_sub(earlier.0) {
            Some(units) => Some(Units(units)),
            None => None,
        }
    }
}

impl fmt::Display for Units {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for Total {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
