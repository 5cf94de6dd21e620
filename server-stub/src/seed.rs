//! The seed file: which API keys, products and licences the stub starts with.
//!
//! Read strictly. A mistake is refused with its place, never guessed around: a test against a licence
//! that is not what the author thinks is worth nothing.

use std::{
    collections::BTreeSet,
    fmt,
    path::{Path, PathBuf},
};

use fs_err as fs;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::engine::{pool::Pool, state::License};

/// Everything that the stub starts with.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Seed {
    /// Who may call.
    #[serde(default)]
    pub api_keys: Vec<ApiKey>,
    /// What there are licences for.
    #[serde(default)]
    pub products: Vec<Product>,
    /// The licences.
    #[serde(default)]
    pub licenses: Vec<License>,
}

/// A caller of the License API.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ApiKey {
    /// The key's name, sent with each request.
    pub api_key: String,
    /// The secret that signs.
    pub shared_key: String,
    /// What the key may do.
    #[serde(default)]
    pub state: ApiKeyState,
}

/// What an API key may do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ApiKeyState {
    /// Everything.
    #[default]
    Active,
    /// Nothing.
    Revoked,
    /// Only `check_license`.
    ReadOnly,
}

/// A product.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Product {
    /// Its short code.
    pub code: String,
}

/// A seed that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SeedError {
    /// The file cannot be read.
    #[error("cannot read the seed file")]
    Read(#[source] std::io::Error),
    /// Not JSON of the seed's shape.
    #[error("seed file {}", path.display())]
    Shape {
        /// The file.
        path: PathBuf,
        /// What is wrong, with line and column.
        #[source]
        source: serde_json::Error,
    },
    /// The shape is right and the content contradicts itself.
    #[error("seed file {}", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong, with its place.
        #[source]
        source: Mistake,
    },
}

/// What is wrong in a seed, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {problem}")]
pub struct Mistake {
    place: String,
    problem: String,
}

impl Seed {
    /// Reads a seed file.
    pub fn read(path: &Path) -> Result<Self, SeedError> {
        let text = fs::read_to_string(path).map_err(SeedError::Read)?;
        // A list would pass for an object whose fields are left out.
        let object = serde_json::from_str::<Map<String, Value>>(&text);
        let seed = object.and_then(|_| serde_json::from_str::<Self>(&text));
        let seed = seed.map_err(|source| SeedError::Shape {
            path: path.to_owned(),
            source,
        })?;
        seed.complete().map_err(|source| SeedError::Content {
            path: path.to_owned(),
            source,
        })
    }

    /// Gives an id to each licence and feature that has none, and checks that everything fits together.
    ///
    /// # Errors
    ///
    /// The first [`Mistake`].
    pub fn complete(mut self) -> Result<Self, Mistake> {
        let key_names = self.api_keys.iter().map(|key| key.api_key.as_str());
        distinct("api_keys", "api_key", key_names)?;
        let unsigned = self
            .api_keys
            .iter()
            .position(|key| key.shared_key.is_empty());
        if let Some(index) = unsigned {
            return Err(mistake(
                format!("api_keys[{index}]"),
                "`shared_key` is empty",
            ));
        }
        let codes: Vec<&str> = self.products.iter().map(|it| it.code.as_str()).collect();
        distinct("products", "code", codes.iter().copied())?;
        complete_licenses(&mut self.licenses, &codes)?;
        one_pool_an_id(&self.licenses)?;
        Ok(self)
    }
}

/// Refuses two different pools under one id.
fn one_pool_an_id(licenses: &[License]) -> Result<(), Mistake> {
    let pools = || licenses.iter().filter_map(|it| it.pool.as_ref());
    let differs = |pool: &&Pool| pools().any(|other| other.id == pool.id && other != *pool);
    pools().find(differs).map_or(Ok(()), |pool| {
        let problem = format!("the pool {} is not the same on all its licences", pool.id);
        Err(mistake("licenses".to_owned(), problem))
    })
}

/// Gives an id to each licence and feature that has none, and checks that they fit together.
///
/// # Errors
///
/// The first [`Mistake`].
pub(crate) fn complete_licenses(
    licenses: &mut [License],
    products: &[&str],
) -> Result<(), Mistake> {
    number(licenses.iter_mut().map(|license| &mut license.id));
    let features = licenses
        .iter_mut()
        .flat_map(|license| &mut license.features);
    number(features.map(|feature| &mut feature.id));
    for (index, license) in licenses.iter().enumerate() {
        let place = format!("licenses[{index}] (id {})", license.id);
        check_license(&place, license, products)?;
    }
    let ids = licenses.iter().map(|license| license.id.to_string());
    distinct("licenses", "id", ids)?;
    let all = licenses.iter().flat_map(|license| &license.features);
    distinct(
        "features of all licences",
        "id",
        all.map(|it| it.id.to_string()),
    )?;
    let keyed = licenses.iter().filter_map(|license| {
        let key = license.license_key.as_ref()?;
        Some(format!("{key} ({})", license.product))
    });
    distinct("licenses", "license_key", keyed)
}

fn check_license(place: &str, license: &License, products: &[&str]) -> Result<(), Mistake> {
    let wrong = |problem: String| Err(mistake(place.to_owned(), problem));
    if license.id < 0 {
        return wrong("`id` must be at least 1".to_owned());
    }
    if !products.contains(&license.product.as_str()) {
        return wrong(format!(
            "`product` {:?} is not among `products`",
            license.product
        ));
    }
    match license.holder() {
        Some(holder) if holder.value().is_empty() => {
            return wrong(format!("`{}` is empty", holder.field()));
        }
        Some(_) => {}
        None => return wrong("exactly one of `license_key` and `username` is needed".to_owned()),
    }
    if license.max_consumptions < 0 || license.max_overages < 0 {
        return wrong("`max_consumptions` and `max_overages` must be at least 0".to_owned());
    }
    if license
        .pool
        .as_ref()
        .is_some_and(|pool| pool.id < 1 || pool.max_consumptions < 0 || pool.max_overages < 0)
    {
        return wrong(
            "`pool`: `id` must be at least 1, `max_consumptions` and `max_overages` at least 0"
                .to_owned(),
        );
    }
    let hardware_ids = license.devices.iter().map(|it| it.hardware_id.as_str());
    distinct(&format!("{place}.devices"), "hardware_id", hardware_ids)?;
    let codes = license.features.iter().map(|it| it.code.as_str());
    distinct(&format!("{place}.features"), "code", codes)?;
    license.features.iter().try_for_each(|feature| {
        if feature.id < 0 || feature.max_consumption < 0 || feature.max_overages < 0 {
            return wrong(format!(
                "feature `{}`: `id`, `max_consumption` and `max_overages` must be at least 0",
                feature.code
            ));
        }
        Ok(())
    })
}

/// Replaces each 0 by the next number after the highest.
fn number<'a>(ids: impl Iterator<Item = &'a mut i64>) {
    let ids: Vec<&mut i64> = ids.collect();
    let highest = ids.iter().map(|id| **id).max().unwrap_or(0).max(0);
    let unnumbered = ids.into_iter().filter(|id| **id == 0);
    for (id, next) in unnumbered.zip(highest.saturating_add(1)..) {
        *id = next;
    }
}

/// Refuses empty and repeated values.
fn distinct<T>(place: &str, field: &str, values: impl Iterator<Item = T>) -> Result<(), Mistake>
where
    T: AsRef<str> + Ord,
{
    let mut seen = BTreeSet::new();
    for (index, value) in values.enumerate() {
        if value.as_ref().is_empty() {
            return Err(mistake(
                format!("{place}[{index}]"),
                format!("`{field}` is empty"),
            ));
        }
        let problem = format!("`{field}` {:?} appears twice", value.as_ref());
        if !seen.insert(value) {
            return Err(mistake(place.to_owned(), problem));
        }
    }
    Ok(())
}

fn mistake(place: String, problem: impl Into<String>) -> Mistake {
    Mistake {
        place,
        problem: problem.into(),
    }
}

impl fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ApiKey")
            .field("api_key", &self.api_key)
            .field("state", &self.state)
            .finish_non_exhaustive()
    }
}
