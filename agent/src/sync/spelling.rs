//! Addresses of readings that no cache has kept.
//!
//! A cache keeps an answer under the address of its question. Some keep it whatever `Cache-Control` asks for, and date it
//! anew (nginx's `proxy_cache` does both), so that nothing in the answer says how old it is. An address can be written in
//! many ways that mean the same (RFC 3986, section 6.2.2.2: an unreserved character and its percent-encoding; and the order
//! of query parameters means nothing), so each reading has a spelling of its own.

use std::fmt::Write as _;

use rand::{Rng, RngExt as _, seq::SliceRandom as _};
use reqwest::Url;

/// The parameters whose names are spelled differently. Values stay as they are, for those who look for one in a server's
/// log, and so does the name of the licence key, by which logs leave it out.
const SPELLED: [&str; 2] = ["product", "hardware_id"];

/// Sets the query of a reading, in a spelling drawn from some hundred thousand.
pub(super) fn set_query(url: &mut Url, mut query: Vec<(&str, String)>, random: &mut impl Rng) {
    query.shuffle(random);
    url.query_pairs_mut().clear().extend_pairs(query);
    let mut spelled = String::new();
    for parameter in url.query().unwrap_or_default().split('&') {
        if !spelled.is_empty() {
            spelled.push('&');
        }
        let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
        for letter in name.chars() {
            if SPELLED.contains(&name) && letter.is_ascii_lowercase() && random.random() {
                // Writing to a string does not fail.
                let _ = write!(spelled, "%{:02X}", u32::from(letter));
            } else {
                spelled.push(letter);
            }
        }
        spelled.push('=');
        spelled.push_str(value);
    }
    url.set_query(Some(&spelled));
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use rand::{SeedableRng as _, rngs::StdRng};

    use super::*;

    #[test]
    fn each_reading_has_an_address_of_its_own_and_asks_the_same() {
        let random = &mut StdRng::seed_from_u64(1);
        let asked = [
            ("license_key", "AAAA-BBBB"),
            ("product", "in&spect"),
            ("hardware_id", "device 1"),
        ];
        let mut addresses = HashSet::new();
        for _ in 0..100 {
            let mut url = Url::parse("http://127.0.0.1/api/v4/check_license").unwrap();
            let query = asked.map(|(name, value)| (name, value.to_owned())).to_vec();
            set_query(&mut url, query, random);
            let read: HashSet<_> = url.query_pairs().into_owned().collect();
            let expected = asked.map(|(name, value)| (name.to_owned(), value.to_owned()));
            assert_eq!(read, HashSet::from(expected));
            assert!(url.query().unwrap().contains("license_key=AAAA-BBBB"));
            addresses.insert(url.to_string());
        }
        assert_eq!(addresses.len(), 100);
    }
}
