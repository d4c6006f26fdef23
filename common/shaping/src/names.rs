//! Which site is behind which domain, as workers found it. After a start it is learned anew.

use std::{collections::HashMap, sync::Arc};

/// Domains of one generation; two are kept.
const GENERATION: usize = 50_000;
/// Octets of a site's name that are kept.
pub(crate) const LONGEST: usize = 256;

/// Domain → site. When a generation is full, what was not seen since the one before is forgotten.
#[derive(Debug, Clone)]
pub(crate) struct Names {
    young: HashMap<Arc<str>, Arc<str>>,
    old: HashMap<Arc<str>, Arc<str>>,
    generation: usize,
}

impl Default for Names {
    fn default() -> Self {
        Self {
            young: HashMap::new(),
            old: HashMap::new(),
            generation: GENERATION,
        }
    }
}

impl Names {
    /// Tells whether that is news.
    pub fn learn(&mut self, domain: &str, site: &str) -> bool {
        if site.is_empty() || site.len() > LONGEST {
            return false;
        }
        if self.young.get(domain).is_some_and(|known| &**known == site) {
            return false;
        }
        let is_news = self.of(domain).is_none_or(|known| &**known != site);
        if self.young.len() >= self.generation {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(domain.into(), site.into());
        is_news
    }

    pub fn of(&self, domain: &str) -> Option<&Arc<str>> {
        self.young.get(domain).or_else(|| self.old.get(domain))
    }

    /// All that is known: domain, site.
    pub fn all(&self) -> impl Iterator<Item = (&Arc<str>, &Arc<str>)> {
        let old = self.old.iter();
        let old = old.filter(|(domain, _)| !self.young.contains_key(*domain));
        self.young.iter().chain(old)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_seen_for_two_generations_is_forgotten() {
        let mut names = Names {
            generation: 2,
            ..Names::default()
        };
        for domain in ["a", "b", "c", "d"] {
            assert!(names.learn(domain, "mx.test"));
        }
        assert_eq!(names.of("a").map(|site| &**site), Some("mx.test"));
        names.learn("e", "mx.test");
        assert_eq!(names.of("a"), None);
        assert!(names.of("c").is_some() && names.of("e").is_some());
        assert!(!names.learn("e", "mx.test") && names.learn("e", "mx2.test"));
        names.learn("f", "");
        names.learn("f", &"x".repeat(LONGEST + 1));
        assert_eq!(names.of("f"), None);
    }
}
