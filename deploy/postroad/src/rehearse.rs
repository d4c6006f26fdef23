//! `postroad rehearse`: what is hard to try with the real world, tried without it.

mod peer;

use clap::Subcommand;

use crate::fault::Fault;
use crate::terminal::Terminal;

pub use peer::PeerArguments;

/// `postroad rehearse …`.
#[derive(Debug, Subcommand)]
pub enum RehearseVerb {
    /// Be a mail host on this machine that follows a script, faults included, until interrupted
    #[command(after_long_help = peer::LANGUAGE)]
    Peer(PeerArguments),
}

/// Carries out the verb.
pub fn carry_out(verb: &RehearseVerb, terminal: &mut Terminal<'_>) -> Result<(), Fault> {
    match verb {
        RehearseVerb::Peer(arguments) => peer::carry_out(arguments, terminal),
    }
}
