//! What a request to the server came to. Nothing else looks at status codes.
//!
//! There are three outcomes, not two: applied, certainly not applied, and unknown. A status that a
//! gateway may have written after the request went through (500, 502, 503, 504, a captive portal's
//! page) is unknown. Only a complete answer in the contract's form is believed.

use std::time::Duration;

use tally_shared::{
    limits::{Limits, Standing},
    period::Period,
    signature::Verifier,
    time::Timestamp,
    units::Total,
    wire::{
        Counter, ErrorCode, InPool, LicenseBody, PoolCounter, Subject,
        add_consumption::FEATURE_TYPE_CONSUMPTION, error::ErrorBody,
    },
};

/// What sending a batch came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SendOutcome {
    /// 200: the server counted it, and stands so now (the time is filled in by the core).
    Applied(Counted),
    /// Refused for the limit.
    RefusedLimit,
    /// Refused for the licence, the device or the counter.
    RefusedLicense(ErrorCode),
    /// Refused for the request itself: a defect.
    RefusedRequest(ErrorCode, String),
    /// Refused for the credentials or the date.
    RefusedCredentials(ErrorCode),
    /// It never reached the server.
    Unreached(String),
    /// The server had no time for it (429), and wants to be left alone for so long.
    Throttled(Option<Duration>),
    /// The server has it already, or is at it (409): this attempt says nothing of an earlier one.
    Duplicate(String),
    /// It was sent, and no complete valid answer came; the server wants to be left alone for so long.
    Unknown(String, Option<Duration>),
}

/// How a counter stands after an answer, and the pool that it draws from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counted {
    /// The counter.
    pub standing: Standing,
    /// The pool, where it draws from one.
    pub pool: Option<PoolCounter>,
}

impl From<Standing> for Counted {
    fn from(standing: Standing) -> Self {
        let pool = None;
        Self { standing, pool }
    }
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
    /// The server had no time for it (429), and wants to be left alone for so long.
    Throttled(Option<Duration>),
    /// An answer that is not the contract's; the server wants to be left alone for so long.
    Invalid(String, Option<Duration>),
}

/// A licence that the server described.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LicenseFound {
    /// How it was asked for.
    pub subject: Subject,
    /// The description.
    pub body: LicenseBody,
    /// Whether the server certainly made it after it was asked: no cache answered. What is not fresh decides nothing.
    pub is_fresh: bool,
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
    /// Whether the server made it after it was asked, by its `Age` and `Date`.
    pub is_fresh: bool,
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

    /// Whether it says that the server has such a request already: a conflict, whatever its code, or a key that was used for
    /// other bytes. A key that is in use will be answered later.
    fn has_it_already(&self) -> bool {
        let is_in_use = self.refuses(ErrorCode::IdempotencyKeyInUse);
        let is_reused = self.refuses(ErrorCode::IdempotencyKeyReused);
        is_reused || (self.status == 409 && !is_in_use)
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
        return counted(&answer.body, is_feature).map_or_else(
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
    if answer.has_it_already() {
        return SendOutcome::Duplicate(message);
    }
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
    let invalid = |why: String| LookUpOutcome::Invalid(why, answer.retry_after);
    match answer.status {
        200 if !answer.is_signed(verifier) => {
            return invalid("the answer's signature is not the server's".to_owned());
        }
        200 => {
            return match serde_json::from_slice(&answer.body) {
                Ok(body) => {
                    let subject = subject.clone();
                    let is_fresh = answer.is_fresh;
                    LookUpOutcome::Found(Box::new(LicenseFound {
                        subject,
                        body,
                        is_fresh,
                    }))
                }
                Err(error) => invalid(format!("200 without the contract's body: {error}")),
            };
        }
        429 => return LookUpOutcome::Throttled(answer.retry_after),
        _ => {}
    }
    let error = answer.error().filter(|_| answer.status < 500);
    // The server may name the key that it was asked about.
    let error = error.map(|(code, message)| (code, subject.holder.mask_in(&message)));
    match error {
        Some((code, _)) if kind(code) == Kind::Credentials => {
            LookUpOutcome::RefusedCredentials(code)
        }
        Some((code, message)) if kind(code) == Kind::License => {
            LookUpOutcome::Refused(code, message)
        }
        // Reading a licence cannot be wrong for the limit, and a request that the server does not
        // understand says nothing of the licence.
        Some((_, message)) => invalid(message),
        None => invalid(format!(
            "status {} without an answer of the contract's",
            answer.status
        )),
    }
}

/// The fields of a feature's answer that bear on its limit. The server writes the limit in the plural here, and in the singular
/// where it describes a licence.
#[derive(serde::Deserialize)]
struct FeatureAnswer {
    #[serde(alias = "max_consumption")]
    max_consumptions: i64,
    total_consumptions: Total,
    feature_type: Option<String>,
    allow_unlimited_consumptions: Option<bool>,
    allow_negative_consumptions: Option<bool>,
    allow_overages: Option<bool>,
    max_overages: Option<i64>,
    reset_consumption: Option<bool>,
    consumption_period: Option<Period>,
}

fn counted(body: &[u8], is_feature: bool) -> Option<Counted> {
    let as_of = Timestamp::default();
    if !is_feature {
        let InPool { counter, pool }: InPool<Counter> = serde_json::from_slice(body).ok()?;
        let standing = counter.standing(as_of);
        return Some(Counted { standing, pool });
    }
    let InPool { counter, pool }: InPool<FeatureAnswer> = serde_json::from_slice(body).ok()?;
    let kind = counter.feature_type.as_deref();
    if kind.is_some_and(|kind| kind != FEATURE_TYPE_CONSUMPTION) {
        return None;
    }
    let is_reset = counter.reset_consumption.unwrap_or_default();
    let standing = Standing {
        limits: Limits {
            max_consumptions: counter.max_consumptions,
            allow_unlimited_consumptions: counter.allow_unlimited_consumptions.unwrap_or_default(),
            allow_negative_consumptions: counter.allow_negative_consumptions.unwrap_or_default(),
            allow_overages: counter.allow_overages.unwrap_or_default(),
            max_overages: counter.max_overages.unwrap_or_default(),
        },
        reset: counter.consumption_period.filter(|_| is_reset),
        total: counter.total_consumptions,
        as_of,
    };
    Some(Counted { standing, pool })
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
        | E::LicenseExpired
        | E::UnsupportedProductFeature
        | E::InvalidLicenseFeatureCode => Kind::License,
        E::NegativeConsumptionsNotAllowed
        | E::ValidationError
        | E::MissingParameters
        | E::InvalidJson
        | E::NotFound
        | E::MethodNotAllowed
        | E::UnsupportedMediaType
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
        | E::RequestTimeout
        | E::Unauthorized
        | E::Forbidden => Kind::Unclear,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COUNTER: &str = r#"{"id":1,"max_consumptions":10,"total_consumptions":2,
        "allow_unlimited_consumptions":false,"allow_negative_consumptions":false,
        "allow_overages":false,"max_overages":0,"reset_consumption":false,
        "consumption_period":null}"#;

    fn answer(status: u16, body: &str) -> Exchange {
        Exchange::Answer(RawAnswer {
            status,
            signature: None,
            retry_after: Some(Duration::from_secs(7)),
            is_fresh: true,
            body: body.as_bytes().to_vec(),
        })
    }

    fn error(status: u16, code: &str) -> Exchange {
        answer(
            status,
            &format!(r#"{{"status":{status},"code":"{code}","message":"m"}}"#),
        )
    }

    fn send(exchange: Exchange) -> SendOutcome {
        of_send(exchange, false, None)
    }

    #[track_caller]
    fn check_unknown(exchange: Exchange) {
        let outcome = send(exchange);
        assert!(matches!(outcome, SendOutcome::Unknown(..)), "{outcome:?}");
    }

    #[test]
    fn only_a_complete_answer_of_the_contracts_is_believed() {
        assert!(matches!(
            send(answer(200, COUNTER)),
            SendOutcome::Applied(_)
        ));
        check_unknown(answer(200, "<html>Please sign in"));
        check_unknown(answer(200, r#"{"id":1}"#));
        check_unknown(answer(302, ""));
        check_unknown(answer(403, "<html>blocked by a proxy"));
        check_unknown(Exchange::NoAnswer("timed out".to_owned()));
    }

    #[test]
    fn what_a_gateway_may_say_after_the_request_went_through_is_unknown() {
        check_unknown(error(500, "internal_error"));
        check_unknown(answer(502, ""));
        check_unknown(error(503, "unavailable"));
        check_unknown(answer(504, ""));
        check_unknown(error(409, "idempotency_key_in_use"));
    }

    #[test]
    fn what_never_reached_the_servers_judgement_is_certainly_not_applied() {
        let unreached = send(Exchange::NotSent("refused".to_owned()));
        assert_eq!(unreached, SendOutcome::Unreached("refused".to_owned()));
        let throttled = send(answer(429, "slow down"));
        assert_eq!(
            throttled,
            SendOutcome::Throttled(Some(Duration::from_secs(7)))
        );
    }

    #[test]
    fn refusals_are_sorted_by_what_they_concern() {
        assert_eq!(
            send(error(400, "license_not_enough_consumptions")),
            SendOutcome::RefusedLimit
        );
        assert_eq!(
            send(error(400, "blacklisted")),
            SendOutcome::RefusedLicense(ErrorCode::Blacklisted)
        );
        assert_eq!(
            send(error(401, "signature_mismatch")),
            SendOutcome::RefusedCredentials(ErrorCode::SignatureMismatch)
        );
        assert!(matches!(
            send(error(400, "a_code_of_a_newer_server")),
            SendOutcome::RefusedRequest(ErrorCode::ValidationError, _)
        ));
    }

    #[test]
    fn an_unsigned_answer_is_no_success_where_signatures_are_verified() {
        let signer = tally_shared::signature::Signer::generate().unwrap();
        let verifier = Verifier::from_pem(&signer.public_pem().unwrap()).unwrap();
        let unsigned = of_send(answer(200, COUNTER), false, Some(&verifier));
        assert!(matches!(unsigned, SendOutcome::Unknown(..)));
    }
}
