//! `tally device`

use reqwest::Method;

use super::{
    args::{DeviceArgs, DeviceCommand},
    client::Agent,
    output::{self, Outcome},
};
use crate::{
    config::paths::DataDir,
    core::DeviceIs,
    http::{Device, Resolved},
};

pub(super) fn run(data_dir: &DataDir, command: DeviceCommand) -> anyhow::Result<Outcome> {
    let (device, DeviceArgs { reason, output }, what) = match command {
        DeviceCommand::New(args) => (
            DeviceIs::New,
            args,
            "this is a device of its own from here on; what the original owes is given up here",
        ),
        DeviceCommand::Moved(args) => (
            DeviceIs::Moved,
            args,
            "this device goes on in the place of the original",
        ),
    };
    let request = Device { device, reason };
    let agent = Agent::connect(data_dir)?;
    let resolved: Resolved = agent.ask(Method::POST, "/v1/device", &request)?;
    output::decided(output, &resolved, what)?;
    Ok(Outcome::Done)
}
