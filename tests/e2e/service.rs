//! `tally service`, against a `systemctl` that notes what it is asked and answers as told. Nothing of the
//! system that runs the tests is touched.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use serde_json::Value;
use tally_tests::Result;
use tempfile::TempDir;

const SYSTEMCTL: &str = r#"#!/bin/sh
echo "$@" >> "$FAKE/calls"
if [ -e "$FAKE/absent" ]; then
  echo "System has not been booted with systemd as init system (PID 1)." >&2
  exit 1
fi
case "$*" in
  *"show tally.service"*) cat "$FAKE/state" ;;
esac
"#;

/// A home, and a `systemctl`.
struct World(TempDir);

impl World {
    fn new() -> Result<Self> {
        let world = Self(TempDir::new()?);
        fs::create_dir(world.path("bin"))?;
        fs::write(world.path("bin/systemctl"), SYSTEMCTL)?;
        let executable = fs::Permissions::from_mode(0o755);
        fs::set_permissions(world.path("bin/systemctl"), executable)?;
        Ok(world)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn unit(&self) -> PathBuf {
        self.path(".config/systemd/user/tally.service")
    }

    fn tally(&self, args: &[&str]) -> Result<Output> {
        let path = std::env::var("PATH")?;
        let output = Command::new(env!("CARGO_BIN_EXE_tally-under-test"))
            .arg("service")
            .args(args)
            .env("HOME", self.0.path())
            .env("FAKE", self.0.path())
            .env("PATH", format!("{}:{path}", self.path("bin").display()))
            .env_remove("XDG_CONFIG_HOME")
            .env_remove("XDG_DATA_HOME")
            .env_remove("TALLY_DATA_DIR")
            .output()?;
        Ok(output)
    }

    /// What it printed, where it succeeded.
    fn said(&self, args: &[&str]) -> Result<String> {
        let output = self.tally(args)?;
        let error = String::from_utf8_lossy(&output.stderr);
        anyhow::ensure!(output.status.success(), "{args:?}: {error}");
        Ok(String::from_utf8(output.stdout)?)
    }

    /// What `systemctl` was asked since the last time.
    fn calls(&self) -> Result<Vec<String>> {
        let text = fs::read_to_string(self.path("calls"))?;
        fs::remove_file(self.path("calls"))?;
        Ok(text.lines().map(str::to_owned).collect())
    }
}

fn read(path: &Path) -> Result<String> {
    Ok(fs::read_to_string(path)?)
}

#[test]
fn a_users_service_is_installed_not_started_and_removed_but_for_its_data() -> Result {
    let world = World::new()?;
    let said = world.said(&["install", "--user"])?;
    assert!(
        said.contains("it was not started: systemctl --user start tally"),
        "{said}"
    );
    let unit = read(&world.unit())?;
    let command = format!("ExecStart={} run\n", env!("CARGO_BIN_EXE_tally-under-test"));
    assert!(unit.contains(&command), "{unit}");
    let asked = [
        "--user show --property=Version",
        "--user daemon-reload",
        "--user enable tally.service",
    ];
    assert_eq!(world.calls()?, asked);

    // Again: nothing is written, and all is as it was.
    let said = world.said(&["install", "--user"])?;
    assert!(!said.contains("wrote"), "{said}");
    assert_eq!(read(&world.unit())?, unit);
    assert_eq!(world.calls()?, asked);

    let said = world.said(&["uninstall", "--user"])?;
    let data = world.path(".local/share/tally").display().to_string();
    assert!(
        said.contains("The data directory stays") && said.contains(&data),
        "{said}"
    );
    assert!(!world.unit().exists());
    let asked = [
        "--user show --property=Version",
        "--user disable --now tally.service",
        "--user daemon-reload",
    ];
    assert_eq!(world.calls()?, asked);
    let said = world.said(&["uninstall", "--user"])?;
    assert!(said.contains("no service is installed"), "{said}");
    Ok(())
}

#[test]
fn it_is_started_where_that_is_asked_for_and_its_data_can_be_elsewhere() -> Result {
    let world = World::new()?;
    let said = world.said(&["install", "--user", "--now", "--data-dir", "/srv/my tally"])?;
    assert!(said.contains("The service runs"), "{said}");
    let unit = read(&world.unit())?;
    assert!(
        unit.contains(" run --data-dir \"/srv/my tally\"\n"),
        "{unit}"
    );
    let calls = world.calls()?;
    assert!(
        calls.contains(&"--user enable --now tally.service".to_owned()),
        "{calls:?}"
    );
    Ok(())
}

#[test]
fn a_dry_run_shows_everything_and_does_nothing() -> Result {
    let world = World::new()?;
    let said = world.said(&["install", "--user", "--dry-run"])?;
    assert!(
        said.contains(&format!("would write {}", world.unit().display())),
        "{said}"
    );
    assert!(
        said.contains("Type=notify") && said.contains("would run systemctl --user enable"),
        "{said}"
    );
    assert!(!world.unit().exists());
    assert_eq!(world.calls()?, ["--user show --property=Version"]);
    let output = world.tally(&["install", "--dry-run"])?;
    if !output.status.success() {
        // Where these tests are built in a home or a temporary folder, the device's service cannot see the program.
        let error = String::from_utf8(output.stderr)?;
        let program = env!("CARGO_BIN_EXE_tally-under-test");
        assert!(error.contains("the service sees nothing below"), "{error}");
        assert!(error.contains(program), "{error}");
        return Ok(());
    }
    let said = String::from_utf8(output.stdout)?;
    assert!(said.contains("DynamicUser=yes"), "{said}");
    assert!(
        said.contains("would run systemctl enable tally.service"),
        "{said}"
    );
    Ok(())
}

#[test]
fn where_systemd_does_not_run_it_says_so_and_writes_nothing() -> Result {
    let world = World::new()?;
    fs::write(world.path("absent"), "")?;
    let output = world.tally(&["install", "--user"])?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(
        said.contains("your systemd does not answer") && said.contains("tally run"),
        "{said}"
    );
    assert!(!world.unit().exists());
    let output = world.tally(&["status", "--user"])?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(
        said.contains("no: System has not been booted with systemd"),
        "{said}"
    );
    Ok(())
}

#[test]
fn its_state_is_told_to_people_and_to_scripts() -> Result {
    let world = World::new()?;
    let state = "LoadState=loaded\nActiveState=active\nSubState=running\nUnitFileState=enabled\n\
                 FragmentPath=/home/ada/.config/systemd/user/tally.service\nMainPID=4711\n";
    fs::write(world.path("state"), state)?;
    let json: Value = serde_json::from_str(&world.said(&["status", "--user", "--json"])?)?;
    assert_eq!(json["installed"], true);
    assert_eq!(json["enabled"], true);
    assert_eq!(json["running"], true);
    assert_eq!(json["pid"], 4711);
    assert_eq!(json["file"], "/home/ada/.config/systemd/user/tally.service");
    let said = world.said(&["status", "--user"])?;
    assert!(
        said.contains("running           yes, process 4711"),
        "{said}"
    );

    fs::write(
        world.path("state"),
        "LoadState=not-found\nActiveState=inactive\nSubState=dead\nMainPID=0\n",
    )?;
    let output = world.tally(&["status", "--user"])?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("tally service install --user"), "{said}");
    Ok(())
}

#[test]
fn the_image_of_a_device_gets_the_packaged_unit_and_keeps_its_settings() -> Result {
    let world = World::new()?;
    let root = world.path("image").display().to_string();
    world.said(&["install", "--root", &root])?;
    let packaged = Path::new(env!("CARGO_MANIFEST_DIR")).join("../packaging/tally.service");
    let unit = world.path("image/etc/systemd/system/tally.service");
    assert_eq!(read(&unit)?, read(&packaged)?);
    assert_eq!(
        world.calls()?,
        [format!("--root={root} enable tally.service")]
    );
    let output = world.tally(&["status", "--root", &root])?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(said.contains("the image of another system"), "{said}");
    let settings = world.path("image/etc/tally/tally.toml");
    fs::write(&settings, "# mine\n")?;
    world.said(&["install", "--root", &root])?;
    assert_eq!(read(&settings)?, "# mine\n");
    world.said(&["uninstall", "--root", &root])?;
    assert!(!unit.exists() && settings.exists());
    Ok(())
}

#[test]
fn a_path_cannot_add_lines_to_what_the_service_manager_reads() -> Result {
    let world = World::new()?;
    for name in [
        "a\nExecStartPre=/bin/false",
        "a\rb",
        "a\tb",
        "a\u{1b}[2J",
        "a\u{9b}b",
    ] {
        let path = world.path(name).display().to_string();
        for args in [
            ["install", "--user", "--data-dir", &path].as_slice(),
            &["install", "--user", "--dry-run", "--data-dir", &path],
            &["install", "--root", &path],
            &["uninstall", "--root", &path],
        ] {
            let refused = world.tally(args)?;
            let said = String::from_utf8(refused.stderr)?;
            assert_eq!(refused.status.code(), Some(1), "{args:?}: {said}");
            assert!(said.contains("control characters"), "{said}");
            assert_eq!(said.lines().count(), 1, "{said}");
        }
        let program = world.path(&format!("{name}-tally"));
        if let Some(folder) = program.parent() {
            fs::create_dir_all(folder)?;
        }
        fs::copy(env!("CARGO_BIN_EXE_tally-under-test"), &program)?;
        let refused = Command::new(&program)
            .args(["service", "install", "--user"])
            .env("HOME", world.0.path())
            .output()?;
        assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    }
    assert!(!world.unit().exists());
    Ok(())
}

#[test]
fn nothing_is_written_or_removed_through_a_link() -> Result {
    let world = World::new()?;
    let host = world.path("host");
    fs::create_dir_all(host.join("system"))?;
    fs::write(host.join("system/tally.service"), "the host's")?;
    fs::write(host.join("tally.toml"), "the host's")?;
    let systemd = Path::new("etc/systemd");
    let unit = "etc/systemd/system/tally.service";
    let links = [
        ("etc", host.clone()),
        ("etc/systemd", host.clone()),
        ("etc/systemd/system", host.join("system")),
        (unit, host.join("system/tally.service")),
        ("etc/tally", host.clone()),
        ("etc/tally/tally.toml", host.join("none")),
    ];
    for (place, (link, to)) in links.iter().enumerate() {
        let image = world.path(&format!("image-{place}"));
        let link = image.join(link);
        if let Some(folder) = link.parent() {
            fs::create_dir_all(folder)?;
        }
        std::os::unix::fs::symlink(to, &link)?;
        let root = image.display().to_string();
        let refused = world.tally(&["install", "--root", &root])?;
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert_eq!(refused.status.code(), Some(1), "{}: {said}", link.display());
        assert!(said.contains("is a link"), "{said}");
        let listed = world.tally(&["uninstall", "--root", &root])?;
        let said = String::from_utf8_lossy(&listed.stderr).into_owned();
        let is_on_its_way = Path::new(unit).starts_with(link.strip_prefix(&image)?);
        assert_eq!(listed.status.success(), !is_on_its_way, "{said}");
    }
    assert_eq!(read(&host.join("system/tally.service"))?, "the host's");
    assert_eq!(read(&host.join("tally.toml"))?, "the host's");
    assert!(!host.join("none").exists() && !host.join("system/tally.new").exists());

    // What lies where the new file is made first.
    let image = world.path("image");
    let folder = image.join(systemd).join("system");
    fs::create_dir_all(&folder)?;
    std::os::unix::fs::symlink(host.join("written"), folder.join("tally.new"))?;
    world.said(&["install", "--root", &image.display().to_string()])?;
    assert!(!host.join("written").exists());
    assert!(fs::symlink_metadata(image.join(unit))?.is_file());
    Ok(())
}
