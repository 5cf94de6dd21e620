//! What happened, in words: for whoever replays a seed.

use tally_agent::{
    core::{command::Command, outcome::Exchange},
    ledger::engine::Recording,
};

use super::network::{Heard, Message, Purpose};

pub(super) fn show_command(command: &Command) -> String {
    match command {
        Command::Send {
            batch,
            key,
            request,
            ..
        } => format!(
            "send batch {} ({} {:?}: {} units {:?}) under {key:?}",
            batch.0,
            request.subject.holder.value(),
            request.feature,
            request.units,
            request.setting
        ),
        Command::LookUp { subject, .. } => {
            let (holder, id) = (subject.holder.value(), subject.license_id);
            format!("look {holder} {id:?} up on {}", subject.hardware_id)
        }
        Command::FindPrefix { batch, .. } => format!("find what fits of batch {}", batch.0),
    }
}

pub(super) fn show_heard(message: &Message, heard: &Heard) -> String {
    let what = match &message.purpose {
        Purpose::Send { batch, .. } => format!("batch {}", batch.0),
        Purpose::LookUp { subject, .. } => subject.holder.value().to_owned(),
    };
    let answer = match &heard.exchange {
        Exchange::Answer(answer) => {
            let body = String::from_utf8_lossy(&answer.body);
            let short = match serde_json::from_str::<serde_json::Value>(&body) {
                Ok(body) => [
                    "code",
                    "max_consumptions",
                    "total_consumptions",
                    "product_features",
                ]
                .into_iter()
                .filter_map(|name| Some(format!("{name} {}", body.get(name)?)))
                .collect::<Vec<_>>()
                .join(", "),
                Err(_) => format!("{} bytes", body.len()),
            };
            format!("{} {short}", answer.status)
        }
        Exchange::NotSent(why) | Exchange::NoAnswer(why) => why.clone(),
    };
    let from = message.process;
    let cached = heard.cached.map_or("", |cached| match cached.age {
        Some(_) => ", from a cache that says so",
        None => ", from a cache",
    });
    format!(
        "{what} of process {from}: {answer} ({:?}{cached})",
        heard.echo
    )
}

pub(super) fn show_answer(answer: Option<&Recording>) -> String {
    match answer {
        None => "no answer".to_owned(),
        Some(Ok(answer)) => format!("{} {}", answer.status, answer.body),
        Some(Err(error)) => error.to_string(),
    }
}
