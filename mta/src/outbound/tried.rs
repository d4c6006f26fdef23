//! What became of the addresses of one host that were tried together: of one, or of two that raced.

use postroad_net::Error as NetError;

use super::next_hop::Candidate;
use super::race::{Lost, Raced};
use super::trouble::{Disposition, Trouble};

/// Which address is spoken to, and what became of the other.
pub struct Course<'a> {
    /// The one that is spoken to, or that failed last.
    pub at: &'a Candidate,
    /// Could not be connected to, before that.
    failed: Vec<(&'a Candidate, Trouble)>,
    /// Whether another one was given up for it.
    overtook: bool,
}

impl<'a> Course<'a> {
    /// Begins with this address.
    pub fn at(first: &'a Candidate) -> Self {
        Self {
            at: first,
            failed: Vec::new(),
            overtook: false,
        }
    }

    /// The connection that a race brought, or what was in the way last.
    pub fn run<S>(&mut self, raced: Raced<'a, S, NetError>) -> Result<S, Trouble> {
        self.at = raced.at;
        match raced.other {
            Some((_, Lost::Overtaken | Lost::Superfluous)) => self.overtook = true,
            Some((other, Lost::Failed(error))) => {
                self.failed.push((other, Trouble::Connect(error)));
            }
            None => {}
        }
        raced.result.map_err(Trouble::Connect)
    }

    /// How it ended for each of them, the one that was spoken to last.
    pub fn end(self, disposition: Disposition) -> Vec<(&'a Candidate, Disposition)> {
        let mut all = Vec::with_capacity(self.failed.len() + 1);
        for (candidate, trouble) in self.failed {
            let never = Disposition {
                security: disposition.security.clone(),
                ..Disposition::never(trouble)
            };
            all.push((candidate, never));
        }
        let spoken = Disposition {
            overtook: self.overtook,
            ..disposition
        };
        all.push((self.at, spoken));
        all
    }
}
