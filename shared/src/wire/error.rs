//! The error codes of the contract, each with its HTTP status, and the body that carries them.

use serde::{Deserialize, Serialize};

use crate::limits::Refusal;

macro_rules! error_codes {
    ($($(#[doc = $doc:literal])+ $variant:ident = $status:literal $code:literal;)+) => {
        /// A code of the contract's error tables, or one of the few that Tally adds.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum ErrorCode {
            $($(#[doc = $doc])+ $variant,)+
        }

        impl ErrorCode {
            /// Every code, in the order of the contract's tables.
            pub const ALL: &[Self] = &[$(Self::$variant,)+];

            /// The name on the wire.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $code,)+ }
            }

            /// The HTTP status that comes with it.
            pub const fn status(self) -> u16 {
                match self { $(Self::$variant => $status,)+ }
            }

            /// The code of that name.
            pub fn from_name(name: &str) -> Option<Self> {
                match name { $($code => Some(Self::$variant),)+ _ => None }
            }
        }
    };
}

error_codes! {
    /// The product was not found.
    UnknownProduct = 400 "unknown_product";
    /// No licence for that key or user.
    LicenseNotFound = 400 "license_not_found";
    /// The licence has no active device or is inactive.
    LicenseNotActive = 400 "license_not_active";
    /// The vendor disabled the licence.
    LicenseNotEnabled = 400 "license_not_enabled";
    /// The licence is not of type consumption.
    LicenseNotConsumption = 400 "license_not_consumption";
    /// The licence's limit would be passed.
    LicenseNotEnoughConsumptions = 400 "license_not_enough_consumptions";
    /// Negative units where the licence does not allow them.
    NegativeConsumptionsNotAllowed = 400 "negative_consumptions_not_allowed";
    /// No active device with that hardware id.
    DeviceNotFound = 400 "device_not_found";
    /// The device is blacklisted.
    Blacklisted = 400 "blacklisted";
    /// The licence's validity period is over.
    LicenseExpired = 400 "license_expired";
    /// The body does not conform.
    ValidationError = 400 "validation_error";
    /// A required field is missing.
    MissingParameters = 400 "missing_parameters";
    /// `Date` or `Authorization` is missing.
    MissingHeaders = 400 "missing_headers";
    /// The body is not JSON.
    InvalidJson = 400 "invalid_json";
    /// No such path.
    NotFound = 404 "not_found";
    /// The server's fault.
    InternalError = 500 "internal_error";

    /// The product or licence has no consumption feature of that code.
    UnsupportedProductFeature = 400 "unsupported_product_feature";
    /// The licence has no feature of that code.
    InvalidLicenseFeatureCode = 400 "invalid_license_feature_code";
    /// The feature's limit would be passed.
    FeatureNotEnoughConsumptions = 400 "feature_not_enough_consumptions";

    /// The `Date` header is too far from the server's clock, or not a date.
    DateHeaderDiff = 400 "date_header_diff";
    /// The `Authorization` header does not sign exactly the `date` header, or cannot be read.
    AuthorizationInvalidHeaders = 400 "authorization_invalid_headers";
    /// Another algorithm than `hmac-sha256`.
    HmacRequired = 400 "hmac_required";
    /// A parameter of the `Authorization` header is missing.
    AuthorizationMissingParams = 400 "authorization_missing_params";
    /// Nobody has that API key.
    InvalidApiKey = 400 "invalid_api_key";
    /// The API key was revoked.
    RevokedApiKey = 400 "revoked_api_key";
    /// The API key may only read.
    ReadOnlyApiKey = 400 "read_only_api_key";
    /// The signature is not that of the API key's shared key.
    SignatureMismatch = 400 "signature_mismatch";
    /// The OAuth token has expired.
    OauthTokenExpired = 400 "oauth_token_expired";
    /// The OAuth token cannot be read.
    OauthTokenMalformed = 400 "oauth_token_malformed";

    /// Too many requests.
    RateLimited = 429 "rate_limited";
    /// The same `Idempotency-Key` came with another request (IETF httpapi draft).
    IdempotencyKeyReused = 422 "idempotency_key_reused";
    /// A request under the same `Idempotency-Key` is still running (IETF httpapi draft).
    IdempotencyKeyInUse = 409 "idempotency_key_in_use";
    /// The method does not fit the path.
    MethodNotAllowed = 405 "method_not_allowed";
    /// There is a body, and its `Content-Type` is not JSON.
    UnsupportedMediaType = 415 "unsupported_media_type";
    /// The body did not arrive in time.
    RequestTimeout = 408 "request_timeout";

    /// The agent has never seen this licence (or device) and cannot ask the server.
    LimitsUnknown = 503 "limits_unknown";
    /// The agent cannot write to its disk; nothing was recorded.
    StorageUnavailable = 507 "storage_unavailable";
    /// The agent is stopping, or has too much to do; nothing was recorded.
    Unavailable = 503 "unavailable";
    /// The request comes from a page or a host name that the agent does not serve.
    Forbidden = 403 "forbidden";
    /// The control API wants the admin token.
    Unauthorized = 401 "unauthorized";
}

impl ErrorCode {
    /// The code for a refusal by the limit rule, for a licence or for a feature.
    pub const fn from_refusal(refusal: Refusal, of_feature: bool) -> Self {
        match refusal {
            Refusal::NotEnough { .. } if of_feature => Self::FeatureNotEnoughConsumptions,
            Refusal::NotEnough { .. } => Self::LicenseNotEnoughConsumptions,
            Refusal::NegativeNotAllowed => Self::NegativeConsumptionsNotAllowed,
            Refusal::Overflow => Self::ValidationError,
        }
    }
}

/// An error answer: its code, and a message for a person.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}: {message}", code.as_str())]
pub struct ApiError {
    /// What went wrong.
    pub code: ErrorCode,
    /// For a person; names the field, the number or the device.
    pub message: String,
}

/// The body of an error answer: exactly these three fields.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ErrorBody {
    /// The HTTP status.
    pub status: u16,
    /// The code; a client must expect codes that it does not know.
    pub code: String,
    /// For a person.
    pub message: String,
}

impl ApiError {
    /// An error with a message.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
        }
    }

    /// The body that carries it.
    pub fn body(&self) -> ErrorBody {
        ErrorBody {
            status: self.code.status(),
            code: self.code.as_str().to_owned(),
            message: self.message.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_is_found_by_its_name() {
        for &code in ErrorCode::ALL {
            assert_eq!(ErrorCode::from_name(code.as_str()), Some(code));
        }
        assert_eq!(ErrorCode::from_name("no_such_code"), None);
    }

    #[test]
    fn the_body_has_exactly_three_fields() {
        let error = ApiError::new(ErrorCode::NotFound, "no such path");
        assert_eq!(
            serde_json::to_string(&error.body()).unwrap(),
            r#"{"status":404,"code":"not_found","message":"no such path"}"#
        );
    }
}
