//! The page fits the terminal, whatever there is to show.

use serde_json::{Value, json};

use super::{Detail, page};
use crate::cli::screen::{self, Screen};

fn license(number: usize, holder: &str, held: &Value) -> Value {
    json!({
        "id": number, "product": "inspect", "holder": "username", "holder_value": holder,
        "feature": if number.is_multiple_of(3) { json!("thickness-of-the-wall") } else { Value::Null },
        "refused": if number == 2 { json!("license_not_enabled") } else { Value::Null },
        "total": 12_345 + number, "cap": 1_000_000, "max_consumptions": 10_000,
        "resets_at": "2026-12-01T00:00:00.000Z", "late": number,
        "conservation": {"recorded": 99_999, "settled": 55_555, "pending": 11_111, "in_flight": 11_111,
                         "unknown": 11_111, "held": 11_110, "waived": 1},
        "held": held,
    })
}

fn status(licenses: &[Value], state: &str) -> Value {
    json!({
        "connection": {"state": state, "since_ms": 7_500_000, "last_answer_ms": 8_000_000,
                       "next_try_ms": 20_000, "refused": "signature_mismatch"},
        "time": "2026-11-25T12:00:00.000Z", "time_proven": false, "synced": false, "evidence": 1,
        "storage_advice": "make space on the disk, and recording goes on by itself",
        "licenses": licenses,
    })
}

fn plain(status: &Value, detail: Detail, width: usize) -> String {
    let screen = Screen {
        width: Some(width),
        height: None,
    };
    anstream::adapter::strip_str(&page(status, detail, screen)).to_string()
}

#[test]
fn no_line_is_wider_than_the_terminal() {
    let held = json!([
        {"batch": 7, "units": 8, "reason": "undecidable", "since": "2026-11-25T10:00:00.000Z",
         "next_step": "none: a person must decide whether it was counted"},
        {"batch": 8, "units": 3, "reason": "limit", "since": "2026-11-25T10:00:00.000Z",
         "next_step": "sent when the limit rises or the period turns", "next_at": "2026-12-01T00:00:00.000Z"},
    ]);
    let holders = [
        "AAAA-BBBB",
        "somebody.with.a.very.long.name@subsidiary.of.a.large.company.example.com",
        "検査装置の利用者",
        "\u{1b}[2J\r\nnobody",
    ];
    for count in [0, 1, 12] {
        let licenses: Vec<Value> = (0..count)
            .zip(holders.iter().cycle())
            .map(|(number, holder)| license(number, holder, &held))
            .collect();
        for state in ["online", "offline", "unreachable", "refused"] {
            for detail in [Detail::Full, Detail::Line] {
                for width in [20, 40, 60, 80, 120] {
                    let page = plain(&status(&licenses, state), detail, width);
                    for line in page.lines() {
                        assert!(screen::width(line) <= width, "{width}: {line}");
                        assert!(!line.contains('\u{1b}'), "{line:?}");
                    }
                }
            }
        }
    }
}

#[test]
fn what_needs_a_person_comes_with_what_to_type() {
    let held = json!([
        {"batch": 7, "units": 8, "reason": "undecidable", "since": "2026-11-25T10:00:00.000Z",
         "next_step": "none: a person must decide whether it was counted"},
    ]);
    let status = status(&[license(1, "KEY", &held)], "refused");
    assert_eq!(
        plain(&status, Detail::Full, 100),
        "\
● not syncing for 2 h 5 min · last heard from the server 2 h 13 min ago · 44443 units are owed ·
next try in 20 s

! nothing is recorded: the ledger cannot be written
  → make space on the disk, and recording goes on by itself
! the server refuses the credentials (signature_mismatch)
  → set the right ones and start the agent again; `tally doctor` tries them
! the ledger was changed behind the agent's back
  → `tally verify` says where it shows
! the server has not confirmed the clock since this device started; periods may turn at the wrong
time
  → `tally sync` asks the server; `tally doctor` compares the clocks
! batch 7 of KEY, 8 units, is held for 2 h: undecidable whether the server counted it
  → a person must decide whether it was counted: tally resolve 7 --applied | --not-applied |
  --resend | --waive REASON

inspect · KEY
  ▓░░░░░░░░░░░░░░░░░░░░░░░ 12346 of 1000000 used · 987654 left · 2346 over the limit ·
  44443 not counted yet · resets in 5 days (2026-12-01)
  99999 recorded = 55555 settled + 11111 pending + 11111 in flight + 11111 unknown + 11110 held +
  1 waived
  1 unit was sent after its period was over, and counts in a later one
"
    );
}

#[test]
fn trouble_with_the_total_says_what_to_type() {
    let mut pooled = license(1, "KEY", &json!([]));
    pooled["refused_with_room"] = json!(100);
    pooled["pool"] = json!({"id": 3, "name": "Fleet", "cap": 10, "total": 8});
    let mut lost = license(
        3,
        "KEY",
        &json!([
            {"batch": 8, "units": 2, "reason": "gone", "next_step": "none: its total cannot be read any more"},
        ]),
    );
    lost["unknown"] = json!({"batch": 9, "units": 5, "decidable_at": "2026-11-25T11:00:00.000Z"});
    let page = plain(&status(&[pooled, lost], "online"), Detail::Full, 200);
    for said in [
        "the server refuses units of KEY for the limit although the licence has 100 left (a pool?)",
        "pool Fleet: 8 of 10 used",
        "batch 9 of KEY · thickness-of-the-wall, 5 units, was sent, and its answer was lost",
        "tally resolve 9 --applied | --not-applied | --resend | --waive REASON",
        "batch 8 of KEY · thickness-of-the-wall, 2 units, is held: whether it was counted is not known",
    ] {
        assert!(page.contains(said), "{said}\n{page}");
    }
}
