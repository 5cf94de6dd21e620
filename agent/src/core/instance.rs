//! The instance of a ledger: the file and the device that it lives on, and whether that is another than before.
//!
//! A copied disk, image or folder brings the same ledger to life twice, or brings an earlier state of it back. Its
//! content cannot tell, since that is the same; the file that it is in can, and the hardware under it. What changes in
//! the ordinary life of a device says nothing: another start, another name of the host or id of the machine, a file
//! system that was checked or has grown, a program that was upgraded.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// What is known of the place that a ledger lives at. What is not known is compared with nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Instance {
    /// When the ledger's file was made, in nanoseconds since 1970, by its file system.
    pub born: Option<i64>,
    /// The number of the file, where its file system keeps such numbers over a restart.
    pub inode: Option<u64>,
    /// The file beside the ledger that the agent makes anew: the one that is there; in a record, those that may be there. A folder
    /// that was written over in place has the ledger of before and the file of now.
    pub beside: Vec<FileId>,
    /// The kind of the file system, by its number.
    pub file_system: Option<u64>,
    /// What the hardware calls itself, by the kind of name. Unknown inside of a container, which may be moved to other
    /// hardware with its volume.
    pub hardware: BTreeMap<String, String>,
    /// The id of the system that is installed. For people: it may be made anew.
    pub machine: Option<String>,
    /// Which start of the device this is. For people.
    pub boot: Option<String>,
    /// The host's name. For people: it may be given anew.
    pub host: Option<String>,
    /// The ledger's path. For people: disks are mounted elsewhere.
    pub path: Option<String>,
}

/// What tells one file from another at the same place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct FileId {
    /// When it was made, in nanoseconds since 1970, by its file system.
    pub born: Option<i64>,
    /// Its number, where its file system keeps such numbers over a restart.
    pub inode: Option<u64>,
}

impl FileId {
    /// Whether this is certainly another file.
    fn is_other(self, was: Self) -> bool {
        match (was.born.zip(self.born), was.inode.zip(self.inode)) {
            (Some((was, now)), _) => was != now,
            (None, Some((was, now))) => was != now,
            (None, None) => false,
        }
    }
}

/// What shows that a ledger is another instance than the one that was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum Difference {
    /// It is in another file: it was copied, or put back from a backup.
    File,
    /// It is on other hardware: a disk was copied or moved.
    Hardware,
}

impl Difference {
    /// What it shows, for people.
    pub const fn as_words(self) -> &'static str {
        match self {
            Self::File => "it is in another file: it was copied, or put back from a backup",
            Self::Hardware => "it is on another device: the disk was copied, or moved",
        }
    }
}

impl Instance {
    /// What shows that this is not the instance that it `was`; `None` where nothing does.
    pub fn differs(&self, was: &Self) -> Option<Difference> {
        let is_newer_beside = self.beside.iter().any(|now| {
            let mut known = was.beside.iter();
            !was.beside.is_empty() && known.all(|was| now.is_other(*was))
        });
        if self.file().is_other(was.file()) || is_newer_beside {
            return Some(Difference::File);
        }
        let mut known = self.hardware.iter().filter_map(|(kind, name)| {
            let was = was.hardware.get(kind)?;
            Some(was != name)
        });
        // One that stays is enough: a board may be exchanged, or tell its number anew.
        let is_other_hardware =
            known.next().is_some_and(|differs| differs) && known.all(|differs| differs);
        is_other_hardware.then_some(Difference::Hardware)
    }

    /// What tells the ledger's file from another.
    pub const fn file(&self) -> FileId {
        FileId {
            born: self.born,
            inode: self.inode,
        }
    }

    /// The same device, with another file: it was made anew by the agent itself.
    #[must_use]
    pub fn in_another_file(&self, file: &Self) -> Self {
        Self {
            born: file.born,
            inode: file.inode,
            file_system: file.file_system,
            ..self.clone()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Many instances, each with something else that is known and unknown.
    fn instances() -> impl Iterator<Item = Instance> {
        (0..100_u8).map(|number| {
            let hardware = match number % 3 {
                0 => vec![],
                1 => vec![("product_uuid", format!("uuid-{number}"))],
                _ => vec![
                    ("product_uuid", format!("uuid-{number}")),
                    ("serial_number", format!("serial-{number}")),
                ],
            };
            let hardware = hardware.into_iter();
            Instance {
                born: (number % 4 != 0).then(|| 1_700_000_000_000_000_000 + i64::from(number)),
                inode: (number % 4 != 1).then(|| 1000 + u64::from(number)),
                beside: vec![FileId {
                    born: (number % 5 != 0).then(|| 1_700_000_001_000_000_000 + i64::from(number)),
                    inode: Some(2000 + u64::from(number)),
                }],
                file_system: Some(0xef53),
                hardware: hardware
                    .map(|(kind, name)| (kind.to_owned(), name))
                    .collect(),
                machine: Some(format!("machine-{number}")),
                boot: Some(format!("boot-{number}")),
                host: Some(format!("host-{number}")),
                path: Some("/var/lib/tally/ledger.db".to_owned()),
            }
        })
    }

    type Change = fn(&mut Instance);

    #[test]
    fn ordinary_life_makes_no_other_instance() {
        let changes: [(&str, Change); 15] = [
            ("a file beside it that somebody deleted", |now| {
                now.beside.clear();
            }),
            ("nothing", |_| {}),
            ("a reboot", |now| now.boot = Some("another".to_owned())),
            ("a machine id made anew", |now| {
                now.machine = Some("another".to_owned());
            }),
            ("no machine id", |now| now.machine = None),
            ("another host name", |now| {
                now.host = Some("another".to_owned());
            }),
            ("mounted elsewhere", |now| {
                now.path = Some("/mnt/ledger.db".to_owned());
            }),
            ("a kernel that tells no births", |now| now.born = None),
            ("a file system that keeps no numbers", |now| {
                now.inode = None;
            }),
            ("another kind of file system", |now| {
                now.file_system = Some(0x5846_5342);
            }),
            ("a user that may not read the hardware", |now| {
                now.hardware.clear();
            }),
            ("a container without machine id, started again", |now| {
                now.machine = None;
                now.hardware.clear();
                now.boot = Some("another".to_owned());
                now.host = Some("f00dcafe".to_owned());
            }),
            ("one more name of the hardware", |now| {
                now.hardware
                    .insert("board_serial".to_owned(), "b".to_owned());
            }),
            ("one of two names of the hardware told anew", |now| {
                if now.hardware.len() > 1 {
                    now.hardware
                        .insert("product_uuid".to_owned(), "another".to_owned());
                }
            }),
            ("a new number of a file whose birth stayed", |now| {
                if now.born.is_some() {
                    now.inode = now.inode.map(|number| number + 1);
                }
            }),
        ];
        for was in instances() {
            for (what, change) in changes {
                let mut now = was.clone();
                change(&mut now);
                assert_eq!(now.differs(&was), None, "{what}: {was:?}");
                assert_eq!(was.differs(&now), None, "back from {what}: {was:?}");
            }
        }
    }

    #[test]
    fn copies_are_other_instances() {
        for was in instances() {
            let mut copied = was.clone();
            copied.born = was.born.map(|born| born + 1);
            copied.inode = was.inode.map(|number| number + 1);
            assert_eq!(copied.differs(&was), Some(Difference::File), "{was:?}");
            let mut elsewhere = was.clone();
            for name in elsewhere.hardware.values_mut() {
                name.push_str("-other");
            }
            let expected = (!was.hardware.is_empty()).then_some(Difference::Hardware);
            assert_eq!(elsewhere.differs(&was), expected, "{was:?}");
            // The same number in the same place, born later: a file that was put back.
            let mut put_back = was.clone();
            put_back.born = was.born.map(|born| born + 1);
            let expected = was.born.is_some().then_some(Difference::File);
            assert_eq!(put_back.differs(&was), expected, "{was:?}");
        }
    }

    #[test]
    fn a_power_loss_around_the_renewal_of_the_file_beside_it_makes_no_other_instance() {
        let new = FileId {
            born: Some(5),
            inode: Some(5),
        };
        for mut was in instances() {
            was.beside.push(new);
            for file in was.beside.clone() {
                let now = Instance {
                    beside: vec![file],
                    ..was.clone()
                };
                assert_eq!(now.differs(&was), None, "{was:?}");
            }
        }
    }

    #[test]
    fn a_folder_that_was_written_over_in_place_is_another_instance() {
        for was in instances() {
            let mut now = was.clone();
            for file in &mut now.beside {
                file.born = file.born.map(|born| born + 1);
                file.inode = file.inode.map(|number| number + 1);
            }
            assert_eq!(now.differs(&was), Some(Difference::File), "{was:?}");
        }
    }

    #[test]
    fn a_record_of_another_version_is_read_as_far_as_it_is_known() {
        let read: Instance = serde_json::from_str(r#"{"born": 5, "later": 1}"#).unwrap();
        assert_eq!(read.born, Some(5));
        assert_eq!(read.inode, None);
    }
}
