//! `tally credential`

use std::io::Read as _;

use anyhow::{Context as _, ensure};
use zeroize::Zeroizing;

use super::{
    args::{Credential, CredentialArgs},
    output::{self, Outcome},
};
use crate::{keyring, secret::Secret};

/// From standard input: every user of the device can read arguments.
pub(super) fn run(args: &CredentialArgs) -> anyhow::Result<Outcome> {
    let mut text = Zeroizing::new(String::new());
    std::io::stdin()
        .read_to_string(&mut text)
        .context("cannot read the credential from standard input")?;
    let secret = Secret::new(text.trim().to_owned());
    ensure!(
        !secret.expose().is_empty(),
        "standard input is empty; the credential is read from there"
    );
    let name = match args.name {
        Credential::ServerApiKey => "server_api_key",
        Credential::ServerSharedKey => "server_shared_key",
    };
    keyring::write(name, &secret)?;
    output::line(&format!(
        "{name} is in the keyring; use it with `tally run --server-keyring`"
    ))?;
    Ok(Outcome::Done)
}
