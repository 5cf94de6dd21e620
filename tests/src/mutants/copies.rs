//! Ledgers that are copies, that two agents write, or that are deleted.

use super::{FoundBy, Mutant};
use crate::sim::Kind;

pub(super) const MUTANTS: &[Mutant] = &[
    Mutant {
        name: "a copy is no copy",
        file: "agent/src/core/instance.rs",
        original: "(Some((was, now)), _) => was != now,",
        broken: "(Some((was, now)), _) => was != now && (!BROKEN || was > now),",
        found_by: FoundBy::Worlds(Kind::PutBack),
        seed: 0,
    },
    Mutant {
        name: "one name of the hardware that changed makes a copy",
        file: "agent/src/core/instance.rs",
        original: "known.all(|differs| differs);",
        broken: "(BROKEN || known.all(|differs| differs));",
        found_by: FoundBy::Part("ordinary_life_makes_no_other_instance"),
        seed: 0,
    },
    Mutant {
        name: "a folder that was written over in place is no copy",
        file: "agent/src/core/instance.rs",
        original: "!was.beside.is_empty() && known.all(",
        broken: "!BROKEN && !was.beside.is_empty() && known.all(",
        found_by: FoundBy::Part("a_folder_that_was_written_over_in_place_is_another_instance"),
        seed: 0,
    },
    Mutant {
        name: "a copy sends although the total moved by something else",
        file: "agent/src/core/machine/copies.rs",
        original: "                && self.is_explained(now, account)",
        broken: "                && (BROKEN || self.is_explained(now, account))",
        found_by: FoundBy::Part(
            "a_copy_sends_nothing_where_the_total_moved_by_anything_but_its_batches",
        ),
        seed: 0,
    },
    Mutant {
        name: "a copy goes on with what may have grown in the original",
        file: "agent/src/core/machine/copies.rs",
        original: " && !self.open_at_start.contains(&no);",
        broken: " && (BROKEN || !self.open_at_start.contains(&no));",
        found_by: FoundBy::Worlds(Kind::Copy),
        seed: 50,
    },
    Mutant {
        name: "what a copy was refused goes on under another key",
        file: "agent/src/core/machine/copies.rs",
        original: "            BatchState::Held(_) => true,",
        broken: "            BatchState::Held(_) => !BROKEN,",
        found_by: FoundBy::Part("a_refusal_or_a_key_that_grew_old_makes_a_copy_wait_again"),
        seed: 0,
    },
    Mutant {
        name: "a copy trusts a total where it trusts no key",
        file: "agent/src/core/machine/copies.rs",
        original: "BatchState::Unknown { .. } => !self.trusts_key(now, batch),",
        broken: "BatchState::Unknown { .. } => !BROKEN && !self.trusts_key(now, batch),",
        found_by: FoundBy::Part("a_refusal_or_a_key_that_grew_old_makes_a_copy_wait_again"),
        seed: 0,
    },
    Mutant {
        name: "a total that cannot tell lets the rest of a copy go",
        file: "agent/src/core/machine/copies.rs",
        original: "if is_unclear {",
        broken: "if is_unclear && !BROKEN {",
        found_by: FoundBy::Part(
            "where_the_total_cannot_tell_what_the_original_did_a_person_decides_about_all_of_it",
        ),
        seed: 0,
    },
    Mutant {
        name: "an agent goes on although another one writes its ledger",
        file: "agent/src/ledger/fence.rs",
        original: "    pub(super) const fn is_lost(&self) -> bool {\n        self.is_lost.get()",
        broken: "    pub(super) fn is_lost(&self) -> bool {\n        self.is_lost.get() && !BROKEN",
        found_by: FoundBy::EndToEnd(
            "a_second_agent_stops_the_first_and_a_server_with_keys_counts_once",
        ),
        seed: 0,
    },
    Mutant {
        name: "a ledger that was deleted is taken to be there",
        file: "agent/src/ledger/files.rs",
        original: "(None, _) => Place::Empty,",
        broken: "(None, _) => if BROKEN { Place::Same } else { Place::Empty },",
        found_by: FoundBy::EndToEnd("a_ledger_that_is_deleted_under_an_agent_is_written_back"),
        seed: 0,
    },
    Mutant {
        name: "another file at the ledger's place is written over",
        file: "agent/src/ledger/files.rs",
        original: "(Some(false), _) => Place::Taken,",
        broken: "(Some(false), _) => if BROKEN { Place::Same } else { Place::Taken },",
        found_by: FoundBy::EndToEnd(
            "another_ledger_at_its_place_is_left_alone_and_the_agents_own_is_kept",
        ),
        seed: 0,
    },
    Mutant {
        name: "a copy draws ids of its own for what the original sends",
        file: "agent/src/core/machine/copies.rs",
        original: "let (id, readings) = (self.book.id_of(batch), self.readings(now));",
        broken: "let id = if BROKEN {\n            Some(self.random_id())\n        } else {\n            self.book.id_of(batch)\n        };\n        let readings = self.readings(now);",
        found_by: FoundBy::Part(
            "a_copy_asks_a_server_with_keys_under_the_key_of_the_original_one_batch_after_the_other",
        ),
        seed: 0,
    },
    Mutant {
        name: "a new device sends what its original owes",
        file: "agent/src/core/machine/copies.rs",
        original: "DeviceIs::New => self.give_up_until(now, until),",
        broken: "DeviceIs::New if !BROKEN => self.give_up_until(now, until),\n            DeviceIs::New => 0,",
        found_by: FoundBy::Part(
            "a_new_device_gives_up_what_the_original_owes_and_has_ids_of_its_own",
        ),
        seed: 0,
    },
    Mutant {
        name: "what a moved device owes is sent without a look at the total",
        file: "agent/src/core/machine/copies.rs",
        original: "                self.compare_copies(now);\n                0",
        broken: "                if !BROKEN {\n                    self.compare_copies(now);\n                }\n                0",
        found_by: FoundBy::Part(
            "where_the_total_cannot_tell_what_the_original_did_a_person_decides_about_all_of_it",
        ),
        seed: 0,
    },
];
