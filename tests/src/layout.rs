//! The linker's list of functions that stand together, made of what callgrind saw called and of a program's symbols.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fmt::Write as _,
};

use anyhow::ensure;

/// A pattern may take functions along that were not called: one byte of such for so many of others, so that there are
/// fewer patterns.
const CALLED_MIN: u64 = 4;

/// How the linker's own names of groups begin: a pattern that ends within one would take the whole group.
const GROUPS: [&str; 5] = ["exit.", "hot.", "split.", "startup.", "unlikely."];

const HEADER: &str = "\
/* Functions that an agent runs from its start to its first settled units stand together in the program, so that the rest
   need not be resident: see build.rs. Written by tests/bench/layout; a name that no function has is harmless. */
";

/// The functions of a program.
pub struct Layout {
    functions: BTreeMap<String, Bytes>,
    called: u64,
    all: u64,
}

/// How many bytes of a name's functions were called, and how many were not: generic code has one name and many hashes.
#[derive(Clone, Copy, Debug, Default)]
struct Bytes {
    called: u64,
    other: u64,
}

impl Layout {
    /// From callgrind's profiles, with names as they are in the program, and what `nm --print-size` says of it.
    ///
    /// # Errors
    ///
    /// Where a size is no number, or none of the functions was called.
    pub fn new<'a>(
        profiles: impl IntoIterator<Item = &'a str>,
        symbols: &str,
    ) -> crate::Result<Self> {
        let mut names = HashSet::new();
        for profile in profiles {
            add_called(profile, &mut names);
        }
        let symbols: Vec<_> = symbols
            .lines()
            .filter_map(|line| match line.split(' ').collect::<Vec<_>>()[..] {
                [address, size, "t" | "T" | "w" | "W", name] => Some((address, size, name)),
                _ => None,
            })
            .collect();
        // Functions with the same code are one, with two names, of which callgrind tells one.
        let called: HashSet<&str> = symbols
            .iter()
            .filter(|(_, _, name)| names.contains(*name))
            .map(|(address, _, _)| *address)
            .collect();
        ensure!(!called.is_empty(), "no function of the program was called");
        let mut functions = BTreeMap::<String, Bytes>::new();
        let mut sizes = HashMap::new();
        for (address, size, name) in symbols {
            let size = u64::from_str_radix(size, 16)?;
            let bytes = functions.entry(without_hash(name)).or_default();
            if called.contains(address) {
                bytes.called += size;
            } else {
                bytes.other += size;
            }
            sizes.insert(address, size);
        }
        let of_called = sizes
            .iter()
            .filter(|(address, _)| called.contains(*address));
        Ok(Self {
            functions,
            called: of_called.map(|(_, size)| size).sum(),
            all: sizes.values().sum(),
        })
    }

    /// How many bytes of code were called, and how many there are.
    pub const fn bytes(&self) -> (u64, u64) {
        (self.called, self.all)
    }

    /// The linker's script.
    pub fn script(&self) -> String {
        let mut script = format!("{HEADER}SECTIONS {{\n  .text.used : {{\n");
        for pattern in self.patterns() {
            // Those that the compiler takes for cold ones, which are in sections `.text.unlikely.…`, are called as well.
            let _ = writeln!(script, "    *(.text.{pattern} .text.unlikely.{pattern})");
        }
        script.push_str("  }\n} INSERT BEFORE .text;\n");
        script
    }

    /// The shortest beginnings of names that the functions have in common that were called, and few others.
    fn patterns(&self) -> Vec<String> {
        let functions: Vec<_> = self.functions.iter().collect();
        let mut patterns = Vec::new();
        add_patterns(&functions, 0, &mut patterns);
        patterns
    }
}

/// Adds the names of all functions that were called: lines `fn=(number) name`, or the number alone where the name was told
/// before, by a caller's line (`cfn=`) too.
fn add_called(profile: &str, called: &mut HashSet<String>) {
    let mut names = BTreeMap::new();
    for line in profile.lines() {
        let (is_called, function) = match line.split_once("fn=(") {
            Some(("", function)) => (true, function),
            Some(("c", function)) => (false, function),
            _ => continue,
        };
        let Some((number, name)) = function.split_once(')') else {
            continue;
        };
        let name = name.trim_start();
        if !name.is_empty() {
            // Callgrind counts the levels of a recursion: `name'2`.
            names.insert(number, name.split('\'').next().unwrap_or(name));
        }
        if is_called && let Some(name) = names.get(number) {
            called.insert((*name).to_owned());
        }
    }
}

/// A function's name, without what another build may call it: `17h`, the digits of a hash, and `E`, as Rust mangles names; or,
/// in names of the newer kind, which begin with `_R`, the hashes of crates, and a point and the number of a copy.
fn without_hash(name: &str) -> String {
    if name.starts_with("_ZN") {
        let end = name.rfind("17h").unwrap_or(name.len());
        return name.get(..end).unwrap_or(name).to_owned();
    }
    if !name.starts_with("_R") {
        return name.to_owned();
    }
    let name = name.split('.').next().unwrap_or(name);
    let mut crates = name.split("Cs");
    let mut found = crates.next().unwrap_or_default().to_owned();
    for part in crates {
        let rest = part.trim_start_matches(|letter: char| letter.is_ascii_alphanumeric());
        if rest.starts_with('_') {
            found.push_str("Cs*");
            found.push_str(rest);
        } else {
            found.push_str("Cs");
            found.push_str(part);
        }
    }
    found
}

/// For functions, sorted, whose names have so many bytes in common.
fn add_patterns(functions: &[(&String, &Bytes)], common: usize, patterns: &mut Vec<String>) {
    let called: u64 = functions.iter().map(|(_, bytes)| bytes.called).sum();
    let other: u64 = functions.iter().map(|(_, bytes)| bytes.other).sum();
    let Some((name, _)) = functions.first().filter(|_| called > 0) else {
        return;
    };
    if let [_] = functions {
        let end = match name.get(..2) {
            Some("_Z") => "17h*",
            Some("_R") => "*",
            _ => "",
        };
        patterns.push(format!("{name}{end}"));
    } else if other <= called / CALLED_MIN
        && let Some(prefix) = name.get(..common)
        && !GROUPS.iter().any(|group| group.starts_with(prefix))
    {
        patterns.push(format!("{prefix}*"));
    } else {
        let next = |(name, _): &(&String, &Bytes)| name.as_bytes().get(common).copied();
        for functions in functions.chunk_by(|one, other| next(one) == next(other)) {
            add_patterns(functions, common + 1, patterns);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROFILE: &str = "\
events: Ir
fn=(1) main
cfn=(2) _ZN5tally3run17h0123456789abcdefE
calls=1 0
fn=(2)
0 3
cfn=(3) never_itself
fn=(4) sqlite3Step'2
";

    const SYMBOLS: &str = "\
0000000000001000 0000000000000010 T main
0000000000001010 0000000000000020 t _ZN5tally3run17h0123456789abcdefE
0000000000001030 0000000000000040 t _ZN5tally4idle17h0123456789abcdefE
0000000000001070 0000000000000008 t sqlite3Step
0000000000001070 0000000000000008 t sqlite3StepAgain
0000000000001080 0000000000000100 t never_itself
                 U malloc
";

    #[test]
    fn what_was_called_stands_in_the_script_without_hashes() {
        let layout = Layout::new([PROFILE], SYMBOLS).unwrap();
        assert_eq!(layout.bytes(), (0x38, 0x178));
        let script = layout.script();
        for pattern in ["main", "_ZN5tally3run17h*", "sq*"] {
            assert!(script.contains(&format!("*(.text.{pattern} ")), "{script}");
        }
        assert!(
            !script.contains("idle") && !script.contains("never"),
            "{script}"
        );
        assert!(script.ends_with("} INSERT BEFORE .text;\n"));
    }

    #[test]
    fn a_program_of_which_nothing_was_called_is_refused() {
        assert!(Layout::new(["fn=(1) other"], SYMBOLS).is_err());
    }

    #[track_caller]
    fn check_name(name: &str, expected: &str) {
        assert_eq!(without_hash(name), expected);
    }

    #[test]
    fn names_outlive_a_build() {
        check_name(
            "_ZN5tokio4task17h00000000000000aaE.llvm.12",
            "_ZN5tokio4task",
        );
        check_name("_RNvCsgEmfK2I1SDS_4core3fmt.1805", "_RNvCs*_4core3fmt");
        check_name("_RNvNtCsa_3std2ioCsb_5alloc", "_RNvNtCs*_3std2ioCs*_5alloc");
        check_name("sqlite3BtreeInsert.part.0", "sqlite3BtreeInsert.part.0");
    }
}
