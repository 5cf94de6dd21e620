//! What an application may do. Checked before the ledger is asked, and refused with the contract's codes.

use std::num::NonZeroU32;

use serde::{Deserialize, Serialize};
use tally_shared::{
    time::Timestamp,
    wire::{ApiError, ErrorCode, Holder, Subject},
};

/// What an application may do; without any of these, everything.
///
/// A right that this version does not know makes the whole key pair unusable: it was written to forbid
/// something.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Rights {
    /// Only this product.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub product: Option<String>,
    /// Only the licence with this key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub license_key: Option<String>,
    /// Only the licences of this user.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub username: Option<String>,
    /// At most so many requests to consume within a minute.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<u32>))]
    pub max_per_minute: Option<NonZeroU32>,
    /// Reads licences and consumes nothing.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub read_only: bool,
    /// Not after this time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
}

impl Rights {
    /// Whether it may call at all now, by the corrected clock, and whether it may consume.
    ///
    /// # Errors
    ///
    /// `revoked_api_key` after its time, `read_only_api_key` where it may only read.
    pub fn may_call(&self, consumes: bool, now: Timestamp) -> Result<(), ApiError> {
        if let Some(end) = self.expires_at.filter(|end| now >= *end) {
            return Err(ApiError::new(
                ErrorCode::RevokedApiKey,
                format!("this API key was given until {end}; `tally app add NAME` makes a new one"),
            ));
        }
        if consumes && self.read_only {
            return Err(ApiError::new(
                ErrorCode::ReadOnlyApiKey,
                "this API key may only read",
            ));
        }
        Ok(())
    }

    /// Whether it may use this licence. Another one is to it as if it did not exist.
    ///
    /// # Errors
    ///
    /// `unknown_product` or `license_not_found`.
    pub fn may_use(&self, subject: &Subject) -> Result<(), ApiError> {
        let forbids = |own: &Option<String>, asked: Option<&str>| {
            own.as_deref().is_some_and(|own| asked != Some(own))
        };
        if forbids(&self.product, Some(&subject.product)) {
            return Err(ApiError::new(
                ErrorCode::UnknownProduct,
                "this API key is for another product",
            ));
        }
        let (key, user) = match &subject.holder {
            Holder::LicenseKey(key) => (Some(key.as_str()), None),
            Holder::Username(user) => (None, Some(user.as_str())),
        };
        if forbids(&self.license_key, key) || forbids(&self.username, user) {
            return Err(ApiError::new(
                ErrorCode::LicenseNotFound,
                "this API key is for another licence",
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subject(product: &str, holder: Holder) -> Subject {
        Subject {
            product: product.to_owned(),
            holder,
            license_id: None,
            hardware_id: "device".to_owned(),
        }
    }

    fn key(key: &str) -> Holder {
        Holder::LicenseKey(key.to_owned())
    }

    #[track_caller]
    fn check(rights: &Rights, subject: &Subject, expected: Option<ErrorCode>) {
        let code = rights.may_use(subject).err().map(|error| error.code);
        assert_eq!(code, expected, "{subject:?}");
    }

    #[test]
    fn without_rights_everything_is_allowed() {
        let all = Rights::default();
        check(&all, &subject("any", key("A")), None);
        assert_eq!(all.may_call(true, Timestamp::from_millis(i64::MAX)), Ok(()));
    }

    #[test]
    fn another_product_or_licence_does_not_exist() {
        let one = Rights {
            product: Some("inspect".to_owned()),
            license_key: Some("A".to_owned()),
            ..Rights::default()
        };
        let not_found = Some(ErrorCode::LicenseNotFound);
        check(&one, &subject("inspect", key("A")), None);
        check(
            &one,
            &subject("other", key("A")),
            Some(ErrorCode::UnknownProduct),
        );
        check(&one, &subject("inspect", key("B")), not_found);
        let user = Holder::Username("A".to_owned());
        check(&one, &subject("inspect", user), not_found);
    }

    #[test]
    fn a_key_ends_on_time_and_one_that_reads_consumes_nothing() {
        let end = Timestamp::parse("2026-12-01").unwrap();
        let rights = Rights {
            read_only: true,
            expires_at: Some(end),
            ..Rights::default()
        };
        let code = |consumes, now| rights.may_call(consumes, now).err().map(|error| error.code);
        assert_eq!(code(false, end.plus_millis(-1)), None);
        assert_eq!(
            code(true, end.plus_millis(-1)),
            Some(ErrorCode::ReadOnlyApiKey)
        );
        assert_eq!(code(false, end), Some(ErrorCode::RevokedApiKey));
    }

    #[test]
    fn a_right_that_is_not_known_is_an_error() {
        assert!(serde_json::from_str::<Rights>(r#"{"max_units": 5}"#).is_err());
        assert_eq!(serde_json::to_string(&Rights::default()).unwrap(), "{}");
    }
}
