//! What a request pays for by itself: the decision, its link of the chain, its body, its signatures.

use divan::{Bencher, black_box};
use tally_agent::core::{
    Standings,
    book::{AppNo, Seq},
    chain::{Hash, Key, Link},
};
use tally_shared::wire::InPool;
use tally_shared::{
    auth::{self, Authorization, SharedKey},
    limits::{Limits, OverageSetting, Request, Standing, decide},
    period::Period,
    signature::Signer,
    time::Timestamp,
    units::{Total, Units},
    wire::{AddConsumption, Counter},
};

/// As an SDK sends it.
const BODY: &[u8] = br#"{"license_key":"AAAA-BBBB-CCCC-DDDD","product":"inspect","hardware_id":"device-1","consumptions":1}"#;

const DATE: &str = "Tue, 07 Jun 2011 20:51:35 GMT";

fn now() -> Timestamp {
    Timestamp::from_http_date(DATE).unwrap()
}

fn standing() -> Standing {
    Standing {
        limits: Limits {
            max_consumptions: 1_000_000,
            allow_unlimited_consumptions: false,
            allow_negative_consumptions: false,
            allow_overages: true,
            max_overages: 1_000,
        },
        reset: Some(Period::Monthly),
        total: Total::new(41_000),
        as_of: now(),
    }
}

/// May it be consumed, where totals return to zero each month?
#[divan::bench]
fn limit_decision(bencher: Bencher<'_, '_>) {
    let (standing, now) = (standing(), now().plus_millis(1_000));
    let request = Request {
        units: Units::new(1),
        setting: OverageSetting::default(),
    };
    bencher.bench(|| {
        decide(
            black_box(&standing),
            black_box(Units::new(7)),
            black_box(&request),
            black_box(now),
        )
    });
}

/// The hash of one row.
#[divan::bench]
fn chain_step(bencher: Bencher<'_, '_>) {
    let key = Key::new(&[7; 32]);
    let (previous, lane) = (Hash([1; 32]), Hash([2; 32]));
    let link = Link {
        seq: Seq(1_000_000),
        lane: &lane,
        app: AppNo(1),
        units: Units::new(1),
        total: Total::new(41_008),
        at: now(),
        time_proven: true,
    };
    bencher.bench(|| key.next(black_box(&previous), black_box(&link)));
}

/// The body of a request, read and checked.
#[divan::bench]
fn parse_request() -> AddConsumption {
    AddConsumption::from_json(black_box(BODY)).unwrap()
}

/// The body of an answer.
#[divan::bench]
fn write_answer(bencher: Bencher<'_, '_>) {
    let answer = Standings::License(InPool {
        counter: Counter::new(1, &standing(), Total::new(41_008)),
        pool: None,
    });
    bencher.bench(|| serde_json::to_string(black_box(&answer)));
}

/// The `Date` and `Authorization` of a request, read and proved.
#[divan::bench]
fn check_signature(bencher: Bencher<'_, '_>) {
    let key = SharedKey::new("shared-key");
    let header = auth::authorization_with("api-key", &key, DATE);
    let now = now();
    bencher.bench(|| {
        auth::check_date(black_box(DATE), now).unwrap();
        let authorization = Authorization::parse(black_box(&header)).unwrap();
        authorization.verify(&key, DATE).unwrap();
    });
}

/// The signature of an answer: RSA, 2,048 bits.
#[divan::bench]
fn sign_answer(bencher: Bencher<'_, '_>) {
    let signer = Signer::generate().unwrap();
    let answer = Standings::License(InPool {
        counter: Counter::new(1, &standing(), Total::new(41_008)),
        pool: None,
    });
    let answer = serde_json::to_string(&answer).unwrap();
    bencher.bench(|| signer.sign(black_box(answer.as_bytes())).unwrap());
}
