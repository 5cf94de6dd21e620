//! `tally explain`

use anyhow::Context as _;
use tally_shared::{limits::OverageSetting, time::Timestamp};

use super::{
    args::{ExplainArgs, Numbered},
    client::Agent,
    output::{self, Outcome},
};
use crate::{
    config::paths::DataDir,
    foreign::{self, shown},
    ledger::{
        explain::{Explained, JudgedBy},
        reader::{LogRow, RefusalRow},
    },
};

pub(super) fn run(data_dir: &DataDir, args: &ExplainArgs) -> anyhow::Result<Outcome> {
    let agent = Agent::connect(data_dir)?;
    match args.what {
        Numbered::Row(seq) => {
            let explained: Explained = agent.get(&format!("/v1/events/{seq}"))?;
            if args.output.json {
                output::json(&explained)?;
            } else {
                output::text(&row(&explained))?;
            }
        }
        Numbered::Refusal(no) => {
            let kept: Vec<RefusalRow> = agent.get("/v1/refusals")?;
            let wanted = format!("r{no}");
            let found = kept.into_iter().find(|row| row.refusal == wanted);
            let found = found.with_context(|| {
                format!(
                    "no refusal {wanted} is kept: there was none since the agent started, \
                     or 256 came after it; `tally log --refused` shows those that are"
                )
            })?;
            if args.output.json {
                output::json(&found)?;
            } else {
                output::text(&refusal(&found))?;
            }
        }
    }
    Ok(Outcome::Done)
}

fn row(explained: &Explained) -> String {
    let row = &explained.row;
    if let Some(note) = &row.note {
        let what = serde_json::to_string_pretty(note).unwrap_or_default();
        return format!(
            "row {}: {} {}, at {}\n{}\n",
            row.seq,
            shown(&row.kind),
            shown(&row.state),
            when(row.at, row.time_proven),
            foreign::json(&what)
        );
    }
    let mut lines = Lines::default();
    lines.add(
        "licence",
        &licence(&row.product, &row.holder_value, row.feature.as_deref()),
    );
    lines.add("device", &row.hardware_id);
    lines.add("time", &when(row.at, row.time_proven));
    match &explained.judged_by {
        Some(judged) => {
            judged_lines(&mut lines, judged);
            let left = judged.cap.map_or_else(
                || "no limit".to_owned(),
                |cap| format!("{} left", cap.saturating_sub(row.total).max(0)),
            );
            lines.add("total after", &format!("{}, {left}", row.total));
        }
        None => lines.add(
            "judged by",
            "not known: the row is older than this record, or the ledger was salvaged",
        ),
    }
    if !explained.setting.is_empty() {
        lines.add("it set", &setting(&explained.setting));
    }
    lines.add("now", &state(row));
    format!(
        "row {}: {} granted to {}\n{}",
        row.seq,
        units(row.units),
        shown(&row.app),
        lines.0
    )
}

fn refusal(row: &RefusalRow) -> String {
    let mut lines = Lines::default();
    lines.add("why", &row.message);
    lines.add("code", &row.code);
    lines.add(
        "licence",
        &licence(&row.product, &row.holder_value, row.feature.as_deref()),
    );
    lines.add("device", &row.hardware_id);
    lines.add("time", &when(row.at, row.time_proven));
    if let Some(judged) = &row.judged_by {
        judged_lines(&mut lines, judged);
        if let Some(cap) = judged.cap {
            let left = cap.saturating_sub(judged.total_before).max(0);
            lines.add("left", &left.to_string());
        }
    }
    format!(
        "{}: {} refused to {}; nothing was recorded\n{}",
        row.refusal,
        units(row.units),
        shown(&row.app),
        lines.0
    )
}

/// Names and what they say, lined up.
#[derive(Default)]
struct Lines(String);

impl Lines {
    fn add(&mut self, name: &str, what: &str) {
        self.0 = format!("{}  {name:<13} {}\n", self.0, shown(what));
    }
}

fn judged_lines(lines: &mut Lines, judged: &JudgedBy) {
    lines.add("limit", &limit(judged));
    lines.add(
        "total before",
        &format!(
            "{} = {} counted by the server + {} granted here and not counted yet",
            judged.total_before, judged.counted, judged.uncounted
        ),
    );
    lines.add(
        "server said",
        &format!("{} at {}", judged.server_total, judged.server_total_at),
    );
    if let (Some(period), Some(start)) = (judged.period, judged.period_start) {
        let lapsed = if judged.counted == judged.server_total {
            ""
        } else {
            "; the total returned to zero since the server was heard"
        };
        lines.add(
            "period",
            &format!("{}, since {start}{lapsed}", period.as_str()),
        );
    }
}

fn limit(judged: &JudgedBy) -> String {
    let limits = &judged.limits;
    let base = limits.max_consumptions;
    match judged.cap {
        None if limits.allow_unlimited_consumptions => "none: unlimited consumptions".to_owned(),
        None => format!("{base}, with overage without bound"),
        Some(cap) if cap != base => {
            format!("{cap}: {base}, and an overage of {}", limits.max_overages)
        }
        Some(cap) => cap.to_string(),
    }
}

fn setting(setting: &OverageSetting) -> String {
    let allow = setting
        .allow_overages
        .map(|allow| format!("allow_overages={allow}"));
    let max = setting
        .max_overages
        .map(|max| format!("max_overages={max}"));
    let parts: Vec<String> = allow.into_iter().chain(max).collect();
    parts.join(", ")
}

fn state(row: &LogRow) -> String {
    let late = if row.late {
        ", after its period was over: the server counted it in a later one"
    } else {
        ""
    };
    let what = match row.state.as_str() {
        "open" => "waits to be sent",
        "sealed" => "waits to be sent, in a batch that no longer changes",
        "sent" => "is being sent",
        "unknown" => "was sent, and the answer was lost: the agent is finding out",
        "held" => "is held; `tally status` says why",
        "settled" => "is counted by the server",
        "waived" => "was given up by a decision",
        other => other,
    };
    format!("{what}{late} (batch {})", row.batch)
}

fn licence(product: &str, holder: &str, feature: Option<&str>) -> String {
    let feature = feature.map(|feature| format!(" · {feature}"));
    format!("{product} {holder}{}", feature.unwrap_or_default())
}

fn units(units: i64) -> String {
    match units {
        1 => "1 unit".to_owned(),
        units => format!("{units} units"),
    }
}

fn when(at: Timestamp, is_proven: bool) -> String {
    if is_proven {
        format!("{at}, confirmed by the server's clock")
    } else {
        format!("{at}, by a clock that the server had not confirmed")
    }
}
