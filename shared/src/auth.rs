//! The `Authorization` header: an HMAC over the `Date` header (contract, "Authorization").
//!
//! The grammar is `name="value"` pairs with commas between them; names in any case, white space after
//! a comma. What is signed is the text of the `Date` header as it was sent, not the time it means.

use std::time::Duration;

use aws_lc_rs::{constant_time, hmac};
use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};

use crate::{
    time::Timestamp,
    wire::{ApiError, ErrorCode},
};

/// How far a `Date` header may be from the server's clock (contract, "Authorization").
pub const DATE_WINDOW: Duration = Duration::from_mins(15);

/// What is signed is this, and the text of the `Date` header.
const SIGNED_BEFORE_DATE: &[u8] = b"licenseSpring\ndate: ";

const SIGNATURE_BYTES: usize = 32;

/// The parameters of an `Authorization` header, as they were sent.
#[derive(Debug, PartialEq, Eq)]
pub struct Authorization<'a> {
    api_key: &'a str,
    signature: &'a str,
}

/// A shared key, ready to sign and to verify with.
#[derive(Clone, Debug)]
pub struct SharedKey(hmac::Key);

impl SharedKey {
    /// Prepares a shared key.
    pub fn new(shared_key: &str) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, shared_key.as_bytes()))
    }

    /// Signs a `Date` header: Base64 of HMAC-SHA256 under the shared key.
    pub fn sign(&self, date: &str) -> String {
        BASE64.encode(self.tag(date))
    }

    fn tag(&self, date: &str) -> hmac::Tag {
        let mut context = hmac::Context::with_key(&self.0);
        context.update(SIGNED_BEFORE_DATE);
        context.update(date.as_bytes());
        context.sign()
    }
}

/// Signs a `Date` header: as [`SharedKey::sign`], with a key that is used once.
pub fn sign(shared_key: &str, date: &str) -> String {
    SharedKey::new(shared_key).sign(date)
}

/// The value of the `Authorization` header for a `Date` header.
pub fn authorization(api_key: &str, shared_key: &str, date: &str) -> String {
    authorization_with(api_key, &SharedKey::new(shared_key), date)
}

/// As [`authorization`], with a key that is used again.
pub fn authorization_with(api_key: &str, shared_key: &SharedKey, date: &str) -> String {
    let signature = shared_key.sign(date);
    format!(r#"algorithm="hmac-sha256",headers="date",signature="{signature}",apikey="{api_key}""#)
}

/// Refuses a `Date` header that is not a date, or too far from `now`.
///
/// # Errors
///
/// `date_header_diff`.
pub fn check_date(date: &str, now: Timestamp) -> Result<(), ApiError> {
    let diff = |message: String| ApiError::new(ErrorCode::DateHeaderDiff, message);
    let sent = Timestamp::from_http_date(date)
        .ok_or_else(|| diff("the `Date` header is not an HTTP date".to_owned()))?;
    if sent.distance(now) <= DATE_WINDOW {
        return Ok(());
    }
    Err(diff(format!(
        "the `Date` header is more than 15 minutes away from {}",
        now.to_http_date()
    )))
}

impl<'a> Authorization<'a> {
    /// Reads the header.
    ///
    /// # Errors
    ///
    /// `authorization_invalid_headers` where it cannot be read or signs other headers, `hmac_required`
    /// for another algorithm or scheme, `authorization_missing_params` with all that are missing.
    pub fn parse(header: &'a str) -> Result<Self, ApiError> {
        if header
            .get(..7)
            .is_some_and(|scheme| scheme.eq_ignore_ascii_case("bearer "))
        {
            return Err(ApiError::new(
                ErrorCode::HmacRequired,
                "OAuth is not served here; sign with hmac-sha256",
            ));
        }
        let parameters = Parameters::read(header).ok_or_else(|| {
            ApiError::new(
                ErrorCode::AuthorizationInvalidHeaders,
                r#"`Authorization` must read algorithm="…",headers="…",signature="…",apikey="…""#,
            )
        })?;
        parameters.check()
    }

    /// Which key pair the request claims.
    pub const fn api_key(&self) -> &'a str {
        self.api_key
    }

    /// The signature, as it was sent.
    pub const fn signature(&self) -> &'a str {
        self.signature
    }

    /// Refuses a signature that is not the shared key's for this `Date` header; in constant time.
    ///
    /// # Errors
    ///
    /// `signature_mismatch`.
    pub fn verify(&self, shared_key: &SharedKey, date: &str) -> Result<(), ApiError> {
        // As long as the signature is, and as long again as a longer one would be noticed.
        let mut decoded = [0; 2 * SIGNATURE_BYTES];
        let length = BASE64.decode_slice(self.signature, &mut decoded);
        let signature = length.ok().and_then(|length| decoded.get(..length));
        let tag = shared_key.tag(date);
        signature
            .and_then(|found| constant_time::verify_slices_are_equal(tag.as_ref(), found).ok())
            .ok_or_else(|| {
                ApiError::new(
                    ErrorCode::SignatureMismatch,
                    "the signature is not this API key's for this `Date`",
                )
            })
    }
}

#[derive(Default)]
struct Parameters<'a> {
    algorithm: Option<&'a str>,
    headers: Option<&'a str>,
    signature: Option<&'a str>,
    api_key: Option<&'a str>,
}

impl<'a> Parameters<'a> {
    /// `None` where the header does not follow the grammar, or names a parameter twice.
    fn read(mut rest: &'a str) -> Option<Self> {
        let mut found = Self::default();
        loop {
            let (name, after) = rest.trim_start().split_once('=')?;
            let (value, after) = after.strip_prefix('"')?.split_once('"')?;
            let name = name.trim_end();
            let slot = found.slot(name)?;
            if slot.replace(value).is_some() {
                return None;
            }
            let after = after.trim();
            if after.is_empty() {
                return Some(found);
            }
            rest = after.strip_prefix(',')?;
        }
    }

    /// Where the parameter of that name goes.
    fn slot(&mut self, name: &str) -> Option<&mut Option<&'a str>> {
        let slots = [
            ("algorithm", &mut self.algorithm),
            ("headers", &mut self.headers),
            ("signature", &mut self.signature),
            ("apikey", &mut self.api_key),
        ];
        let mut slots = slots.into_iter();
        let found = slots.find(|(known, _)| name.eq_ignore_ascii_case(known));
        found.map(|(_, slot)| slot)
    }

    fn check(self) -> Result<Authorization<'a>, ApiError> {
        if self
            .headers
            .is_some_and(|headers| !headers.eq_ignore_ascii_case("date"))
        {
            return Err(ApiError::new(
                ErrorCode::AuthorizationInvalidHeaders,
                r#"`headers` must be "date""#,
            ));
        }
        if self
            .algorithm
            .is_some_and(|name| !name.eq_ignore_ascii_case("hmac-sha256"))
        {
            return Err(ApiError::new(
                ErrorCode::HmacRequired,
                r#"`algorithm` must be "hmac-sha256""#,
            ));
        }
        match (self.algorithm, self.headers, self.signature, self.api_key) {
            (Some(_), Some(_), Some(signature), Some(api_key)) => {
                Ok(Authorization { api_key, signature })
            }
            (algorithm, headers, signature, api_key) => {
                let missing: Vec<_> = [
                    ("algorithm", algorithm),
                    ("headers", headers),
                    ("signature", signature),
                    ("apikey", api_key),
                ]
                .iter()
                .filter_map(|(name, value)| value.is_none().then_some(*name))
                .collect();
                Err(ApiError::new(
                    ErrorCode::AuthorizationMissingParams,
                    format!("`Authorization` lacks {}", missing.join(", ")),
                ))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DATE: &str = "Tue, 07 Jun 2011 20:51:35 GMT";
    const SHARED_KEY: &str = "kw4qSnpSwXzgiv5yxYpZZmFEd9QAeiKTQ6OuyMja";

    #[track_caller]
    fn refused(header: &str) -> ErrorCode {
        Authorization::parse(header).unwrap_err().code
    }

    #[test]
    fn the_published_example_signs_as_published() {
        assert_eq!(
            sign(SHARED_KEY, DATE),
            "UDysfR6MndUZReo07Y9r+vErn8vSxrnQ5ulit18iJ/Q="
        );
    }

    #[test]
    fn what_is_signed_is_accepted_in_any_case_and_spacing() {
        let ours = authorization("key-1", SHARED_KEY, DATE);
        let sdk = ours.replace("apikey", "apiKey").replace(',', ", ");
        for header in [ours, sdk] {
            let parsed = Authorization::parse(&header).unwrap();
            assert_eq!(parsed.api_key(), "key-1");
            assert_eq!(parsed.verify(&SharedKey::new(SHARED_KEY), DATE), Ok(()));
        }
    }

    #[test]
    fn another_key_another_date_and_rubbish_are_mismatches() {
        let header = authorization("k", SHARED_KEY, DATE);
        let parsed = Authorization::parse(&header).unwrap();
        let code = |result: Result<(), ApiError>| result.unwrap_err().code;
        assert_eq!(
            code(parsed.verify(&SharedKey::new("other"), DATE)),
            ErrorCode::SignatureMismatch
        );
        assert_eq!(
            code(parsed.verify(&SharedKey::new(SHARED_KEY), "Tue, 07 Jun 2011 20:51:36 GMT")),
            ErrorCode::SignatureMismatch
        );
        let rubbish = r#"algorithm="hmac-sha256",headers="date",signature="?",apikey="k""#;
        let parsed = Authorization::parse(rubbish).unwrap();
        assert_eq!(
            code(parsed.verify(&SharedKey::new(SHARED_KEY), DATE)),
            ErrorCode::SignatureMismatch
        );
    }

    #[test]
    fn headers_that_cannot_be_used_are_named() {
        assert_eq!(refused("rubbish"), ErrorCode::AuthorizationInvalidHeaders);
        assert_eq!(refused(""), ErrorCode::AuthorizationInvalidHeaders);
        assert_eq!(refused("Bearer abc"), ErrorCode::HmacRequired);
        assert_eq!(
            refused(r#"algorithm="hmac-sha256",headers="host",signature="s",apikey="k""#),
            ErrorCode::AuthorizationInvalidHeaders
        );
        assert_eq!(
            refused(r#"algorithm="rsa",headers="date",signature="s",apikey="k""#),
            ErrorCode::HmacRequired
        );
        assert_eq!(
            refused(r#"algorithm="hmac-sha256",headers="date",apikey="k""#),
            ErrorCode::AuthorizationMissingParams
        );
        assert_eq!(
            refused(r#"apikey="a",apikey="b""#),
            ErrorCode::AuthorizationInvalidHeaders
        );
    }

    #[test]
    fn a_date_may_be_fifteen_minutes_off_and_no_more() {
        let now = Timestamp::from_http_date(DATE).unwrap();
        let window = i64::try_from(DATE_WINDOW.as_millis()).unwrap();
        assert_eq!(check_date(DATE, now.plus_millis(window)), Ok(()));
        assert_eq!(check_date(DATE, now.plus_millis(-window)), Ok(()));
        let late = check_date(DATE, now.plus_millis(window + 1)).unwrap_err();
        assert_eq!(late.code, ErrorCode::DateHeaderDiff);
        assert_eq!(
            check_date("yesterday", now).unwrap_err().code,
            ErrorCode::DateHeaderDiff
        );
    }
}
