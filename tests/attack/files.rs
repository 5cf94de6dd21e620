//! Files that are named to the agent and its commands: what stands beside them, and what stands in their place.

use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, symlink},
    path::{Path, PathBuf},
    process::Output,
};

use serde_json::json;
use tally_tests::Result;

use crate::{
    service_user::refusal,
    target::{ADD, Target},
};

fn names(folder: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder)? {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}

#[test]
fn a_log_takes_away_its_own_files_and_no_others() -> Result {
    let mut target = Target::start()?;
    let folder = tempfile::tempdir()?;
    let stays = [
        "tally.db",
        "tally.log-2026-01-01",
        "tally.log.2026-01-0",
        "tally.log.2026-01-011",
        "tally.log.2026-01-01.gz",
        "tally.log.2026-13-01",
        "tally.log.2026-xx-01",
        "tally.log.notes",
        "tally.toml",
        "tallying.csv",
    ];
    for name in stays {
        fs::write(folder.path().join(name), "mine")?;
    }
    fs::create_dir(folder.path().join("tally.log.2026-01-03"))?;
    for name in ["tally.log.2026-01-01", "tally.log.2026-01-02"] {
        fs::write(folder.path().join(name), "of an agent")?;
    }
    target.agent.terminate()?;
    let config = folder.path().join("settings");
    fs::write(&config, "[log]\ndays = 1\n")?;
    let mut command = target.agent.command(&["run", "--listen", "127.0.0.1:0"]);
    command.arg("--server-url").arg(target.stub.url());
    command.arg("--config").arg(&config);
    command
        .arg("--log-file")
        .arg(folder.path().join("tally.log"));
    let mut process = tally_tests::process::Process::start(&mut command, &target.agent.log())?;
    process.terminate()?;
    let found = names(folder.path())?;
    for name in stays
        .iter()
        .chain(&["settings", "tally.log", "tally.log.2026-01-03"])
    {
        assert!(
            found.contains(&(*name).to_owned()),
            "{name} is gone: {found:?}"
        );
    }
    for name in ["tally.log.2026-01-01", "tally.log.2026-01-02"] {
        assert!(
            !found.contains(&name.to_owned()),
            "{name} stayed: {found:?}"
        );
    }
    let of_the_day = fs::read_link(folder.path().join("tally.log"))?;
    assert!(folder.path().join(of_the_day).exists());
    Ok(())
}

#[test]
fn a_log_takes_the_place_of_no_link_but_its_own() -> Result {
    let mut target = Target::start()?;
    target.agent.terminate()?;
    let folder = tempfile::tempdir()?;
    let name = folder.path().join("tally.log");
    for of_others in ["/nowhere/notes", "tally.log.old", "other.log.2026-01-01"] {
        symlink(of_others, &name)?;
        let said = refusal(target.agent.run_command().arg("--log-file").arg(&name))?;
        assert!(said.contains("is not a log of tally's"), "{said}");
        assert_eq!(fs::read_link(&name)?, Path::new(of_others));
        assert_eq!(names(folder.path())?, ["tally.log"]);
        fs::remove_file(&name)?;
    }
    // As earlier versions made it, with the folder in it.
    symlink(folder.path().join("tally.log.2026-01-01"), &name)?;
    let mut command = target.agent.run_command();
    command.arg("--log-file").arg(&name);
    let mut process = tally_tests::process::Process::start(&mut command, &target.agent.log())?;
    process.terminate()?;
    assert!(fs::metadata(&name)?.is_file());
    Ok(())
}

#[test]
fn a_log_does_not_lie_in_the_data_directory() -> Result {
    let mut target = Target::start()?;
    target.agent.terminate()?;
    let data = target.agent.data_dir();
    let aside = tempfile::tempdir()?;
    symlink(&data, aside.path().join("link"))?;
    for file in [
        data.join("ledger"),
        data.join("logs/tally.log"),
        data.join("../data/tally.log"),
        aside.path().join("link/tally.log"),
    ] {
        let before = names(&data)?;
        let said = refusal(target.agent.run_command().arg("--log-file").arg(&file))?;
        assert!(said.contains("--log-file"), "{said}");
        assert_eq!(names(&data)?, before);
    }
    Ok(())
}

struct Exports(Target, tempfile::TempDir);

impl Exports {
    fn path(&self, name: &str) -> PathBuf {
        self.1.path().join(name)
    }

    fn run(&self, name: &str, flags: &[&str]) -> Result<Output> {
        let mut command = self.0.agent.command(&["export"]);
        Ok(command
            .arg("--output")
            .arg(self.path(name))
            .args(flags)
            .output()?)
    }

    #[track_caller]
    fn check(&self, name: &str, flags: &[&str], code: i32) -> Result {
        let output = self.run(name, flags)?;
        assert_eq!(
            output.status.code(),
            Some(code),
            "{name} {flags:?}: {output:?}"
        );
        Ok(())
    }
}

#[test]
fn an_export_is_its_owners_follows_no_link_and_takes_nothings_place_unasked() -> Result {
    let exports = Exports(Target::start()?, tempfile::tempdir()?);
    exports.check("rows.csv", &[], 0)?;
    let mode = |name: &str| -> Result<u32> {
        Ok(fs::metadata(exports.path(name))?.permissions().mode() & 0o777)
    };
    assert_eq!(mode("rows.csv")?, 0o600);
    assert!(fs::read_to_string(exports.path("rows.csv"))?.contains("victim"));

    fs::write(exports.path("mine"), "mine")?;
    fs::write(exports.path("mine.new"), "mine too")?;
    exports.check("mine", &[], 1)?;
    assert_eq!(fs::read_to_string(exports.path("mine"))?, "mine");
    for link in [exports.path("mine"), exports.path("nothing")] {
        let name = exports.path("link");
        symlink(&link, &name)?;
        exports.check("link", &[], 1)?;
        exports.check("link", &["--force"], 1)?;
        assert!(fs::symlink_metadata(&name)?.is_symlink());
        fs::remove_file(name)?;
    }
    assert_eq!(fs::read_to_string(exports.path("mine"))?, "mine");
    assert!(!exports.path("nothing").exists());

    fs::set_permissions(exports.path("mine"), fs::Permissions::from_mode(0o644))?;
    exports.check("mine", &["--force"], 0)?;
    assert!(fs::read_to_string(exports.path("mine"))?.contains("victim"));
    assert_eq!(mode("mine")?, 0o600);
    fs::create_dir(exports.path("folder"))?;
    exports.check("folder", &["--force"], 1)?;
    assert_eq!(
        names(exports.1.path())?,
        ["folder", "mine", "mine.new", "rows.csv"]
    );
    Ok(())
}

#[test]
fn a_cell_that_a_spreadsheet_would_run_is_text() -> Result {
    let target = Target::start()?;
    let firsts = ["=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠"];
    let devices: Vec<String> = firsts
        .iter()
        .map(|first| format!("{first}cmd|' /C calc'!A0"))
        .collect();
    let all: Vec<_> = devices
        .iter()
        .map(|device| json!({"hardware_id": device}))
        .collect();
    target.stub.edit(1, json!({"devices": all}))?;
    for device in &devices {
        let body = json!({"product": "inspect", "license_key": "AAAA-BBBB-CCCC-DDDD", "hardware_id": device,
            "consumptions": 1});
        assert_eq!(target.app.post(ADD, &body)?.status, 200, "{device:?}");
    }
    let exported = String::from_utf8(target.agent.tally(&["export"])?.stdout)?;
    let guarded = exported.matches(",'").count() + exported.matches(",\"'").count();
    assert_eq!(guarded, devices.len(), "{exported}");
    assert_eq!(
        exported.matches("calc").count(),
        devices.len(),
        "{exported}"
    );
    Ok(())
}
