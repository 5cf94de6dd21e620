//! What a request to the server came to. Nothing else looks at status codes.
//!
//! There are three outcomes, not two: applied, certainly not applied, and unknown. A status that a
//! gateway may have written after the request went through (500, 502, 503, 504, a captive portal's
//! page) is unknown. Only a complete answer in the contract's form is believed.

use std::time::Duration;

use tally_shared::{
    limits::Standing,
    signature::Verifier,
    time::Timestamp,
    wire::{Counter, ErrorCode, FeatureCounter, LicenseBody, Subject, error::ErrorBody},
};

/// What sending a batch came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SendOutcome {
    /// 200: the server counted it, and stands so now (the time is filled in by the core).
    Applied(Standing),
    /// Refused for the limit.
    RefusedLimit,
    /// Refused for the licence or the device.
    RefusedLicense(ErrorCode),
    /// Refused for the request itself: a defect.
    RefusedRequest(ErrorCode, String),
    /// Refused for the credentials or the date.
    RefusedCredentials(ErrorCode),
    /// It never reached the server.
    Unreached(String),
    /// The server had no time for it (429), and wants to be left alone for so long.
    Throttled(Option<Duration>),
    /// It was sent, and no complete valid answer came; the server wants to be left alone for so long.
    Unknown(String, Option<Duration>),
}

/// What reading a licence came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LookUpOutcome {
    /// The licence.
    Found(Box<LicenseFound>),
    /// The server refuses the licence or the device.
    Refused(ErrorCode, String),
    /// The server refuses the credentials or the date.
    RefusedCredentials(ErrorCode),
    /// The server could not be reached.
    Unreached(String),
    /// The server had no time (429, 5xx), and wants to be left alone for so long.
    Throttled(Option<Duration>),
    /// An answer that is not the contract's.
    Invalid(String),
}

/// A licence that the server described.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LicenseFound {
    /// How it was asked for.
    pub subject: Subject,
    /// The description.
    pub body: LicenseBody,
}

/// An answer as it came, complete.
#[derive(Clone, Debug)]
pub struct RawAnswer {
    /// The HTTP status.
    pub status: u16,
    /// The header `LicenseSignature`.
    pub signature: Option<String>,
    /// The header `Retry-After`, in seconds.
    pub retry_after: Option<Duration>,
    /// The body.
    pub body: Vec<u8>,
}

/// What an exchange with the server came to before anybody read it.
#[derive(Clone, Debug)]
pub enum Exchange {
    /// A complete answer.
    Answer(RawAnswer),
    /// The request was never sent.
    NotSent(String),
    /// The request was sent and no complete answer came.
    NoAnswer(String),
}

impl RawAnswer {
    /// The contract's error, where this is one. Codes of a newer server are validation errors to us:
    /// they concern the request.
    fn error(&self) -> Option<(ErrorCode, String)> {
        if self.status < 400 {
            return None;
        }
        let body: ErrorBody = serde_json::from_slice(&self.body).ok()?;
        if body.status != self.status {
            return None;
        }
        let code = ErrorCode::from_name(&body.code);
        Some((
            code.unwrap_or(ErrorCode::ValidationError),
            format!("{}: {}", body.code, body.message),
        ))
    }

    fn is_signed(&self, verifier: Option<&Verifier>) -> bool {
        verifier.is_none_or(|verifier| {
            self.signature
                .as_deref()
                .is_some_and(|signature| verifier.verify(&self.body, signature))
        })
    }

    /// Whether this answer is the contract's error of that code.
    pub fn refuses(&self, code: ErrorCode) -> bool {
        self.error().is_some_and(|(found, _)| found == code)
    }

    /// Whether this answer is the contract's, so that its `Date` can be believed as well.
    pub fn is_contractual(&self) -> bool {
        self.error().is_some() || (self.status == 200 && self.body.first() == Some(&b'{'))
    }
}

/// Reads what became of a batch.
pub fn of_send(exchange: Exchange, is_feature: bool, verifier: Option<&Verifier>) -> SendOutcome {
    let answer = match exchange {
        Exchange::Answer(answer) => answer,
        Exchange::NotSent(why) => return SendOutcome::Unreached(why),
        Exchange::NoAnswer(why) => return SendOutcome::Unknown(why, None),
    };
    let wait = answer.retry_after;
    if answer.status == 429 {
        return SendOutcome::Throttled(wait);
    }
    if answer.status == 200 {
        if !answer.is_signed(verifier) {
            return SendOutcome::Unknown("the answer's signature is not the server's".into(), wait);
        }
        return standing(&answer.body, is_feature).map_or_else(
            || SendOutcome::Unknown("200 with a body that is not the contract's".into(), wait),
            SendOutcome::Applied,
        );
    }
    let unknown = || SendOutcome::Unknown(format!("status {}", answer.status), wait);
    if !(400..500).contains(&answer.status) {
        return unknown();
    }
    let Some((code, message)) = answer.error() else {
        return unknown();
    };
    match kind(code) {
        Kind::Limit => SendOutcome::RefusedLimit,
        Kind::License => SendOutcome::RefusedLicense(code),
        Kind::Credentials => SendOutcome::RefusedCredentials(code),
        Kind::Request => SendOutcome::RefusedRequest(code, message),
        Kind::Unclear => unknown(),
    }
}

/// Reads what became of reading a licence.
pub fn of_look_up(
    exchange: Exchange,
    subject: &Subject,
    verifier: Option<&Verifier>,
) -> LookUpOutcome {
    let answer = match exchange {
        Exchange::Answer(answer) => answer,
        Exchange::NotSent(why) | Exchange::NoAnswer(why) => return LookUpOutcome::Unreached(why),
    };
    if answer.status == 200 {
        if !answer.is_signed(verifier) {
            return LookUpOutcome::Invalid("the answer's signature is not the server's".into());
        }
        return match serde_json::from_slice(&answer.body) {
            Ok(body) => LookUpOutcome::Found(Box::new(LicenseFound {
                subject: subject.clone(),
                body,
            })),
            Err(error) => LookUpOutcome::Invalid(format!(
                "200 with a body that is not the contract's: {error}"
            )),
        };
    }
    if answer.status == 429 || answer.status >= 500 {
        return LookUpOutcome::Throttled(answer.retry_after);
    }
    match answer.error() {
        Some((code, _)) if kind(code) == Kind::Credentials => {
            LookUpOutcome::RefusedCredentials(code)
        }
        Some((code, message)) => LookUpOutcome::Refused(code, message),
        None => LookUpOutcome::Invalid(format!(
            "status {} without the contract's body",
            answer.status
        )),
    }
}

fn standing(body: &[u8], is_feature: bool) -> Option<Standing> {
    let as_of = Timestamp::default();
    if is_feature {
        let feature: FeatureCounter = serde_json::from_slice(body).ok()?;
        return Some(feature.standing(as_of));
    }
    let counter: Counter = serde_json::from_slice(body).ok()?;
    Some(counter.standing(as_of))
}

#[derive(PartialEq, Eq)]
enum Kind {
    Limit,
    License,
    Request,
    Credentials,
    /// Not an answer to this request's merits.
    Unclear,
}

fn kind(code: ErrorCode) -> Kind {
    use ErrorCode as E;
    match code {
        E::LicenseNotEnoughConsumptions | E::FeatureNotEnoughConsumptions => Kind::Limit,
        E::UnknownProduct
        | E::LicenseNotFound
        | E::LicenseNotActive
        | E::LicenseNotEnabled
        | E::LicenseNotConsumption
        | E::DeviceNotFound
        | E::Blacklisted
        | E::LicenseExpired => Kind::License,
        E::NegativeConsumptionsNotAllowed
        | E::UnsupportedProductFeature
        | E::ValidationError
        | E::MissingParameters
        | E::InvalidJson
        | E::NotFound
        | E::MethodNotAllowed
        | E::BodyTooLarge
        | E::IdempotencyKeyReused => Kind::Request,
        E::MissingHeaders
        | E::DateHeaderDiff
        | E::AuthorizationInvalidHeaders
        | E::HmacRequired
        | E::AuthorizationMissingParams
        | E::InvalidApiKey
        | E::RevokedApiKey
        | E::ReadOnlyApiKey
        | E::SignatureMismatch
        | E::OauthTokenExpired
        | E::OauthTokenMalformed => Kind::Credentials,
        E::InternalError
        | E::RateLimited
        | E::IdempotencyKeyInUse
        | E::LimitsUnknown
        | E::StorageUnavailable
        | E::Unavailable
        | E::Forbidden => Kind::Unclear,
    }
}
