//! A real disk that is full: a tmpfs of a few megabytes under the agent's data directory.

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::json;
use tally_tests::{Result, seed, stub::Keys, wait};

use crate::{agent_with, stub};

/// A file system in memory, over a folder.
pub(crate) struct Tmpfs(PathBuf);

impl Tmpfs {
    /// `None` where this user may not mount.
    pub(crate) fn mount(folder: &Path) -> Option<Self> {
        let mut mount = Command::new("mount");
        mount
            .args(["-t", "tmpfs", "-o", "size=8m,mode=700", "tmpfs"])
            .arg(folder);
        let mounted = mount.output().is_ok_and(|output| output.status.success());
        mounted.then(|| Self(folder.to_owned()))
    }

    /// Takes all space but a little.
    pub(crate) fn fill(&self) -> Result {
        let mut file = fs::File::create(self.0.join("filler"))?;
        let block = [0x5a; 4096];
        while file.write_all(&block).is_ok() {}
        file.set_len(file.metadata()?.len().saturating_sub(64 * 1024))?;
        Ok(())
    }

    pub(crate) fn make_space(&self) -> Result {
        Ok(fs::remove_file(self.0.join("filler"))?)
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        // Lazily, since the agent may still have files open.
        let _ = Command::new("umount").arg("-l").arg(&self.0).output();
    }
}

#[test]
fn on_a_full_disk_nothing_is_lost_what_was_sent_is_settled_and_space_mends_it() -> Result {
    let stub = stub(&[seed::license(1_000_000, json!({}))], Keys::NotKept)?;
    let mut agent = agent_with(stub.url(), &["--sync-interval", "50ms"])?;
    agent.terminate()?;
    let Some(disk) = Tmpfs::mount(&agent.data_dir()) else {
        // Mounting takes rights that not every machine gives; the simulated disk needs none.
        return Ok(());
    };
    agent.restart()?;
    let app = agent.app("inspector")?;
    agent.add_license()?;
    agent.network("offline")?;
    let mut granted = 0;
    for _ in 0..20 {
        assert_eq!(app.add(1)?.status, 200);
        granted += 1;
    }
    disk.fill()?;
    let refused = wait::until(
        "the disk to be full",
        || {
            // The log was made at its full length, and takes many.
            let mut reply = app.add(1)?;
            for _ in 0..100 {
                if reply.status != 200 {
                    break;
                }
                granted += 1;
                reply = app.add(1)?;
            }
            granted += i64::from(reply.status == 200);
            Ok(reply)
        },
        |reply| reply.status != 200,
    )?;
    assert_eq!(
        (refused.status, refused.code().as_deref()),
        (507, Some("storage_unavailable"))
    );
    let status = agent.json(&["status"])?;
    assert_eq!(status["storage"], "full", "{status}");
    assert_eq!(status["licenses"][0]["conservation"]["pending"], granted);
    // What is owed goes to the server all the same, and its answers find their place.
    agent.network("online")?;
    let settled = |sums: &tally_tests::agent::Sums| sums.settled == granted;
    wait::until(
        "everything to be settled on a full disk",
        || agent.sums(0),
        settled,
    )?;
    assert_eq!(stub.total(1)?, granted);
    assert_eq!(
        app.add(1)?.status,
        507,
        "the space for answers is not for rows"
    );
    disk.make_space()?;
    wait::until(
        "recording to go on by itself",
        || app.add(1),
        |reply| reply.status == 200,
    )?;
    let sums = agent.wait_settled(0)?;
    assert_eq!(stub.total(1)?, sums.recorded);
    assert_eq!(agent.json(&["status"])?["storage"], "ok");
    agent.kill()?;
    Ok(())
}
