//! The lab's page at `/`: three files inside the program, and no request to anywhere else.

use axum::{
    Router,
    response::{IntoResponse as _, Response},
    routing::get,
};
use hyper::header::CONTENT_TYPE;

use std::sync::Arc;

use super::state::Shared;

const PAGE: &str = include_str!("../../lab/index.html");
const STYLE: &str = include_str!("../../lab/lab.css");
const SCRIPT: &str = include_str!("../../lab/lab.js");
const ICON: &str = include_str!("../../lab/icon.svg");

/// The routes of the page.
pub(super) fn router() -> Router<Arc<Shared>> {
    let file = |content_type: &'static str, text: &'static str| {
        get(async move || -> Response { ([(CONTENT_TYPE, content_type)], text).into_response() })
    };
    Router::new()
        .route("/", file("text/html; charset=utf-8", PAGE))
        .route("/lab.css", file("text/css; charset=utf-8", STYLE))
        .route("/lab.js", file("text/javascript; charset=utf-8", SCRIPT))
        .route("/icon.svg", file("image/svg+xml", ICON))
}
