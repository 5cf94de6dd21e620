//! `tally-stub scenario`: what it accepts, and what its exit code says. Agents are in `tests/e2e`.

use std::{
    path::PathBuf,
    process::{Command, Output},
};

use serde_json::Value;
use tempfile::TempDir;

/// A scenario in which no agent runs, with this after its world.
fn without_agents(rest: &str) -> String {
    format!(
        r#"name = "Short"
story = "Nothing much."
agents = []
[[world.licenses]]
id = 1
product = "demo"
license_key = "AAAA"
devices = [{{ hardware_id = "hw-1" }}]
{rest}"#
    )
}

fn scenario(text: &str, args: &[&str]) -> Output {
    let folder = TempDir::new().unwrap();
    let path: PathBuf = folder.path().join("short.toml");
    std::fs::write(&path, text).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_tally-stub"));
    command
        .arg("scenario")
        .arg(&path)
        .args(args)
        .output()
        .unwrap()
}

/// The file must be refused with exit code 2, by one line that names this line and has this in it.
#[track_caller]
fn refused(text: &str, line: usize, expected: &str) {
    let output = scenario(text, &[]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert_eq!(said.trim_end().lines().count(), 1, "{said}");
    assert!(said.contains(&format!("short.toml:{line}: ")), "{said}");
    assert!(said.contains(expected), "{said}");
}

#[test]
fn a_file_that_cannot_be_used_is_refused_with_its_line_and_what_is_allowed() {
    refused("name = ", 1, "");
    refused(
        "name = \"a\"\nstory = \"b\"\nsead = 1\n",
        3,
        "unknown field `sead`, expected one of",
    );
    refused(
        &without_agents("[[steps]]\nat = \"soon\"\n"),
        10,
        "is not a time",
    );
    refused(
        &without_agents("[[steps]]\nat = \"1s\"\n"),
        9,
        "exactly one of faults, network, clock",
    );
    refused(
        &without_agents("[[steps]]\nnetwork = { state = \"foggy\" }\n"),
        10,
        "unknown variant `foggy`, expected one of `up`, `gone`, `slow`",
    );
    refused(
        &without_agents("[[steps]]\nfaults = [{ action = { explode = true } }]\n"),
        10,
        "unknown field `explode`, expected one of `drop`",
    );
    refused(
        &without_agents("[[steps]]\nlicense = { id = 7, set = { license_enabled = false } }\n"),
        9,
        "no licence with id 7; there are: 1",
    );
    refused(
        &without_agents("[[steps]]\nconsume = {}\n"),
        9,
        "there is no agent",
    );
    refused(
        &without_agents(
            "[[steps]]\nat = \"2s\"\nclock = { advance_ms = 1 }\n[[steps]]\nat = \"1s\"\nclock = { advance_ms = 1 }\n",
        ),
        12,
        "`at` is before",
    );
    refused(
        &without_agents("[expect]\nrefused = { too_much = 1 }\n"),
        10,
        "no code `too_much`",
    );
    refused(
        &without_agents("[expect]\nserver = [{ license = 2 }]\n"),
        10,
        "there are: 1",
    );
    refused(
        &without_agents("[expect]\ngranted = \"many\"\n"),
        10,
        "expected a number, or a range",
    );
}

#[test]
fn an_agent_that_nobody_knows_is_named() {
    let text = without_agents("[[steps]]\nconsume = { agent = \"van-8\" }\n").replace(
        "agents = []",
        "agents = [{ name = \"van-7\", hardware_id = \"hw-1\" }]",
    );
    refused(&text, 9, "there is no agent \"van-8\"; there are: van-7");
}

#[test]
fn what_holds_exits_with_0_and_says_so() {
    let text = without_agents(
        "[[steps]]\nlicense = { id = 1, set = { total_consumptions = 7 } }\n[expect]\nserver = [{ total = 7 }]\n",
    );
    let output = scenario(&text, &[]);
    let said = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert!(
        said.contains("license  licence 1: total_consumptions = 7"),
        "{said}"
    );
    assert!(
        said.contains("ok      server: total of licence 1"),
        "{said}"
    );
    assert!(said.contains("passed: 4 of 4 expectations hold"), "{said}");
}

#[test]
fn what_does_not_hold_exits_with_1_and_shows_what_was_found() {
    let text = without_agents(
        "[expect]\nwithin = \"50ms\"\nserver = [{ total = { min = 2, max = 3 } }]\n",
    );
    let output = scenario(&text, &[]);
    let said = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    let line = said
        .lines()
        .find(|line| line.contains("FAILED  server"))
        .unwrap();
    assert!(
        line.contains("expected 2 to 3") && line.ends_with("found 0"),
        "{line}"
    );
    assert!(
        said.contains("FAILED: 1 of 4 expectations do not hold"),
        "{said}"
    );
}

#[test]
fn machines_get_one_json_object() {
    let text = without_agents("[expect]\nwithin = \"50ms\"\nserver = [{ total = 1 }]\n");
    let output = scenario(&text, &["--json", "--seed", "99"]);
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        (&report["passed"], &report["seed"]),
        (&false.into(), &99.into())
    );
    let last = &report["expectations"][3];
    assert_eq!(
        (&last["expected"], &last["found"]),
        (&"1".into(), &"0".into())
    );
}

#[test]
fn a_program_of_the_timeline_gets_the_servers_address_and_its_exit_code_counts() {
    let program = |exit| {
        let check = "test -n '{server_url}' -a -n \"$SCENARIO_CONTROL_URL\" -a -s '{public_key}'";
        without_agents(&format!(
            "[[steps]]\nrun = {{ command = [\"sh\", \"-c\", \"\"\"{check}\"\"\"], exit = {exit} }}\n"
        ))
    };
    assert_eq!(scenario(&program(0), &[]).status.code(), Some(0));
    let output = scenario(&program(3), &[]);
    let said = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(
        said.contains("BROKE OFF  line 9: `sh` ended with exit status: 0, not with 3"),
        "{said}"
    );
}

#[test]
fn an_agent_that_does_not_start_breaks_the_scenario_off() {
    let text = without_agents("").replace("agents = []\n", "");
    let output = scenario(
        &text,
        &["--agent-command", "sh -c 'echo no ledger >&2; exit 4'"],
    );
    let said = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(
        said.contains("did not become ready: it ended with exit status: 4; it said: no ledger"),
        "{said}"
    );
    let missing = scenario(&text, &["--agent-command", "/no/such/agent"]);
    assert_eq!(missing.status.code(), Some(1));
}

#[test]
fn an_option_that_cannot_be_used_is_refused() {
    let output = scenario(&without_agents(""), &["--agent-command", "tally {folder}"]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(
        said.contains("{folder} is not a placeholder; there are {server_url}"),
        "{said}"
    );
}

#[test]
fn a_vendor_changes_keys_key_pairs_and_licences_in_steps() {
    let ask = "curl -sf \"$SCENARIO_CONTROL_URL\"/stub/v1/$0 | grep -q \"$1\"";
    let asks = |path: &str, text: &str| {
        format!(
            "[[steps]]\nrun = {{ command = [\"sh\", \"-c\", \'\'\'{ask}\'\'\', \"{path}\", '{text}'] }}\n"
        )
    };
    let text = without_agents(&[
        "[[steps]]\nidempotency = false\n".to_owned(),
        asks("idempotency", "false"),
        "[[steps]]\napi_key = { name = \"next\", shared_key = \"s\", state = \"revoked\" }\n".to_owned(),
        asks("api_keys/next", "revoked"),
        "[[steps]]\nlicense = { id = 1, remove = true }\n".to_owned(),
        "[[steps]]\nadd_license = { id = 5, product = \"demo\", license_key = \"AAAA\", total_consumptions = 3 }\n".to_owned(),
        asks("licenses", "\"id\":5"),
        "[expect]\nserver = [{ license = 5, total = 3, has = { license_key = \"AAAA\", license_enabled = true } }]\n".to_owned(),
    ]
    .concat());
    let output = scenario(&text, &[]);
    let said = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert!(said.contains("keys     not kept from now on"), "{said}");
    assert!(said.contains("api key  next: revoked"), "{said}");
    assert!(said.contains("licence 5 of AAAA is added"), "{said}");
    assert!(said.contains("server: license_key of licence 5"), "{said}");
}

#[test]
fn a_step_that_contradicts_itself_is_refused() {
    let step = |step: &str| without_agents(&format!("[[steps]]\n{step}\n"));
    refused(
        &step("license = { id = 1, remove = true, set = { max_consumptions = 1 } }"),
        9,
        "`set`, `unset` or both, or `remove`",
    );
    refused(
        &step("add_license = { product = \"demo\", license_key = \"B\" }"),
        9,
        "needs an `id`",
    );
    let two = |step: &str| {
        let agents = "agents = [{ name = \"a\", hardware_id = \"hw-1\" }, { name = \"b\", \
                      hardware_id = \"hw-1\", absent = true }]";
        without_agents(&format!("[[steps]]\n{step}\n")).replace("agents = []", agents)
    };
    let copy = "agent = { name = \"b\", action = \"copy\" }";
    refused(&two(copy), 9, "`copy` needs it");
    let itself = "agent = { action = \"copy\", from = \"a\" }";
    refused(&two(itself), 9, "the agent itself");
    let pair = "agent = { action = \"stop\", api_key = \"next\" }";
    refused(&two(pair), 9, "`start` and `restart` only");
    let nobody = "run = { agent = \"c\", command = [\"true\"] }";
    refused(&two(nobody), 9, "there is no agent \"c\"");
}

#[test]
fn a_folder_is_copied_saved_and_put_back_while_its_agent_is_stopped() {
    let order = |name: &str, action: &str| {
        format!("[[steps]]\nagent = {{ name = \"{name}\", action = \"{action}\" }}\n")
    };
    let shell = |agent: &str, line: &str| {
        let line = line.replace('D', "{data_dir}");
        format!(
            "[[steps]]\nrun = {{ agent = \"{agent}\", command = [\"sh\", \"-c\", '{line}'] }}\n"
        )
    };
    let story = [
        order("a", "stop"),
        shell("a", "echo 17 > D/ledger"),
        order("a", "save"),
        "[[steps]]\nagent = { name = \"b\", action = \"copy\", from = \"a\" }\n".to_owned(),
        shell("a", "echo 18 > D/ledger"),
        order("a", "put_back"),
        shell("a", "grep 17 D/ledger"),
        shell("b", "grep 17 D/ledger"),
        "[expect]\nconservation = false\ncounted_once = false\nwithin = \"50ms\"\n".to_owned(),
    ];
    let agents = "agents = [{ name = \"a\", hardware_id = \"hw-9\" }, { name = \"b\", \
                  hardware_id = \"hw-9\", absent = true }]";
    let text = without_agents(&story.concat()).replace("agents = []", agents);
    let fake = [
        "--agent-command",
        "sh -c 'echo ready http://127.0.0.1:1; exec sleep 60'",
    ];
    let output = scenario(&text, &fake);
    let said = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0), "{said}");

    let running = without_agents(&order("a", "save")).replace("agents = []", agents);
    let output = scenario(&running, &fake);
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(said.contains("the agent a runs: stop it"), "{said}");
}

#[test]
fn what_a_program_says_counts() {
    let says = |right: &str| {
        without_agents(&format!(
            "[[steps]]\nrun = {{ command = [\"echo\", \"a copy\"], says = \"{right}\" }}\n"
        ))
    };
    assert_eq!(scenario(&says("a copy"), &[]).status.code(), Some(0));
    let output = scenario(&says("an original"), &[]);
    let said = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(
        said.contains("did not say \"an original\", but: a copy"),
        "{said}"
    );
}
