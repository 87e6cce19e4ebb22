//! Answers that are still valid.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

use tokio::time::Instant;

use crate::egress::network::ResolveError;

/// Maximum number of names.
const MAX_NAMES: usize = 1_024;

type Found = Result<Vec<IpAddr>, ResolveError>;

/// Answers by name.
#[derive(Debug, Default)]
pub(super) struct Cache {
    entries: HashMap<String, (Instant, Found)>,
}

impl Cache {
    /// Returns the answer for a name that is valid at `now`.
    pub(super) fn get(&self, name: &str, now: Instant) -> Option<Found> {
        let (end, found) = self.entries.get(name)?;
        (*end > now).then(|| found.clone())
    }

    /// Keeps an answer for `ttl`. When there is no place, answers that are no longer valid are removed, or all of them.
    pub(super) fn insert(&mut self, name: &str, found: Found, now: Instant, ttl: Duration) {
        if self.entries.len() >= MAX_NAMES && !self.entries.contains_key(name) {
            self.entries.retain(|_, (end, _)| *end > now);
            if self.entries.len() >= MAX_NAMES {
                self.entries.clear();
            }
        }
        self.entries.insert(name.to_owned(), (now + ttl, found));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_expire_and_the_number_of_names_is_bounded() {
        let mut cache = Cache::default();
        let now = Instant::now();
        let second = Duration::from_secs(1);
        let found = Ok(vec![IpAddr::from([1, 1, 1, 1])]);
        cache.insert("a", found.clone(), now, second);
        assert_eq!(cache.get("a", now), Some(found.clone()));
        assert_eq!(cache.get("a", now + second), None);
        for n in 0..3_000 {
            cache.insert(&format!("n{n}"), found.clone(), now, second);
            assert!(cache.entries.len() <= MAX_NAMES);
        }
        assert_eq!(cache.get("n2999", now), Some(found));
    }
}
