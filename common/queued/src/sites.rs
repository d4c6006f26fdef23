//! Which mail hosts are behind which domain, as workers found them: in memory, for operators. After a start it is learned
//! anew.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// Domains of one generation; two are kept.
const GENERATION: usize = 50_000;
/// Octets of a site's name that are kept.
const LONGEST: usize = 256;

/// Domain → site. When a generation is full, what was not seen since the one before is forgotten.
#[derive(Debug)]
pub(crate) struct Sites {
    known: Mutex<Known>,
    generation: usize,
}

#[derive(Debug, Default)]
struct Known {
    young: HashMap<String, Arc<str>>,
    old: HashMap<String, Arc<str>>,
}

impl Default for Sites {
    fn default() -> Self {
        Self {
            known: Mutex::default(),
            generation: GENERATION,
        }
    }
}

impl Sites {
    /// What a worker says of a domain.
    pub fn learn(&self, domain: &str, site: &str) {
        if site.is_empty() || site.len() > LONGEST {
            return;
        }
        let mut known = self.known();
        if known.young.get(domain).is_some_and(|now| &**now == site) {
            return;
        }
        if known.young.len() >= self.generation {
            known.old = std::mem::take(&mut known.young);
        }
        known.young.insert(domain.to_owned(), site.into());
    }

    /// The site of a domain, if it is known.
    pub fn of(&self, domain: &str) -> Option<Arc<str>> {
        let known = self.known();
        let site = known.young.get(domain).or_else(|| known.old.get(domain));
        site.cloned()
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_seen_for_two_generations_is_forgotten() {
        let sites = Sites {
            generation: 2,
            ..Sites::default()
        };
        for domain in ["a", "b", "c", "d"] {
            sites.learn(domain, "mx.test");
        }
        assert_eq!(sites.of("a").as_deref(), Some("mx.test"));
        sites.learn("e", "mx.test");
        assert_eq!(sites.of("a"), None);
        assert!(sites.of("c").is_some() && sites.of("e").is_some());
        sites.learn("e", "mx2.test");
        assert_eq!(sites.of("e").as_deref(), Some("mx2.test"));
        sites.learn("f", "");
        sites.learn("f", &"x".repeat(LONGEST + 1));
        assert_eq!(sites.of("f"), None);
    }
}
