//! Command lines with placeholders: `tally run --data-dir {data_dir}`.

use std::collections::BTreeMap;

/// A command line: a program and its arguments, each with placeholders. No shell reads it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Template(Vec<String>);

/// What placeholders stand for.
pub(super) type Values = BTreeMap<&'static str, String>;

/// A command line that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// A quotation mark has no partner.
    #[error("a quotation mark has no partner")]
    Quotes,
    /// There is no program.
    #[error("it is empty")]
    Empty,
    /// Nobody knows what a placeholder stands for.
    #[error("{{{name}}} is not a placeholder; there are {known}")]
    Unknown {
        /// Its name.
        name: String,
        /// Those that are known.
        known: String,
    },
}

impl Template {
    /// Takes a line apart as a shell would, and knows these placeholders.
    pub(super) fn parse(line: &str, known: &[&str]) -> Result<Self, TemplateError> {
        let words = shlex::split(line).ok_or(TemplateError::Quotes)?;
        Self::of(words, known)
    }

    /// A command that is in words already.
    pub(super) fn of(words: Vec<String>, known: &[&str]) -> Result<Self, TemplateError> {
        if words.is_empty() {
            return Err(TemplateError::Empty);
        }
        for word in &words {
            for name in names(word) {
                if !known.contains(&name) {
                    let known: Vec<String> = known.iter().map(|it| format!("{{{it}}}")).collect();
                    return Err(TemplateError::Unknown {
                        name: name.to_owned(),
                        known: known.join(", "),
                    });
                }
            }
        }
        Ok(Self(words))
    }

    /// The program, without its arguments.
    pub(super) fn program(&self) -> &str {
        self.0.first().map_or("", String::as_str)
    }

    /// The words with every placeholder filled in.
    pub(super) fn filled(&self, values: &Values) -> Vec<String> {
        let fill = |word: &String| {
            values.iter().fold(word.clone(), |word, (name, value)| {
                word.replace(&format!("{{{name}}}"), value)
            })
        };
        self.0.iter().map(fill).collect()
    }
}

/// The names in braces; other braces, as of JSON, are left alone.
fn names(word: &str) -> impl Iterator<Item = &str> {
    word.split('{').skip(1).filter_map(|rest| {
        let (name, _) = rest.split_once('}')?;
        let plain = |sign: char| sign.is_ascii_lowercase() || sign == '_';
        (!name.is_empty() && name.chars().all(plain)).then_some(name)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_split_as_a_shell_does_and_filled() {
        let line = "tally run --data-dir '{data_dir}/a b' --json {\"x\":1}";
        let template = Template::parse(line, &["data_dir"]).unwrap();
        let values = Values::from([("data_dir", "/tmp/x y".to_owned())]);
        let words = template.filled(&values);
        assert_eq!(words[..3], ["tally", "run", "--data-dir"]);
        assert_eq!(words[3], "/tmp/x y/a b");
        assert_eq!(template.program(), "tally");
    }

    #[test]
    fn a_line_that_cannot_be_used_says_what_can() {
        let refused = |line| Template::parse(line, &["url"]).unwrap_err().to_string();
        assert_eq!(refused("tally 'run"), "a quotation mark has no partner");
        assert_eq!(refused("  "), "it is empty");
        assert_eq!(
            refused("tally {data}"),
            "{data} is not a placeholder; there are {url}"
        );
    }
}
