//! The control API without the token, by a browser that was let in, and by other users of the device.

use std::{os::unix::fs::PermissionsExt, process::Command};

use anyhow::Context as _;
use tally_tests::Result;

use crate::target::Target;

/// Everything that shows or changes state.
const ROUTES: [(&str, &str); 13] = [
    ("GET", "/metrics"),
    ("GET", "/v1/status"),
    ("GET", "/v1/licenses"),
    ("GET", "/v1/events"),
    ("GET", "/v1/batches"),
    ("POST", "/v1/licenses"),
    ("POST", "/v1/batches/1/resolve"),
    ("POST", "/v1/server/moved"),
    ("POST", "/v1/sync"),
    ("PUT", "/v1/network"),
    ("POST", "/v1/apps"),
    ("DELETE", "/v1/apps/victim"),
    ("POST", "/v1/apps/reload"),
];

#[test]
fn without_the_token_nothing_is_shown_or_changed() -> Result {
    let mut target = Target::start()?;
    let signature = target.signature();
    let token = target.token.clone();
    let half = &token[..token.len() / 2];
    for headers in [
        String::new(),
        "Authorization: Bearer \r\n".to_owned(),
        "Authorization: Bearer wrong\r\n".to_owned(),
        format!("Authorization: Bearer {half}\r\n"),
        format!("Authorization: Bearer {token}x\r\n"),
        format!("Authorization: Basic {token}\r\n"),
        format!("Authorization: {token}\r\n"),
        format!("Cookie: admin_token={token}\r\n"),
        format!(
            "Cookie: tally_session_{}={token}\r\n",
            target.address().port()
        ),
        // An application is no administrator.
        signature,
    ] {
        // Each wrong token waits longer: one route is enough for these.
        let wrong = headers.contains("Authorization");
        for (method, path) in ROUTES.iter().take(if wrong { 1 } else { ROUTES.len() }) {
            let request = target.control(&format!("{method} {path}"), &headers, false);
            target.check_refused(&request, "unauthorized")?;
        }
    }
    let in_query = target.control(&format!("GET /v1/status?token={token}"), "", false);
    target.check_refused(&in_query, "unauthorized")?;
    let mode = std::fs::metadata(target.agent.data_dir().join("admin_token"))?;
    assert_eq!(mode.permissions().mode() & 0o777, 0o600);
    let open = target.ask(&target.control("GET /healthz", "", false))?;
    assert_eq!(
        (open.status, open.body.as_str()),
        (200, r#"{"status":"ok"}"#)
    );
    target.check_unharmed()
}

#[test]
fn a_browser_is_let_in_once_by_a_link_and_then_by_its_cookie() -> Result {
    let mut target = Target::start()?;
    let link = target.agent.json(&["dashboard"])?;
    let url = link["url"].as_str().context("a link")?.to_owned();
    let path = url
        .strip_prefix(target.agent.url()?)
        .context("the agent's own address")?
        .to_owned();
    let follow = target.control(&format!("GET {path}"), "Sec-Fetch-Site: none\r\n", false);
    let guess = target.control("GET /open?code=guess", "", false);
    assert_eq!(target.ask(&guess)?.status, 401);
    let opened = target.ask(&follow)?;
    assert_eq!((opened.status, opened.header("location")), (303, Some("/")));
    assert_eq!(opened.header("referrer-policy"), Some("no-referrer"));
    let cookie = opened.header("set-cookie").context("a cookie")?.to_owned();
    for part in ["HttpOnly", "SameSite=Strict", "Path=/"] {
        assert!(cookie.contains(part), "{cookie}");
    }
    assert!(!cookie.contains(&target.token), "{cookie}");
    // Once: who finds it in the browser's history, or in a list of processes, comes too late.
    assert_eq!(target.ask(&follow)?.status, 401);

    let cookie = cookie.split(';').next().unwrap_or_default();
    let own = format!("Origin: http://{}\r\n", target.address());
    let ask = |line: &str, headers: &str| {
        let headers = format!("Cookie: other=1; {cookie}\r\n{headers}");
        target.ask(&target.control(line, &headers, false))
    };
    assert_eq!(
        ask("GET /v1/status", "Sec-Fetch-Site: same-origin\r\n")?.status,
        200
    );
    assert_eq!(ask("POST /v1/sync", &own)?.status, 200);
    // What changes something comes from the agent's own page, and says so.
    assert_eq!(ask("POST /v1/sync", "")?.status, 401);
    assert_eq!(
        ask("POST /v1/sync", "Origin: http://evil.example\r\n")?.status,
        403
    );
    assert_eq!(
        ask("GET /v1/status", "Sec-Fetch-Site: same-site\r\n")?.status,
        403
    );
    target.agent.restart()?;
    Ok(())
}

#[test]
fn another_user_of_the_device_cannot_use_the_socket() -> Result {
    if !rustix::process::geteuid().is_root() {
        eprintln!("not tried: only root can act as another user");
        return Ok(());
    }
    let mut target = Target::start()?;
    let socket = target.agent.data_dir().join("tally.sock");
    // Somebody has opened the folders, all the way down.
    let mut folder = socket.clone();
    while folder.pop() && folder.starts_with(std::env::temp_dir()) && folder != std::env::temp_dir()
    {
        std::fs::set_permissions(&folder, PermissionsExt::from_mode(0o755))?;
    }
    std::fs::set_permissions(&socket, PermissionsExt::from_mode(0o777))?;
    let program = "import os, socket, sys\n\
        if sys.argv[2] != '0': os.setgid(int(sys.argv[2])); os.setuid(int(sys.argv[2]))\n\
        s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1])\n\
        try:\n    s.sendall(b'GET /healthz HTTP/1.1\\r\\nHost: localhost\\r\\n\\r\\n'); print(len(s.recv(100)))\n\
        except OSError: print(0)\n";
    let read_as = |user: &str| -> Result<String> {
        let mut command = Command::new("python3");
        let output = command
            .args(["-c", program])
            .arg(&socket)
            .arg(user)
            .output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        anyhow::ensure!(output.status.success(), "{said}");
        Ok(String::from_utf8(output.stdout)?.trim().to_owned())
    };
    assert_eq!(read_as("0")?, "100");
    assert_eq!(read_as("65534")?, "0");
    assert_eq!(target.agent.json(&["status"])?["wrong_keys"], 1);
    target.check_unharmed()
}
