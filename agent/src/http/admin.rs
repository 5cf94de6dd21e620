//! Who may use the control API: holders of the admin token, and a browser that was let in by a link.
//!
//! The token lies in a file that only the agent's user can read, so knowing it proves to be that user.
//! A browser cannot read files: `tally dashboard` asks for a link that works once, and the browser gets
//! a cookie for it that no script reads and no other site sends.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use axum::{
    Extension,
    extract::{RawQuery, Request, State},
    http::{
        HeaderMap, HeaderValue, Method, StatusCode,
        header::{
            CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, COOKIE, HOST, LOCATION, ORIGIN,
            REFERRER_POLICY, SET_COOKIE,
        },
    },
    middleware::Next,
    response::{IntoResponse as _, Response},
};
use serde::{Deserialize, Serialize};
use tally_shared::wire::ErrorCode;

use super::{
    Api,
    answer::{Refused, Result, plain},
    connection::Connection,
    guard::Decisive,
};
use crate::secret::{NoRandom, Secret};

/// How long a link to the dashboard works.
const LINK_TIME: Duration = Duration::from_mins(1);

/// How long a browser stays let in.
const SESSION_TIME: Duration = Duration::from_hours(12);

/// Links, and browsers, at the same time; the oldest gives way.
const GRANTS_MAX: usize = 16;

/// What opens the control API.
pub(super) struct Admin {
    token: Secret,
    links: Mutex<Vec<Grant>>,
    sessions: Mutex<Vec<Grant>>,
}

/// A secret that works until a time on the monotonic clock.
struct Grant {
    secret: Secret,
    until: Duration,
}

/// What `POST /v1/dashboard` answers.
#[derive(Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct DashboardLink {
    /// Opens the dashboard, once.
    pub url: String,
    /// For how long, in seconds.
    pub expires_in: u64,
}

impl Admin {
    /// Opened by this token.
    pub(super) const fn new(token: Secret) -> Self {
        Self {
            token,
            links: Mutex::new(Vec::new()),
            sessions: Mutex::new(Vec::new()),
        }
    }

    fn is_token(&self, given: &str) -> bool {
        self.token.is(given)
    }

    fn has_session(&self, given: &str, now: Duration) -> bool {
        let mut sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        sessions.retain(|grant| grant.until > now);
        sessions.iter().any(|grant| grant.secret.is(given))
    }

    /// Makes a link's code.
    fn link(&self, now: Duration) -> std::result::Result<Secret, NoRandom> {
        grant(&self.links, now, LINK_TIME)
    }

    /// Turns a link's code into a session; `None` where it is not one, or was used.
    fn open(&self, code: &str, now: Duration) -> Option<std::result::Result<Secret, NoRandom>> {
        let mut links = self.links.lock().unwrap_or_else(PoisonError::into_inner);
        links.retain(|grant| grant.until > now);
        let place = links.iter().position(|grant| grant.secret.is(code))?;
        links.swap_remove(place);
        drop(links);
        Some(grant(&self.sessions, now, SESSION_TIME))
    }
}

fn grant(
    grants: &Mutex<Vec<Grant>>,
    now: Duration,
    time: Duration,
) -> std::result::Result<Secret, NoRandom> {
    let secret = Secret::random::<32>()?;
    let mut grants = grants.lock().unwrap_or_else(PoisonError::into_inner);
    if grants.len() >= GRANTS_MAX {
        grants.remove(0);
    }
    grants.push(Grant {
        secret: secret.clone(),
        until: now.saturating_add(time),
    });
    Ok(secret)
}

/// What a request shows to be let in.
enum Shown {
    Nothing,
    Wrong,
    Right,
}

/// Lets a control call through where it shows the token, or a browser's cookie.
pub(super) async fn require(
    State(api): State<Api>,
    Extension(connection): Extension<Arc<Connection>>,
    request: Request,
    next: Next,
) -> Response {
    match shown(&api, request.method(), request.headers()) {
        Ok(Shown::Right) => {}
        Ok(Shown::Nothing) => return unauthorized().into_response(),
        Ok(Shown::Wrong) => {
            let now = api.clocks.mono();
            api.strangers.meet(&connection, now, "a control call").await;
            return unauthorized().into_response();
        }
        Err(refused) => return refused.into_response(),
    }
    connection.prove();
    let _slot = match api.control_slots.take() {
        Ok(slot) => slot,
        Err(error) => return Refused::from(error).into_response(),
    };
    next.run(request).await
}

fn shown(api: &Api, method: &Method, headers: &HeaderMap) -> Result<Shown> {
    if let Some(authorization) = Decisive::of(headers)?.authorization() {
        let token = authorization
            .split_once(' ')
            .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
            .map(|(_, token)| token.trim());
        return Ok(match token {
            Some(token) if api.admin.is_token(token) => Shown::Right,
            _ => Shown::Wrong,
        });
    }
    let Some(session) = cookie(headers) else {
        return Ok(Shown::Nothing);
    };
    // A browser names the origin of whatever changes something; the guard has checked that it is ours.
    if !(method.is_safe() || headers.contains_key(ORIGIN)) {
        return Ok(Shown::Nothing);
    }
    // An old cookie is no attack.
    Ok(if api.admin.has_session(session, api.clocks.mono()) {
        Shown::Right
    } else {
        Shown::Nothing
    })
}

/// Cookies are shared by all ports of a host: each agent's has a name of its own.
fn cookie_name(headers: &HeaderMap) -> String {
    let host = headers.get(HOST).and_then(|host| host.to_str().ok());
    let port = host.and_then(|host| host.rsplit_once(':'));
    let port = port.map_or("0", |(_, port)| port);
    let port: String = port.chars().filter(char::is_ascii_digit).collect();
    format!("tally_session_{port}")
}

fn cookie(headers: &HeaderMap) -> Option<&str> {
    let name = cookie_name(headers);
    let lines = headers.get_all(COOKIE).iter();
    lines
        .filter_map(|line| line.to_str().ok())
        .flat_map(|line| line.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .find_map(|(found, value)| (found == name).then_some(value))
}

/// Makes a link to the dashboard that works once.
#[cfg_attr(feature = "openapi", utoipa::path(
    post, path = "/v1/dashboard", tag = "state",
    responses((status = 200, description = "The link", body = DashboardLink)),
))]
pub(super) async fn make_link(State(api): State<Api>) -> Result<Response> {
    let code = api.admin.link(api.clocks.mono())?;
    plain(&DashboardLink {
        url: format!("{}/open?code={}", api.origin, code.expose()),
        expires_in: LINK_TIME.as_secs(),
    })
}

/// Lets a browser in by its link.
pub(super) async fn open(
    State(api): State<Api>,
    Extension(connection): Extension<Arc<Connection>>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response> {
    let now = api.clocks.mono();
    let code = query
        .as_deref()
        .and_then(|query| query.strip_prefix("code="));
    let Some(session) = code.and_then(|code| api.admin.open(code, now)) else {
        let what = "a link to the dashboard";
        api.strangers.meet(&connection, now, what).await;
        let text =
            "This link was used already, or is too old. Run `tally dashboard` for a new one.";
        return Ok(page(StatusCode::UNAUTHORIZED, text));
    };
    connection.prove();
    let secure = if connection.is_public() {
        "; Secure"
    } else {
        ""
    };
    let cookie = format!(
        "{}={}; Path=/; HttpOnly; SameSite=Strict; Max-Age={}{secure}",
        cookie_name(&headers),
        session?.expose(),
        SESSION_TIME.as_secs()
    );
    let mut response = StatusCode::SEE_OTHER.into_response();
    let answer = response.headers_mut();
    answer.insert(LOCATION, HeaderValue::from_static("/"));
    answer.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    // Letters, digits and signs of a cookie only.
    if let Ok(cookie) = HeaderValue::from_str(&cookie) {
        answer.insert(SET_COOKIE, cookie);
    }
    Ok(response)
}

/// Whether a browser that sends this was let in.
pub(super) fn is_let_in(api: &Api, headers: &HeaderMap) -> bool {
    let now = api.clocks.mono();
    cookie(headers).is_some_and(|session| api.admin.has_session(session, now))
}

/// Says that the agent runs, and how to get in.
pub(super) fn closed() -> Response {
    page(
        StatusCode::OK,
        "Tally runs on this device. `tally status` shows its state; `tally dashboard` opens its page here.",
    )
}

fn page(status: StatusCode, text: &str) -> Response {
    let html = format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>Tally</title><p>{text}</p></html>"
    );
    let mut response = (status, html).into_response();
    let headers = response.headers_mut();
    let mut set = |name, value| headers.insert(name, HeaderValue::from_static(value));
    set(CONTENT_TYPE, "text/html; charset=utf-8");
    set(
        CONTENT_SECURITY_POLICY,
        "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
    );
    set(CACHE_CONTROL, "no-store");
    set(REFERRER_POLICY, "no-referrer");
    response
}

fn unauthorized() -> Refused {
    Refused::new(
        ErrorCode::Unauthorized,
        "the control API wants `Authorization: Bearer TOKEN`, with the token of the file \
         `admin_token` in the data directory; the dashboard is opened by `tally dashboard`",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::from_secs(100);

    fn admin() -> Admin {
        Admin::new(Secret::new("right".to_owned()))
    }

    #[test]
    fn a_link_opens_once_and_not_late() {
        let admin = admin();
        let code = admin.link(NOW).unwrap();
        assert!(admin.open("wrong", NOW).is_none());
        let session = admin.open(code.expose(), NOW).unwrap().unwrap();
        assert!(admin.open(code.expose(), NOW).is_none());
        assert!(admin.has_session(session.expose(), NOW));
        assert!(!admin.has_session("", NOW));
        assert!(!admin.has_session(session.expose(), NOW + SESSION_TIME));
        let late = admin.link(NOW).unwrap();
        assert!(admin.open(late.expose(), NOW + LINK_TIME).is_none());
    }

    #[test]
    fn links_are_bounded_and_the_oldest_gives_way() {
        let admin = admin();
        let first = admin.link(NOW).unwrap();
        let others: Vec<Secret> = (0..GRANTS_MAX).map(|_| admin.link(NOW).unwrap()).collect();
        assert!(admin.open(first.expose(), NOW).is_none());
        assert!(admin.open(others[0].expose(), NOW).is_some());
    }

    #[test]
    fn the_token_is_right_to_the_last_byte() {
        let admin = admin();
        assert!(admin.is_token("right"));
        for wrong in ["", "righ", "rightt", "Right", "wrong"] {
            assert!(!admin.is_token(wrong), "{wrong}");
        }
    }

    #[test]
    fn a_cookie_is_found_among_others_by_its_port() {
        let mut headers = HeaderMap::new();
        headers.insert(HOST, HeaderValue::from_static("127.0.0.1:7411"));
        let cookies = "other=1; tally_session_7412=no; tally_session_7411=yes";
        headers.insert(COOKIE, HeaderValue::from_static(cookies));
        assert_eq!(cookie(&headers), Some("yes"));
        headers.insert(HOST, HeaderValue::from_static("127.0.0.1:7413"));
        assert_eq!(cookie(&headers), None);
    }
}
