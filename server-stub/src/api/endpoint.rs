//! The three endpoints of the License API.

use tally_shared::wire::{ADD_CONSUMPTION, ADD_FEATURE_CONSUMPTION, CHECK_LICENSE};

/// What a request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Endpoint {
    /// Add units to a licence.
    AddConsumption,
    /// Add units to a feature.
    AddFeatureConsumption,
    /// Read a licence.
    CheckLicense,
}

impl Endpoint {
    const ALL: [Self; 3] = [
        Self::AddConsumption,
        Self::AddFeatureConsumption,
        Self::CheckLicense,
    ];

    /// The endpoint at a path.
    pub(crate) fn of_path(path: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|endpoint| endpoint.path() == path)
    }

    /// Where it is.
    pub(crate) const fn path(self) -> &'static str {
        match self {
            Self::AddConsumption => ADD_CONSUMPTION,
            Self::AddFeatureConsumption => ADD_FEATURE_CONSUMPTION,
            Self::CheckLicense => CHECK_LICENSE,
        }
    }

    /// How it is called.
    pub(crate) const fn method(self) -> &'static str {
        match self {
            Self::AddConsumption | Self::AddFeatureConsumption => "POST",
            Self::CheckLicense => "GET",
        }
    }

    /// Whether it changes anything: what needs more than a read-only key, and can be made idempotent.
    pub(crate) const fn changes(self) -> bool {
        !matches!(self, Self::CheckLicense)
    }
}
