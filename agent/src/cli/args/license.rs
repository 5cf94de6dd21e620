//! What can be typed after `tally license`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::JsonArgs;

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum LicenseCommand {
    /// Read a licence's limits from the server and make it known on a device
    #[command(after_help = "\
Examples:
  tally license add --product inspect --license-key AAAA-BBBB-CCCC-DDDD
  tally license add --product inspect --username field@example.com --hardware-id device-1")]
    Add(LicenseAddArgs),
    /// Show the licences that are known, and the names that wait to be read from the server
    #[command(after_help = "\
Example:
  tally license list --json | jq '.[].holder_value'")]
    List(JsonArgs),
    /// Show everything that is known of one licence
    #[command(after_help = "\
Example:
  tally license show AAAA-BBBB-CCCC-DDDD")]
    Show(LicenseNameArgs),
    /// Read a licence from the server now, for each device that it refuses as well
    #[command(after_help = "\
The agent does this by itself now and then (`tally run --refresh-interval`).

Example:
  tally license refresh AAAA-BBBB-CCCC-DDDD")]
    Refresh(LicenseNameArgs),
    /// Make the licences of a file known
    #[command(after_help = "\
The file has a licence a line as CSV, with the names of the columns in the first line, or as JSON
objects, or is one JSON array; `tally license list --json` prints one that is understood. Columns
and fields:

  product, license_key or username, hardware_id (this device, where it is not given),
  license_id (where a user holds several)

The server is asked for each. What it cannot be asked for waits, and is read at the next contact:
limits come from the server only. For a device that has never met it, a JSON object can bring the
server's own word along:

  answer       the body of its answer to check_license, for this licence and device, to the byte
  signature    the header LicenseSignature of that answer

It is believed where the key of `tally run --server-public-key` has signed it. Of a licence that
the ledger ever knew, it changes no limit and no total.

Examples:
  tally license import licenses.csv
  ssh old-device tally license list --json | tally license import -")]
    Import(LicenseImportArgs),
    /// Forget a licence of which nothing is owed
    #[command(after_help = "\
Its rows stay in the ledger, and the decision becomes one. A licence that is owed is kept, and what
settles it is said. This bars nobody: an application that uses the licence makes it known again,
where the server can be asked. To bar an application, `tally app revoke`.

Example:
  tally license remove AAAA-BBBB-CCCC-DDDD --reason \"moved to device-2\"")]
    Remove(LicenseRemoveArgs),
}

#[derive(Debug, Args)]
pub(in crate::cli) struct LicenseNameArgs {
    /// The licence: its key, its user, or its id
    #[arg(value_name = "LICENCE")]
    pub(in crate::cli) license: String,

    /// The product's short code, where several have a licence of that name
    #[arg(long, value_name = "CODE")]
    pub(in crate::cli) product: Option<String>,

    #[command(flatten)]
    pub(in crate::cli) output: JsonArgs,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct LicenseImportArgs {
    /// The file; `-` is standard input
    #[arg(value_name = "FILE")]
    pub(in crate::cli) file: PathBuf,

    /// Keep the names for the next contact, and do not ask the server now
    #[arg(long)]
    pub(in crate::cli) later: bool,

    #[command(flatten)]
    pub(in crate::cli) output: JsonArgs,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct LicenseRemoveArgs {
    #[command(flatten)]
    pub(in crate::cli) name: LicenseNameArgs,

    /// Why, for the ledger
    #[arg(long, value_name = "REASON")]
    pub(in crate::cli) reason: Option<String>,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct LicenseArgs {
    /// The product's short code
    #[arg(long, value_name = "CODE")]
    pub(in crate::cli) product: String,

    #[command(flatten)]
    pub(in crate::cli) holder: HolderArgs,

    /// The device [default: the id of this device]
    #[arg(long, env = "TALLY_HARDWARE_ID", value_name = "ID")]
    pub(in crate::cli) hardware_id: Option<String>,

    /// The licence, where a user holds several for one product
    #[arg(long, value_name = "ID")]
    pub(in crate::cli) license_id: Option<i64>,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(in crate::cli) struct HolderArgs {
    /// The licence key, for key-based products
    #[arg(long, value_name = "KEY")]
    pub(in crate::cli) license_key: Option<String>,

    /// The user, for user-based products
    #[arg(long, value_name = "NAME")]
    pub(in crate::cli) username: Option<String>,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct LicenseAddArgs {
    #[command(flatten)]
    pub(in crate::cli) license: LicenseArgs,

    #[command(flatten)]
    pub(in crate::cli) output: JsonArgs,
}
