//! A request's fields, read one by one, each mistake answered with the name of its field.
//!
//! The contract asks for more than a derived deserializer gives: `missing_parameters` lists all that
//! are missing, numbers may come as text in some fields and not in others, `null` is never a value,
//! and a field that appears twice would leave open which one was meant.

use std::{borrow::Cow, fmt};

use serde::{
    Deserialize,
    de::{Deserializer, MapAccess, Visitor},
};
use serde_json::Value;

use super::{ApiError, ErrorCode, Holder, Subject};

/// The fields of a request, in the order in which they came.
#[derive(Debug)]
pub struct Fields<'a>(Vec<(Name<'a>, Value)>);

/// A field's name; where nothing is escaped in it, as it stands in the body.
type Name<'a> = Cow<'a, str>;

/// Up to this size, what the parser makes of a floating point number is less than a quarter away from
/// what was written: `2.0` means 2, and no number is taken for the whole number beside it. (Up to 2^53
/// is not enough: `9007199254740991.0` is read as `9007199254740990.0`, one unit less.)
const EXACT_FLOAT_MAX: f64 = 1e15;

/// More fields than any request knows.
const KNOWN_MAX: usize = 32;

/// The longest text that is accepted in a field, in bytes.
const TEXT_BYTES_MAX: usize = 1024;

impl<'a> Fields<'a> {
    /// Reads a JSON object.
    ///
    /// # Errors
    ///
    /// `invalid_json` where the bytes are not JSON, `validation_error` where they are not an object or
    /// a field appears twice.
    pub fn from_json(body: &'a [u8]) -> Result<Self, ApiError> {
        let parsed: MaybeObject<'_> = serde_json::from_slice(body)
            .map_err(|error| ApiError::new(ErrorCode::InvalidJson, format!("not JSON: {error}")))?;
        match parsed {
            MaybeObject::Fields(fields) => Self::from_pairs(fields),
            MaybeObject::Other => Err(invalid("the body must be a JSON object")),
        }
    }

    /// Takes the parameters of a query string; every value is text.
    ///
    /// # Errors
    ///
    /// `validation_error` where a parameter appears twice.
    pub fn from_query(pairs: impl IntoIterator<Item = (String, String)>) -> Result<Self, ApiError> {
        Self::from_pairs(
            pairs
                .into_iter()
                .map(|(name, value)| (Cow::Owned(name), Value::String(value)))
                .collect(),
        )
    }

    fn from_pairs(fields: Vec<(Name<'a>, Value)>) -> Result<Self, ApiError> {
        // Few fields are known. Where there are many more, one of them is refused, twice or not.
        let looked_at = fields.iter().take(KNOWN_MAX).enumerate();
        for (place, (name, _)) in looked_at {
            let before = fields.get(..place).unwrap_or_default();
            if before.iter().any(|(other, _)| other == name) {
                let name = printable(name);
                return Err(invalid(format!("`{name}` appears more than once")));
            }
        }
        Ok(Self(fields))
    }

    /// The field of that name.
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.0
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value)
    }

    /// Refuses any field that is in none of these lists.
    ///
    /// # Errors
    ///
    /// `validation_error` with the first unknown field.
    pub fn only(&self, known: &[&[&str]]) -> Result<(), ApiError> {
        let is_known = |name: &str| known.iter().any(|list| list.contains(&name));
        match self.0.iter().find(|(name, _)| !is_known(name)) {
            Some((name, _)) => Err(invalid(format!(
                "`{}` is not a known field",
                printable(name)
            ))),
            None => Ok(()),
        }
    }

    /// Refuses a request that lacks any of `required`, or names no licence.
    ///
    /// # Errors
    ///
    /// `missing_parameters` with all that are missing.
    pub fn require(&self, required: &[&str]) -> Result<(), ApiError> {
        let is_missing = |name: &&&str| self.get(name).is_none();
        let holder = ["license_key", "username"];
        let names_none = holder.iter().all(|name| self.get(name).is_none());
        if !names_none && !required.iter().any(|name| is_missing(&name)) {
            return Ok(());
        }
        let holder = names_none.then_some("license_key or username");
        let missing = required.iter().filter(is_missing).copied();
        let missing: Vec<&str> = holder.into_iter().chain(missing).collect();
        let message = format!("missing: {}", missing.join(", "));
        Err(ApiError::new(ErrorCode::MissingParameters, message))
    }

    /// Which licence and device the request is about.
    ///
    /// # Errors
    ///
    /// `validation_error` where a field is not of its type, or the licence is named twice.
    pub fn subject(&mut self) -> Result<Subject, ApiError> {
        let holder = match (self.text("license_key")?, self.text("username")?) {
            (Some(key), None) => Holder::LicenseKey(key),
            (None, Some(username)) => Holder::Username(username),
            (Some(_), Some(_)) => {
                return Err(invalid("`license_key` and `username` exclude each other"));
            }
            (None, None) => {
                return Err(ApiError::new(
                    ErrorCode::MissingParameters,
                    "missing: license_key or username",
                ));
            }
        };
        Ok(Subject {
            product: self.required_text("product")?,
            holder,
            license_id: self.natural("license_id")?,
            hardware_id: self.required_text("hardware_id")?,
        })
    }

    /// A text that is neither empty nor too long, taken out of the fields.
    ///
    /// # Errors
    ///
    /// `validation_error` where it is not.
    pub fn text(&mut self, name: &str) -> Result<Option<String>, ApiError> {
        let found = self.0.iter_mut().find(|(key, _)| key == name);
        match found.map(|(_, value)| value) {
            None => Ok(None),
            Some(Value::String(text)) if text.is_empty() => {
                Err(expected(name, "a non-empty string"))
            }
            Some(Value::String(text)) if text.len() > TEXT_BYTES_MAX => {
                Err(expected(name, &format!("at most {TEXT_BYTES_MAX} bytes")))
            }
            Some(Value::String(text)) => Ok(Some(std::mem::take(text))),
            Some(_) => Err(expected(name, "a string")),
        }
    }

    /// As [`Self::text`], for a field that must be there.
    ///
    /// # Errors
    ///
    /// `missing_parameters` where it is not, `validation_error` where it is not a text.
    pub fn required_text(&mut self, name: &str) -> Result<String, ApiError> {
        self.text(name)?
            .ok_or_else(|| ApiError::new(ErrorCode::MissingParameters, format!("missing: {name}")))
    }

    /// A 64-bit signed integer, as a JSON number.
    ///
    /// # Errors
    ///
    /// `validation_error` where it is anything else.
    pub fn integer(&self, name: &str) -> Result<Option<i64>, ApiError> {
        self.get(name)
            .map(|value| integer(value).ok_or_else(|| expected(name, "a 64-bit integer")))
            .transpose()
    }

    /// A 64-bit integer of at least zero, as a number or as text (older documentation types it so).
    ///
    /// # Errors
    ///
    /// `validation_error` where it is anything else.
    pub fn natural(&self, name: &str) -> Result<Option<i64>, ApiError> {
        let read = |value: &Value| match value {
            Value::String(text) if text.bytes().all(|byte| byte.is_ascii_digit()) => {
                text.parse().ok()
            }
            other => integer(other).filter(|number| *number >= 0),
        };
        self.get(name)
            .map(|value| read(value).ok_or_else(|| expected(name, "an integer of at least 0")))
            .transpose()
    }

    /// A boolean, also as `0`, `1`, `"true"` or `"false"`.
    ///
    /// # Errors
    ///
    /// `validation_error` where it is anything else.
    pub fn boolean(&self, name: &str) -> Result<Option<bool>, ApiError> {
        let read = |value: &Value| match value {
            Value::Bool(value) => Some(*value),
            Value::String(text) if text == "true" => Some(true),
            Value::String(text) if text == "false" => Some(false),
            number => match integer(number) {
                Some(0) => Some(false),
                Some(1) => Some(true),
                _ => None,
            },
        };
        self.get(name)
            .map(|value| read(value).ok_or_else(|| expected(name, "true or false")))
            .transpose()
    }
}

/// A `validation_error` with a message.
pub(super) fn invalid(message: impl Into<String>) -> ApiError {
    ApiError::new(ErrorCode::ValidationError, message)
}

/// A `validation_error` that names the field and what it should have been.
pub(super) fn expected(name: &str, what: &str) -> ApiError {
    invalid(format!("`{name}` must be {what}"))
}

fn integer(value: &Value) -> Option<i64> {
    let Value::Number(number) = value else {
        return None;
    };
    if let Some(integer) = number.as_i64() {
        return Some(integer);
    }
    let float = number.as_f64()?;
    if float.fract() != 0.0 || float.abs() > EXACT_FLOAT_MAX {
        return None;
    }
    // The formatted form of a whole number in this range is that number, so no cast can change it.
    format!("{float:.0}").parse().ok()
}

/// At most the first 64 characters, so that a hostile name cannot flood a log.
fn printable(name: &str) -> String {
    name.chars().take(64).collect()
}

/// A name that is borrowed from the body where it can be: serde's own `Cow` never is.
#[derive(Deserialize)]
#[serde(transparent)]
struct BorrowedName<'a>(#[serde(borrow)] Name<'a>);

enum MaybeObject<'a> {
    Fields(Vec<(Name<'a>, Value)>),
    Other,
}

impl<'de> Deserialize<'de> for MaybeObject<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ObjectVisitor;

        impl<'de> Visitor<'de> for ObjectVisitor {
            type Value = MaybeObject<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON value")
            }

            fn visit_map<A: MapAccess<'de>>(
                self,
                mut map: A,
            ) -> Result<MaybeObject<'de>, A::Error> {
                let mut fields = Vec::with_capacity(10);
                while let Some((BorrowedName(name), value)) = map.next_entry()? {
                    fields.push((name, value));
                }
                Ok(MaybeObject::Fields(fields))
            }

            fn visit_seq<A: serde::de::SeqAccess<'de>>(
                self,
                mut seq: A,
            ) -> Result<MaybeObject<'de>, A::Error> {
                while seq.next_element::<serde::de::IgnoredAny>()?.is_some() {}
                Ok(MaybeObject::Other)
            }

            fn visit_bool<E>(self, _: bool) -> Result<MaybeObject<'de>, E> {
                Ok(MaybeObject::Other)
            }

            fn visit_i64<E>(self, _: i64) -> Result<MaybeObject<'de>, E> {
                Ok(MaybeObject::Other)
            }

            fn visit_u64<E>(self, _: u64) -> Result<MaybeObject<'de>, E> {
                Ok(MaybeObject::Other)
            }

            fn visit_f64<E>(self, _: f64) -> Result<MaybeObject<'de>, E> {
                Ok(MaybeObject::Other)
            }

            fn visit_str<E>(self, _: &str) -> Result<MaybeObject<'de>, E> {
                Ok(MaybeObject::Other)
            }

            fn visit_unit<E>(self) -> Result<MaybeObject<'de>, E> {
                Ok(MaybeObject::Other)
            }
        }

        deserializer.deserialize_any(ObjectVisitor)
    }
}
