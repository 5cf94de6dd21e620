//! `GET /metrics`: the status as Prometheus reads it (the text format of `OpenMetrics`).

use axum::{
    extract::State,
    http::header::CONTENT_TYPE,
    response::{IntoResponse as _, Response},
};
use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{counter::Counter, family::Family, gauge::Gauge, info::Info},
    registry::Registry,
};
use tally_shared::wire::ErrorCode;

use super::{
    Api,
    answer::{Refused, Result},
    control_api::{FullStatus, current_status},
};
use crate::{core::report::LicenseStatus, foreign::shown, ledger::storage::Storage};

const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Which licence a value is of. Keys are masked: metrics are kept for long, and by others.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Of {
    id: i64,
    product: String,
    holder: String,
    feature: String,
}

/// Where units are.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Units {
    id: i64,
    product: String,
    holder: String,
    feature: String,
    state: &'static str,
}

/// The status as Prometheus reads it.
#[cfg_attr(feature = "openapi", utoipa::path(
    get, path = "/metrics", tag = "state",
    responses((status = 200, description = "The text format of OpenMetrics", body = String, content_type = "application/openmetrics-text")),
))]
pub(super) async fn metrics(State(api): State<Api>) -> Result<Response> {
    let status = current_status(&api).await?;
    let mut text = String::new();
    encode(&mut text, &registry(&status))
        .map_err(|_| Refused::new(ErrorCode::InternalError, "the metrics cannot be written"))?;
    Ok(([(CONTENT_TYPE, OPEN_METRICS)], text).into_response())
}

fn registry(status: &FullStatus) -> Registry {
    let mut registry = Registry::with_prefix("tally");
    let FullStatus {
        status,
        storage,
        wrong_keys,
        ..
    } = status;
    let version = Info::new([("version", status.version)]);
    registry.register("build", "The agent's version", version);
    let mut gauge = |name: &str, help: &str, value: i64| {
        let gauge: Gauge = Gauge::default();
        gauge.set(value);
        registry.register(name, help, gauge);
    };
    let connection = &status.connection;
    gauge(
        "online",
        "Whether the licence server can be reached",
        i64::from(connection.state == "online"),
    );
    if let Some(millis) = connection.last_answer_ms {
        gauge(
            "last_answer_age_seconds",
            "How long ago the licence server last answered",
            seconds(millis),
        );
    }
    gauge(
        "clock_proven",
        "Whether the server has confirmed the clock since the device started",
        i64::from(status.time_proven),
    );
    gauge(
        "synced",
        "Whether nothing is left to send but what is held",
        i64::from(status.synced),
    );
    gauge(
        "ledger_writable",
        "Whether consumptions can be recorded",
        i64::from(*storage == Storage::Ok),
    );
    gauge(
        "findings",
        "Findings about the server's totals that nobody has seen",
        i64::try_from(status.findings.len()).unwrap_or(i64::MAX),
    );
    gauge(
        "findings_units",
        "Units in question in these findings",
        status.findings.iter().fold(0, |sum: i64, finding| {
            sum.saturating_add(finding.units.get())
        }),
    );
    let mut counter = |name: &str, help: &str, value: u64| {
        let counter: Counter = Counter::default();
        counter.inc_by(value);
        registry.register(name, help, counter);
    };
    counter(
        "evidence",
        "How often a start found that the ledger had been changed behind the agent's back, ever",
        status.evidence_ever,
    );
    counter(
        "wrong_keys",
        "Requests with a wrong key since the start",
        *wrong_keys,
    );
    of_licenses(&mut registry, &status.licenses);
    registry
}

fn of_licenses(registry: &mut Registry, licenses: &[LicenseStatus]) {
    let mut family = |name: &str, help: &str, value: &dyn Fn(&LicenseStatus) -> Option<i64>| {
        let family = Family::<Of, Gauge>::default();
        for license in licenses {
            if let Some(value) = value(license) {
                family.get_or_create(&of(license)).set(value);
            }
        }
        registry.register(name, help, family);
    };
    family(
        "total",
        "The total that requests are judged by, with what the server has not counted yet",
        &|license| Some(license.total.get()),
    );
    family(
        "server_total",
        "The server's total, as last heard of",
        &|license| Some(license.server_total.get()),
    );
    family(
        "cap",
        "The highest total that is allowed, overage included; absent without bound",
        &|license| license.cap,
    );
    family("refused", "Whether the server refuses it", &|license| {
        Some(i64::from(license.refused.is_some()))
    });
    family(
        "held_batches",
        "Batches that wait for something to change",
        &|license| i64::try_from(license.held.len()).ok(),
    );
    family(
        "late_units",
        "Units that were sent after their period was over, ever",
        &|license| Some(license.late.get()),
    );
    let units = Family::<Units, Gauge>::default();
    for license in licenses {
        let Of {
            id,
            product,
            holder,
            feature,
        } = of(license);
        let sums = license.conservation;
        for (state, value) in [
            ("settled", sums.settled),
            ("pending", sums.pending),
            ("in_flight", sums.in_flight),
            ("unknown", sums.unknown),
            ("held", sums.held),
            ("waived", sums.waived),
        ] {
            let labels = Units {
                id,
                product: product.clone(),
                holder: holder.clone(),
                feature: feature.clone(),
                state,
            };
            units.get_or_create(&labels).set(value);
        }
    }
    registry.register(
        "units",
        "Where all units are that were ever recorded; their sum is what was granted",
        units,
    );
}

fn of(license: &LicenseStatus) -> Of {
    Of {
        id: license.id,
        product: shown(&license.product).into_owned(),
        holder: shown(&license.masked_holder()).into_owned(),
        feature: shown(license.feature.as_deref().unwrap_or_default()).into_owned(),
    }
}

fn seconds(millis: u64) -> i64 {
    i64::try_from(millis / 1000).unwrap_or(i64::MAX)
}
