//! What is decided of a job before a connection is made. The worker acts by it, `postroad explain` tells it; both ask here.

use postroad_dns::Resolver;
use postroad_envelope::{Route, RouteClass, StatusReport};
use postroad_reply::{LOOP_5_4_6, MISCONFIGURED_4_3_5};

use super::next_hop::{NextHop, Surroundings, Target, Verdict};
use super::resolve;
use super::sources::Source;
use super::sts::{Asking, Policies};
use super::ways::Ways;
use crate::config::OutboundConfig;

/// All that decisions lean on.
#[derive(Clone, Copy)]
pub struct Deciding<'a> {
    /// `[mta.outbound]`.
    pub config: &'a OutboundConfig,
    /// How hosts are spoken to.
    pub ways: &'a Ways,
    /// What we are, and where we may send.
    pub around: &'a Surroundings,
    /// Names.
    pub resolver: &'a dyn Resolver,
    /// MTA-STS policies.
    pub policies: &'a Policies,
    /// Whether a policy that is not known here is fetched.
    pub fetch: bool,
}

impl<'a> Deciding<'a> {
    /// Why a mail with so many Received fields is sent nowhere (RFC 5321 §6.3).
    pub fn looping(&self, hops: u32) -> Option<StatusReport> {
        let text = || format!("the mail loops: it has {hops} Received fields");
        (hops > self.config.max_hops).then(|| StatusReport::local(LOOP_5_4_6, text()))
    }

    /// The hosts behind one place of a route that are reached from this source, or why none of them is tried.
    pub async fn reach(
        &self,
        route: &Route,
        source: &Source,
        seed: u64,
    ) -> Result<NextHop, StatusReport> {
        let hop = self.hop(route, seed).await;
        let mut hop = hop.map_err(Verdict::into_report)?;
        hop.candidates.retain(|candidate| source.reaches(candidate));
        if hop.candidates.is_empty() {
            return Err(source.out_of_reach());
        }
        Ok(hop)
    }

    async fn hop(&self, route: &Route, seed: u64) -> Result<NextHop, Verdict> {
        if route.class == RouteClass::Lmtp && route.next_hop.is_none() {
            return Err(Verdict {
                status: MISCONFIGURED_4_3_5,
                text: format!("{} is for LMTP but names no host", route.rule),
            });
        }
        let target = Target::of(route)?;
        resolve::next_hop(self.resolver, &target, self.around, seed).await
    }

    /// What is needed to ask for policies.
    pub fn asking(&self) -> Asking<'a> {
        Asking {
            config: &self.config.mta_sts,
            resolver: self.resolver,
            around: self.around,
            tls: self.ways.https.as_ref(),
            fetch: self.fetch,
        }
    }
}
