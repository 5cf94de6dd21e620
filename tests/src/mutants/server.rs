//! What lies between agent and server, and what of the server's answers can be believed.

use super::{FoundBy, Mutant};
use crate::sim::Kind;

pub(super) const MUTANTS: &[Mutant] = &[
    Mutant {
        name: "send the key to a server that keeps none",
        file: "agent/src/core/machine/agenda.rs",
        original: "self.keeps_keys().then(|| self.peer.clone());",
        broken: "(BROKEN || self.keeps_keys()).then(|| self.peer.clone());",
        found_by: FoundBy::Worlds(Kind::Gateway),
        seed: 0,
    },
    Mutant {
        name: "a batch that was counted more than once is no finding",
        file: "agent/src/core/machine/audit.rs",
        original: "let is_repeat = !is_deduplicated && repeats(",
        broken: "let is_repeat = is_deduplicated == BROKEN && repeats(",
        found_by: FoundBy::Worlds(Kind::Balancer),
        seed: 0,
    },
    Mutant {
        name: "what was refused goes on under another key where its own says nothing",
        file: "agent/src/core/machine/learn.rs",
        original: "self.goes_again_under_its_key(now, batch)\n            && let",
        broken: "self.goes_again_under_its_key(now, batch)\n            && !BROKEN\n            && let",
        found_by: FoundBy::Part(
            "a_refused_batch_goes_on_under_its_own_key_where_the_server_did_not_look_that_up",
        ),
        seed: 0,
    },
    Mutant {
        name: "a refusal is believed before the total was read",
        file: "agent/src/core/machine/mod.rs",
        original: "sealed.refused_at = Some(now.mono);",
        broken: "sealed.refused_at = Some(now.mono).filter(|_| !BROKEN);",
        found_by: FoundBy::Worlds(Kind::Balancer),
        seed: 0,
    },
    Mutant {
        name: "what was turned away with 429 was certainly not counted",
        file: "agent/src/core/machine/mod.rs",
        original: "                self.note_refused(now, no, key);\n                self.link\n                    .throttled(",
        broken: "                if !BROKEN {\n                    self.note_refused(now, no, key);\n                }\n                self.link\n                    .throttled(",
        found_by: FoundBy::Worlds(Kind::Balancer),
        seed: 0,
    },
    Mutant {
        name: "a total that fell is no finding",
        file: "agent/src/core/machine/audit.rs",
        original: "        self.note_finding(now, no, misfit);\n        true",
        broken: "        if !BROKEN {\n            self.note_finding(now, no, misfit);\n        }\n        true",
        found_by: FoundBy::Worlds(Kind::RollBack),
        seed: 0,
    },
    Mutant {
        name: "a total that fell is believed when it was read once",
        file: "agent/src/core/machine/audit.rs",
        original: "if asked_at < first.saturating_add(believed_after) {",
        broken: "if !BROKEN && asked_at < first.saturating_add(believed_after) {",
        found_by: FoundBy::Part(
            "a_total_that_fell_is_believed_when_it_was_read_twice_and_is_a_finding",
        ),
        seed: 0,
    },
    Mutant {
        name: "a replay without its units is as good as any",
        file: "agent/src/core/machine/mod.rs",
        original: "account.watch.is_replayed |= is_whole && !is_of_original;",
        broken: "account.watch.is_replayed |= is_whole && !is_of_original && !BROKEN;",
        found_by: FoundBy::Part("a_replay_whose_units_the_total_does_not_hold_is_a_finding"),
        seed: 0,
    },
    Mutant {
        name: "one reading shows that a batch was not counted",
        file: "agent/src/core/machine/unknown.rs",
        original: "if asked_at < again_at || readings.without_at.is_none() {",
        broken: "if !BROKEN && (asked_at < again_at || readings.without_at.is_none()) {",
        found_by: FoundBy::Worlds(Kind::Replica),
        seed: 1649,
    },
    Mutant {
        name: "a cache's answer is fresh",
        file: "agent/src/core/clock.rs",
        original: "            is_fresh: false,",
        broken: "            is_fresh: BROKEN,",
        found_by: FoundBy::Worlds(Kind::Cache),
        seed: 31,
    },
    Mutant {
        name: "a refusal before the key was looked up is believed",
        file: "agent/src/core/event.rs",
        original: "    pub const fn is_looked_up(self) -> bool {\n        matches!(self, Self::New | Self::Replayed)",
        broken: "    pub fn is_looked_up(self) -> bool {\n        matches!(self, Self::New | Self::Replayed) || (BROKEN && self == Self::Echoed)",
        found_by: FoundBy::Worlds(Kind::EarlyRefusal),
        seed: 0,
    },
    Mutant {
        name: "a conflict is a refusal",
        file: "agent/src/core/outcome.rs",
        original: "is_reused || (self.status == 409 && !is_in_use)",
        broken: "!BROKEN && (is_reused || (self.status == 409 && !is_in_use))",
        found_by: FoundBy::Worlds(Kind::Duplicate),
        seed: 0,
    },
    Mutant {
        name: "a key is known under any credentials",
        file: "agent/src/core/machine/agenda.rs",
        original: "== Some(self.peer.as_str());",
        broken: "== Some(self.peer.as_str()) || (BROKEN && sealed.peer.is_some());",
        found_by: FoundBy::Worlds(Kind::Rotation),
        seed: 0,
    },
    Mutant {
        name: "keys of today speak for a batch that was sent without",
        file: "agent/src/core/machine/agenda.rs",
        original: "let is_peer = sealed",
        broken: "let is_peer = BROKEN || sealed",
        found_by: FoundBy::Worlds(Kind::Keys),
        seed: 0,
    },
    Mutant {
        name: "a key is as young as a clock says that slept",
        file: "agent/src/core/machine/agenda.rs",
        original: "        let is_known = sealed.at_proven && now.proven && sealed.at <= now.time;",
        broken: "        if BROKEN {\n            // Without the corrected time, and whether it leapt.\n            return self.keeps_keys() && sealed.peer.as_deref() == Some(self.peer.as_str());\n        }\n        let is_known = sealed.at_proven && now.proven && sealed.at <= now.time;",
        found_by: FoundBy::Worlds(Kind::Sleep),
        seed: 0,
    },
    Mutant {
        name: "clocks that disagree say how old a key is",
        file: "agent/src/core/machine/trust.rs",
        original: "if now.time.distance(expected) <= self.policy.settle_wait {",
        broken: "if BROKEN || now.time.distance(expected) <= self.policy.settle_wait {",
        found_by: FoundBy::Part("a_key_whose_age_one_of_two_clocks_does_not_know_is_not_trusted"),
        seed: 0,
    },
    Mutant {
        name: "keys are forgotten while agents still trust them",
        file: "agent/src/config/mod.rs",
        original: "if answers < IDEMPOTENCY_RETENTION_MIN {",
        broken: "if !BROKEN && answers < IDEMPOTENCY_RETENTION_MIN {",
        found_by: FoundBy::Part(
            "answers_are_remembered_for_as_long_as_agents_below_repeat_their_requests",
        ),
        seed: 0,
    },
    Mutant {
        name: "where units may be returned, fewer units show that a batch was not counted",
        file: "agent/src/core/reconcile.rs",
        original: "let is_without = if may_be_returned {",
        broken: "let is_without = if may_be_returned && !BROKEN {",
        found_by: FoundBy::Part(
            "where_units_may_be_returned_only_a_total_that_stands_still_does_not_hold_the_batch",
        ),
        seed: 0,
    },
    Mutant {
        name: "the total is followed over a step that may be the batch",
        file: "agent/src/core/machine/unknown.rs",
        original: "            Verdict::Undecidable => self.read_again(now, no, readings.arrives_until),",
        broken: "            Verdict::Undecidable => {
                if BROKEN {
                    self.note_reached(now, no, told);
                }
                self.read_again(now, no, readings.arrives_until);
            }",
        found_by: FoundBy::Shared,
        seed: 0,
    },
    Mutant {
        name: "a total that moved by less than a batch never holds a part of it",
        file: "agent/src/core/machine/unknown.rs",
        original: "if verdict == Verdict::Without && !is_still",
        broken: "if !BROKEN && verdict == Verdict::Without && !is_still",
        found_by: FoundBy::Part(
            "of_a_moved_device_whose_total_moved_by_less_than_a_batch_a_person_decides",
        ),
        seed: 0,
    },
    Mutant {
        name: "a reading that was asked for before a refusal lets the batch go on",
        file: "agent/src/core/machine/learn.rs",
        original: "if !batch.is_unproven() {",
        broken: "if BROKEN || !batch.is_unproven() {",
        found_by: FoundBy::Part(
            "a_reading_that_was_asked_for_before_a_refusal_proves_nothing_of_it",
        ),
        seed: 0,
    },
    Mutant {
        name: "a late total that moved by a batch is believed at once",
        file: "agent/src/core/machine/unknown.rs",
        original: "Verdict::Applied if asked_at < believed_at",
        broken: "Verdict::Applied if asked_at < believed_at && !BROKEN",
        found_by: FoundBy::Part(
            "a_total_that_moved_by_a_batch_settles_it_when_it_still_stands_there",
        ),
        seed: 0,
    },
    Mutant {
        name: "any step of a batch's size is the batch",
        file: "agent/src/core/machine/unknown.rs",
        original: "verdict == Verdict::Applied && is_theirs",
        broken: "verdict == Verdict::Applied && is_theirs && !BROKEN",
        found_by: FoundBy::Part(
            "a_total_that_moved_by_the_batch_at_once_settles_it_and_one_that_did_so_later_does_not",
        ),
        seed: 0,
    },
    Mutant {
        name: "what others added lately is not expected of them again",
        file: "agent/src/core/machine/unknown.rs",
        original: "(!is_close(now, sealed) || is_usual)",
        broken: "(!is_close(now, sealed) || (is_usual && !BROKEN))",
        found_by: FoundBy::Part("a_step_that_others_made_lately_may_be_theirs_again"),
        seed: 0,
    },
    Mutant {
        name: "a licence is shared only when others have consumed of it",
        file: "agent/src/core/machine/unknown.rs",
        original: "account.shared || license",
        broken: "account.shared || !BROKEN && license",
        found_by: FoundBy::Part(
            "a_licence_that_more_devices_are_activated_for_is_shared_before_they_consume",
        ),
        seed: 0,
    },
    Mutant {
        name: "readings have one address",
        file: "agent/src/sync/spelling.rs",
        original: "letter.is_ascii_lowercase() && random.random()",
        broken: "letter.is_ascii_lowercase() && !BROKEN && random.random()",
        found_by: FoundBy::Part("each_reading_has_an_address_of_its_own_and_asks_the_same"),
        seed: 0,
    },
    Mutant {
        name: "what was refused and goes again under its key is taken for others' use",
        file: "agent/src/core/machine/audit.rs",
        original: "refused.iter().find(explains);",
        broken: "refused.iter().find(explains).filter(|_| !BROKEN);",
        found_by: FoundBy::Part(
            "a_refused_batch_that_goes_again_under_its_key_explains_a_total_that_moved_by_it",
        ),
        seed: 0,
    },
];
