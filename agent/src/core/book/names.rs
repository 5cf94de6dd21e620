//! What names open: a licence is the server's id, and keys and users are names that point to it.
//!
//! A name is a key or a user, of a product, on a device. The licence that the server takes for a request without an id
//! is the name's default; with an id, it opens each licence of which an answer has shown it. Pointers move, licences do not.

use std::collections::{BTreeMap, BTreeSet};

use tally_shared::wire::{Holder, Subject};

use super::{Account, AccountNo, Batch, Book, License, LicenseNo};

/// A key or a user, of a product, on a device.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Name {
    /// The product's short code.
    pub product: String,
    /// The key, or the user.
    pub holder: Holder,
    /// The device.
    pub hardware_id: String,
}

/// What a name opens.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Opens {
    /// The licence of requests that name no id; `None` where the server must be asked.
    pub default: Option<LicenseNo>,
    /// The licences that it opens, the default among them.
    pub licenses: BTreeSet<LicenseNo>,
}

/// All names.
#[derive(Default)]
pub(super) struct Names {
    /// By product, holder and device: asked by parts, a request allocates nothing.
    known: BTreeMap<String, BTreeMap<Holder, BTreeMap<String, Opens>>>,
    /// The names that open a licence.
    of_license: BTreeMap<LicenseNo, BTreeSet<Name>>,
}

impl Name {
    /// How a request names the licence.
    pub fn of(subject: &Subject) -> Self {
        Self {
            product: subject.product.clone(),
            holder: subject.holder.clone(),
            hardware_id: subject.hardware_id.clone(),
        }
    }
}

impl Names {
    fn get(&self, product: &str, holder: &Holder, hardware_id: &str) -> Option<&Opens> {
        self.known.get(product)?.get(holder)?.get(hardware_id)
    }

    fn of(&self, name: &Name) -> Option<&Opens> {
        self.get(&name.product, &name.holder, &name.hardware_id)
    }

    pub(super) fn set(&mut self, name: &Name, opens: Option<Opens>) {
        let former = self.of(name).map(|opens| opens.licenses.clone());
        for no in former.into_iter().flatten() {
            if let Some(names) = self.of_license.get_mut(&no) {
                names.remove(name);
            }
        }
        let holders = self.known.entry(name.product.clone()).or_default();
        let devices = holders.entry(name.holder.clone()).or_default();
        match opens.filter(|opens| !opens.licenses.is_empty()) {
            Some(opens) => {
                for no in &opens.licenses {
                    let names = self.of_license.entry(*no).or_default();
                    names.insert(name.clone());
                }
                devices.insert(name.hardware_id.clone(), opens);
            }
            None => {
                devices.remove(&name.hardware_id);
            }
        }
    }
}

impl Book {
    /// The licence that a request means: the one of its id, where its name opens that, or the default of its name.
    pub fn find(&self, subject: &Subject) -> Option<&License> {
        let Subject {
            product,
            holder,
            license_id,
            hardware_id,
        } = subject;
        let opens = self.names.get(product, holder, hardware_id)?;
        let Some(id) = license_id else {
            return self.licenses.get(&opens.default?);
        };
        let mut opened = opens.licenses.iter().filter_map(|no| self.licenses.get(no));
        opened.find(|license| license.server_id() == *id)
    }

    /// The licence of that id, whether it was forgotten or not. Where an older version made several of one, the first.
    pub fn by_id(&self, product: &str, id: i64) -> Option<&License> {
        let mut licenses = self
            .by_id
            .get(&id)?
            .iter()
            .filter_map(|no| self.licenses.get(no));
        licenses.find(|license| license.product == product)
    }

    /// The licences of one id, the one that takes new consumptions first. There are several only where an older version
    /// made a licence of each name.
    pub fn same_id(&self, license: &License) -> impl Iterator<Item = &License> {
        let numbers = self.by_id.get(&license.server_id()).into_iter().flatten();
        let product = license.product.clone();
        numbers
            .filter_map(|no| self.licenses.get(no))
            .filter(move |other| other.product == product)
    }

    /// The licence that stands for all of its id.
    pub fn first_of<'a>(&'a self, license: &'a License) -> &'a License {
        self.by_id(&license.product, license.server_id())
            .unwrap_or(license)
    }

    /// The other accounts of the same counter: of the same id and feature.
    pub(in crate::core) fn twins_of(&self, account: &Account) -> Vec<&Account> {
        let Some(license) = self.licenses.get(&account.license) else {
            return Vec::new();
        };
        if self
            .by_id
            .get(&license.server_id())
            .is_none_or(|numbers| numbers.len() < 2)
        {
            return Vec::new();
        }
        self.same_id(license)
            .filter(|other| other.no != account.license)
            .filter_map(|other| self.account_of(other.no, account.feature.as_deref()))
            .collect()
    }

    /// The batches of a counter that are not at their end, whichever of its accounts they are of, in no order.
    pub(in crate::core) fn batches_of_counter(
        &self,
        account: &Account,
    ) -> impl Iterator<Item = &Batch> {
        let twins = self.twins_of(account).into_iter().map(|twin| twin.no);
        let numbers = std::iter::once(account.no).chain(twins);
        numbers.flat_map(|no| self.any_batches_of(no))
    }

    /// The names that open a licence, and of which of them it is the default.
    pub fn names_of(&self, no: LicenseNo) -> impl Iterator<Item = (&Name, bool)> {
        let names = self.names.of_license.get(&no).into_iter().flatten();
        names.map(move |name| {
            let opens = self.names.of(name);
            (name, opens.is_some_and(|opens| opens.default == Some(no)))
        })
    }

    /// The name under which the server is asked for a licence on a device: the first that it was known by, as long as that
    /// opens it, so that the bytes of a request stay the same.
    pub(in crate::core) fn name_for(
        &self,
        license: &License,
        hardware_id: &str,
    ) -> Option<(&Name, bool)> {
        let first = self.first_of(license).no;
        self.names_of(first)
            .filter(|(name, _)| name.hardware_id == hardware_id)
            .min_by_key(|(name, _)| name.holder != license.holder)
    }

    /// How a request to the server names a licence: always with its id, since a name can open several. On a device that none
    /// of its names is known to open it on, one that opens it elsewhere may.
    pub fn subject_of(&self, license: &License, hardware_id: &str) -> Subject {
        let elsewhere = || {
            self.names_of(self.first_of(license).no)
                .min_by_key(|(name, _)| name.holder != license.holder)
        };
        let name = self.name_for(license, hardware_id).or_else(elsewhere);
        Subject {
            product: license.product.clone(),
            holder: name.map_or_else(|| license.holder.clone(), |(name, _)| name.holder.clone()),
            license_id: Some(license.server_id()),
            hardware_id: hardware_id.to_owned(),
        }
    }

    /// The names that changed since the last commit, and what they open now.
    pub fn changed_names(&self) -> impl Iterator<Item = (&Name, Option<&Opens>)> {
        let names = self.changes.names.keys();
        names.map(|name| (name, self.names.of(name)))
    }

    /// What a name opens.
    pub(in crate::core) fn opens(&self, name: &Name) -> Option<&Opens> {
        self.names.of(name)
    }

    /// Has a name open exactly this.
    pub(in crate::core) fn set_name(&mut self, name: &Name, opens: Opens) {
        let former = self.names.of(name).cloned();
        if former.as_ref() == Some(&opens) || (former.is_none() && opens.licenses.is_empty()) {
            return;
        }
        self.changes.names.entry(name.clone()).or_insert(former);
        self.names.set(name, Some(opens));
    }

    /// Takes a licence out of what a name opens.
    pub(in crate::core) fn close_name(&mut self, name: &Name, no: LicenseNo) {
        let Some(mut opens) = self.names.of(name).cloned() else {
            return;
        };
        opens.licenses.remove(&no);
        opens.default = opens.default.filter(|default| *default != no);
        self.set_name(name, opens);
    }

    pub(super) fn restore_names(&mut self, names: BTreeMap<Name, Option<Opens>>) {
        for (name, opens) in names {
            self.names.set(&name, opens);
        }
    }

    pub(super) fn index_id(&mut self, license: &License) {
        let numbers = self.by_id.entry(license.server_id()).or_default();
        numbers.push(license.no);
    }

    /// Takes in what the ledger holds of names. Where it has several licences of one id, the first stands for all: names
    /// that open another of them open it, and it has the devices of all.
    pub(super) fn take_names(&mut self, names: Vec<(Name, LicenseNo, bool)>) {
        let first: BTreeMap<LicenseNo, LicenseNo> = self
            .licenses
            .values()
            .map(|license| (license.no, self.first_of(license).no))
            .collect();
        for (name, no, is_default) in names {
            // One that a damage left over opens nothing.
            let Some(no) = first.get(&no).copied() else {
                continue;
            };
            let mut opens = self.names.of(&name).cloned().unwrap_or_default();
            opens.licenses.insert(no);
            if is_default {
                opens.default = Some(opens.default.map_or(no, |default| default.min(no)));
            }
            self.names.set(&name, Some(opens));
        }
        let later = first.into_iter().filter(|(no, first)| no != first);
        for (no, first) in later.collect::<Vec<_>>() {
            self.join_devices(no, first);
            self.join_standings(no, first);
        }
    }

    fn join_devices(&mut self, no: LicenseNo, first: LicenseNo) {
        let taken = self.licenses.get_mut(&no).map(|license| {
            license.blocked = None;
            std::mem::take(&mut license.devices)
        });
        let Some(license) = self.licenses.get_mut(&first) else {
            return;
        };
        for (device, refused) in taken.into_iter().flatten() {
            let known = license.devices.entry(device).or_insert(refused);
            *known = (*known).and(refused);
        }
    }

    /// The newest total is the total of all.
    fn join_standings(&mut self, no: LicenseNo, first: LicenseNo) {
        for later in self.account_numbers_of(no) {
            let feature = self.accounts.get(&later).and_then(|it| it.feature.clone());
            let one = self.account_of(first, feature.as_deref()).map(|it| it.no);
            let Some((one, standing)) = one.and_then(|one| {
                let numbers: [AccountNo; 2] = [one, later];
                let standings = numbers
                    .iter()
                    .filter_map(|no| Some(self.accounts.get(no)?.standing));
                Some((one, standings.max_by_key(|standing| standing.as_of)?))
            }) else {
                continue;
            };
            for account in [one, later] {
                if let Some(account) = self.accounts.get_mut(&account) {
                    account.standing = standing;
                }
            }
        }
    }
}
