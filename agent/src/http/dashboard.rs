//! The dashboard at `/`: files inside the program, and no request to anywhere else. The files hold nothing
//! that is secret; what they show comes from the control API, for a browser that was let in.

use axum::{
    Router,
    extract::State,
    http::{
        HeaderMap, HeaderName,
        header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY},
    },
    response::{IntoResponse as _, Response},
    routing::get,
};

use super::{Api, admin};

const PAGE: &str = include_str!("../../dashboard/index.html");
const STYLE: &str = include_str!("../../dashboard/dashboard.css");
const SCRIPTS: [(&str, &str); 8] = [
    (
        "/dashboard.js",
        include_str!("../../dashboard/dashboard.js"),
    ),
    ("/agent.js", include_str!("../../dashboard/agent.js")),
    ("/decide.js", include_str!("../../dashboard/decide.js")),
    ("/doubts.js", include_str!("../../dashboard/doubts.js")),
    ("/held.js", include_str!("../../dashboard/held.js")),
    ("/ledger.js", include_str!("../../dashboard/ledger.js")),
    ("/licenses.js", include_str!("../../dashboard/licenses.js")),
    ("/parts.js", include_str!("../../dashboard/parts.js")),
];
const ICON: &str = include_str!("../../dashboard/icon.svg");

/// Only what the agent itself serves is run, shown or asked.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; \
                      connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'";

/// The routes of the page.
pub(super) fn router() -> Router<Api> {
    let file = |content_type: &'static str, text: &'static str| {
        get(async move || served(content_type, text))
    };
    let files = Router::new()
        .route("/", get(page))
        .route("/dashboard.css", file("text/css; charset=utf-8", STYLE))
        .route("/icon.svg", file("image/svg+xml", ICON));
    SCRIPTS.into_iter().fold(files, |files, (path, script)| {
        files.route(path, file("text/javascript; charset=utf-8", script))
    })
}

async fn page(State(api): State<Api>, headers: HeaderMap) -> Response {
    if admin::is_let_in(&api, &headers) {
        served("text/html; charset=utf-8", PAGE)
    } else {
        admin::closed()
    }
}

fn served(content_type: &'static str, text: &'static str) -> Response {
    let headers: [(HeaderName, &str); 4] = [
        (CONTENT_TYPE, content_type),
        (CONTENT_SECURITY_POLICY, POLICY),
        // Another version of the agent may answer next time.
        (CACHE_CONTROL, "no-store"),
        (REFERRER_POLICY, "no-referrer"),
    ];
    (headers, text).into_response()
}
