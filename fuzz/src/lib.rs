//! What the fuzz targets do with their bytes. Each must not panic, and must keep a property that a user
//! relies on. `fuzz/README.md` says how to run them.

mod ledger;

use serde::de::IgnoredAny;
use tally_agent::core::outcome::{self, Exchange, LookUpOutcome, RawAnswer, SendOutcome};
use tally_shared::{
    auth::{self, Authorization, SharedKey},
    signature::Verifier,
    time::Timestamp,
    wire::{AddConsumption, CheckLicense, Subject},
};

pub use self::ledger::{ledger, sample};

/// The bodies and queries of applications: what is read can be written, and then reads the same.
///
/// # Panics
///
/// Where it does not.
pub fn request_body(bytes: &[u8]) {
    if let Ok(request) = AddConsumption::from_json(bytes) {
        let again = AddConsumption::from_json(&request.to_json());
        assert_eq!(again.ok().as_ref(), Some(&request));
    }
    if let Ok(request) = AddConsumption::feature_from_json(bytes) {
        assert!(request.feature.is_some());
        let again = AddConsumption::feature_from_json(&request.to_json());
        assert_eq!(again.ok().as_ref(), Some(&request));
    }
    let pairs = serde_urlencoded::from_bytes::<Vec<(String, String)>>(bytes);
    if let Ok(request) = CheckLicense::from_query(pairs.unwrap_or_default()) {
        let pairs = request.to_query().into_iter();
        let again = CheckLicense::from_query(pairs.map(|(name, value)| (name.to_owned(), value)));
        assert_eq!(again.map(|again| again.subject).ok(), Some(request.subject));
    }
}

/// An `Authorization` header, a line feed, and a `Date` header: a signature that was not made with the
/// key is never taken, and one that was is.
///
/// # Panics
///
/// Where it is not so.
pub fn authorization(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let (header, date) = text.split_once('\n').unwrap_or((&text, ""));
    let now = Timestamp::parse("2026-11-23T12:00:00Z").unwrap_or_default();
    let is_timely = auth::check_date(date, now).is_ok();
    assert!(!is_timely || Timestamp::from_http_date(date).is_some());
    let key = SharedKey::new("a key that no input knows");
    let Ok(found) = Authorization::parse(header) else {
        return;
    };
    assert!(found.verify(&key, date).is_err());
    let api_key = found.api_key().to_owned();
    let right = auth::authorization_with(&api_key, &key, date);
    let parsed = Authorization::parse(&right);
    let is_right =
        parsed.is_ok_and(|parsed| parsed.api_key() == api_key && parsed.verify(&key, date).is_ok());
    assert!(is_right, "{right:?} does not verify");
}

/// An answer of the server: two bytes of status, one that says what it answers, and the body. Only a 200
/// with the contract's body is success, and none without a signature where one is asked for.
///
/// # Panics
///
/// Where something else is.
pub fn server_answer(bytes: &[u8]) {
    let Some(([high, low, flags], body)) = bytes.split_first_chunk::<3>() else {
        return;
    };
    let (is_feature, is_signed) = (flags & 1 != 0, flags & 2 != 0);
    let answer = RawAnswer {
        status: u16::from_be_bytes([*high, *low]),
        signature: is_signed.then(|| String::from_utf8_lossy(body).into_owned()),
        retry_after: None,
        is_fresh: true,
        body: body.to_vec(),
    };
    let is_json = serde_json::from_slice::<IgnoredAny>(body).is_ok() && !body.starts_with(b"[");
    let has = |name: &str| {
        body.windows(name.len())
            .any(|found| found == name.as_bytes())
    };
    // A name can be written with escapes.
    let has_total = has("total_consumptions") || has("\\u");
    let may_be_success = answer.status == 200 && is_json && has_total;
    let sent = |verifier| outcome::of_send(Exchange::Answer(answer.clone()), is_feature, verifier);
    assert!(may_be_success || !matches!(sent(None), SendOutcome::Applied(_)));
    let subject = Subject::by_key("product", "KEY", "device");
    let read = |verifier| outcome::of_look_up(Exchange::Answer(answer.clone()), &subject, verifier);
    assert!(may_be_success || !matches!(read(None), LookUpOutcome::Found(_)));
    let Some(verifier) = verifier() else { return };
    assert!(!matches!(sent(Some(verifier)), SendOutcome::Applied(_)));
    assert!(!matches!(read(Some(verifier)), LookUpOutcome::Found(_)));
}

/// Of a key that nobody has.
fn verifier() -> Option<&'static Verifier> {
    static VERIFIER: std::sync::OnceLock<Option<Verifier>> = std::sync::OnceLock::new();
    let made = VERIFIER.get_or_init(|| {
        let signer = tally_shared::signature::Signer::generate().ok()?;
        Verifier::from_pem(&signer.public_pem().ok()?).ok()
    });
    made.as_ref()
}
