//! Which licence a name opens.

use super::{FoundBy, Mutant};
use crate::sim::Kind;

pub(super) const MUTANTS: &[Mutant] = &[
    Mutant {
        name: "a request without an id goes to any licence that its name opens",
        file: "agent/src/core/book/names.rs",
        original: "return self.licenses.get(&opens.default?);",
        broken: "let any = opens.licenses.first().copied().filter(|_| BROKEN);\n            return self.licenses.get(&any.or(opens.default)?);",
        found_by: FoundBy::Worlds(Kind::Names),
        seed: 0,
    },
    Mutant {
        name: "an answer about another licence is taken for the one that was asked about",
        file: "agent/src/core/machine/learn.rs",
        original: "let known = self.book.by_id(&subject.product, id);",
        broken: "let known = self.book.find(subject).filter(|_| BROKEN);\n        let known = known.or_else(|| self.book.by_id(&subject.product, id));",
        found_by: FoundBy::Worlds(Kind::Names),
        seed: 0,
    },
    Mutant {
        name: "a licence that was not told of is asked for again at once",
        file: "agent/src/core/machine/names.rs",
        original: "        self.pause(now, no, None);\n        if !found.is_fresh {\n            return;",
        broken: "        if !BROKEN {\n            self.pause(now, no, None);\n        }\n        if !found.is_fresh {\n            return;",
        found_by: FoundBy::Part(
            "a_key_that_opens_another_licence_now_does_not_charge_it_for_the_former",
        ),
        seed: 0,
    },
    Mutant {
        name: "a key that opens another licence still opens the former",
        file: "agent/src/core/machine/names.rs",
        original: "            self.unname(now, former, &name);",
        broken: "            if !BROKEN {\n                self.unname(now, former, &name);\n            }",
        found_by: FoundBy::Part(
            "a_key_that_opens_another_licence_now_does_not_charge_it_for_the_former",
        ),
        seed: 0,
    },
    Mutant {
        name: "entries of one licence have a limit each",
        file: "agent/src/core/book/names.rs",
        original: "numbers.flat_map(|no| self.any_batches_of(no))",
        broken: "numbers\n            .take(if BROKEN { 1 } else { usize::MAX })\n            .flat_map(|no| self.any_batches_of(no))",
        found_by: FoundBy::Part(
            "several_entries_of_one_licence_have_one_limit_and_are_sent_one_at_a_time",
        ),
        seed: 0,
    },
    Mutant {
        name: "entries of one licence are sent at the same time",
        file: "agent/src/core/machine/agenda.rs",
        original: "if twins.iter().any(|twin| self.is_doubtful(twin.no)) {",
        broken: "if !BROKEN && twins.iter().any(|twin| self.is_doubtful(twin.no)) {",
        found_by: FoundBy::Part(
            "several_entries_of_one_licence_have_one_limit_and_are_sent_one_at_a_time",
        ),
        seed: 0,
    },
    Mutant {
        name: "a refusal without an id blocks a licence that it may not be about",
        file: "agent/src/core/machine/names.rs",
        original: "if may_be_of_another && is_news {",
        broken: "if may_be_of_another && is_news && !BROKEN {",
        found_by: FoundBy::Part("a_refusal_without_an_id_is_not_taken_for_a_licence_that_goes_on"),
        seed: 0,
    },
    Mutant {
        name: "a name that is gone is refused by old knowledge",
        file: "agent/src/core/machine/names.rs",
        original: "is_gone && subject.license_id.is_none() && self.link.is_up()",
        broken: "is_gone && subject.license_id.is_none() && self.link.is_up() && !BROKEN",
        found_by: FoundBy::Part(
            "a_user_whose_licence_is_gone_is_asked_for_again_and_never_while_offline",
        ),
        seed: 0,
    },
    Mutant {
        name: "a failed commit keeps the names that it moved",
        file: "agent/src/core/book/changes.rs",
        original: "        self.restore_names(changes.names);",
        broken: "        if !BROKEN {\n            self.restore_names(changes.names);\n        }",
        found_by: FoundBy::Part("what_could_not_be_committed_moves_no_name"),
        seed: 0,
    },
    Mutant {
        name: "a licence that was removed is refused by old knowledge",
        file: "agent/src/core/record.rs",
        original: "    let license = book.find(&request.subject).ok_or(Rejected::Unknown)?;\n    let device",
        broken: "    let subject = &request.subject;\n    let is_former = |it: &&License| BROKEN && it.holder == subject.holder && it.product == subject.product;\n    let license = book.find(subject).or_else(|| book.licenses().find(is_former)).ok_or(Rejected::Unknown)?;\n    if BROKEN {\n        check_license(license, request, now).map_err(Rejected::Refused)?;\n    }\n    let device",
        found_by: FoundBy::Worlds(Kind::Removed),
        seed: 0,
    },
];
