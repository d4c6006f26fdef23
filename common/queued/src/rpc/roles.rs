//! Who may submit and lease what (ARCHITECTURE "who may call it"). The reason goes to the log, not to the caller.

use std::sync::Arc;

use postroad_address::{Domain, ForwardPath, Mailbox};
use postroad_counters::{Key, Kind};
use postroad_directory::{Directory, Resolution, SenderVerdict};
use postroad_envelope::{Envelope, NextHop, Recipient, RouteClass};
use postroad_net::{OnlyAccounts, PeerIdentity, PeerRole};
use tonic::Status;
use tracing::warn;

use crate::{Config, core::Front};

/// What roles allow, given what the directory says now.
#[derive(Clone)]
pub(crate) struct Gate(Arc<Front>);

impl Gate {
    pub fn new(front: Arc<Front>) -> Self {
        Self(front)
    }

    /// A caller with several roles may do what any of them allows.
    pub fn submit(&self, peer: &PeerIdentity, envelope: &Envelope) -> Result<(), Status> {
        let directory = self.0.directory.current();
        let mut reason = "no role that submits";
        let config = self.0.config();
        for role in peer.roles.iter() {
            let allowed =
                may_submit(&config, role, envelope, &directory).and_then(|()| match role {
                    PeerRole::Msa => may_write(&peer.only, envelope, &directory),
                    _ => Ok(()),
                });
            match allowed {
                Ok(()) => return Ok(()),
                Err(why) => reason = why,
            }
        }
        self.0.counts.not_allowed().count();
        warn!(
            event = "rejected", queue_id = %envelope.queue_id, peer = peer.name,
            role = %peer.roles, mail_from = %envelope.reverse_path, reason
        );
        Err(Status::permission_denied("not allowed for this caller"))
    }

    /// MTAs lease mail that leaves, MDAs mail that stays.
    pub fn work(peer: &PeerIdentity, classes: &[RouteClass]) -> Result<(), Status> {
        let allowed = |class: &RouteClass| match class {
            RouteClass::Relay | RouteClass::Lmtp => peer.roles.contains(PeerRole::Mta),
            RouteClass::Local => peer.roles.contains(PeerRole::Mda),
            RouteClass::Hold | RouteClass::Discard => false,
        };
        let Some(class) = classes.iter().find(|class| !allowed(class)) else {
            return Ok(());
        };
        warn!(event = "rejected", peer = peer.name, role = %peer.roles, route = %class, reason = "no role that leases it");
        Err(Status::permission_denied("not allowed for this caller"))
    }

    /// A program takes back what is of its accounts alone.
    pub fn withdraw(peer: &PeerIdentity, account: &str) -> Result<(), Status> {
        if !peer.only.is_limit() || peer.only.allow(account) {
            return Ok(());
        }
        warn!(event = "rejected", peer = peer.name, role = %peer.roles, account, reason = "this caller takes back mail of some accounts, and not of this one");
        Err(Status::permission_denied("not allowed for this caller"))
    }

    /// Nobody makes or lifts a ban that another agent goes by.
    pub fn count(peer: &PeerIdentity, key: &Key) -> Result<(), Status> {
        let role = match key.kind() {
            Kind::AuthFailed
            | Kind::Guessed
            | Kind::Home
            | Kind::Sent
            | Kind::SentMails
            | Kind::SentBytes => PeerRole::Msa,
            Kind::Client => PeerRole::Mta,
        };
        if peer.roles.contains(role) {
            return Ok(());
        }
        warn!(event = "rejected", peer = peer.name, role = %peer.roles, %key, reason = "no role that counts it");
        Err(Status::permission_denied("not allowed for this caller"))
    }
}

/// Whether an agent of this role may submit the mail. `postroad explain` asks the same.
pub(crate) fn may_submit(
    config: &Config,
    role: PeerRole,
    envelope: &Envelope,
    directory: &Directory,
) -> Result<(), &'static str> {
    let (account, origin) = (&envelope.account, &envelope.origin);
    let identity = account.is_some() || origin.account.is_some();
    let ours = |recipient: &Recipient| is_ours(recipient, directory);
    if envelope.recipients.iter().any(names_a_socket) {
        return Err("sockets of the MTA's host are for routes and operators to name");
    }
    match role {
        PeerRole::Msa if account.is_none() => Err("an MSA names the account that submits"),
        PeerRole::Msa if origin.account.is_some() && origin.account != *account => {
            Err("an MSA names one account, for the mail and for its origin")
        }
        PeerRole::Msa => Ok(()),
        // Nobody can log in at port 25, so no mail from there came by a log-in either.
        PeerRole::Mta if identity || origin.protocol.is_authenticated() => {
            Err("an MTA never claims an account")
        }
        PeerRole::Mta if is_own_report(envelope) => Ok(()),
        PeerRole::Mta if !is_relayed(config, envelope) && !envelope.recipients.iter().all(ours) => {
            Err("an MTA submits for local recipients and what their aliases stand for")
        }
        PeerRole::Mta => Ok(()),
        // What it hands on came to us as its origin tells, perhaps by a log-in; only the account is not its to name.
        PeerRole::Mda if identity => Err("an MDA never claims an account"),
        // A report, a redirected mail, or mail that came in by LMTP.
        PeerRole::Mda
            if envelope.reverse_path.is_null()
                || envelope
                    .recipients
                    .iter()
                    .all(|r| r.original.is_some() || ours(r)) =>
        {
            Ok(())
        }
        PeerRole::Mda => Err("an MDA submits reports and redirected mail"),
        PeerRole::Queued | PeerRole::Admin => Err("no role that submits"),
    }
}

/// Whether the mail came from one of our relay networks, or from a client known by its certificate: the MTA says so, and
/// whoever is an MTA is believed. A client that a neighbour only told of counts for nothing here, else any of them could be
/// anybody; the certificate is always that of who is connected to us.
fn is_relayed(config: &Config, envelope: &Envelope) -> bool {
    let origin = &envelope.origin;
    let client = origin.peer.or(origin.client);
    let verified = envelope.origin.tls.as_ref();
    let verified = verified.and_then(|tls| tls.verified.as_deref());
    let mut known = config.relay_certificates.iter();
    client.is_some_and(|client| config.relay_networks.contains(client.ip()))
        || verified.is_some_and(|name| known.any(|client| client.is(name)))
}

/// Whether the mail is a report of the agent's own (RFC 8460): made here, so it came from no client; to one recipient, and
/// nobody is to hear of its failure.
fn is_own_report(envelope: &Envelope) -> bool {
    let origin = &envelope.origin;
    envelope.reverse_path.is_null()
        && envelope.recipients.len() == 1
        && origin.client.is_none()
        && origin.peer.is_none()
}

/// An agent has seen to it that an account uses its own senders. Of a program the queue sees to it: the limit is there since the
/// program is not trusted with more.
fn may_write(
    only: &OnlyAccounts,
    envelope: &Envelope,
    directory: &Directory,
) -> Result<(), &'static str> {
    let account = envelope.account.as_deref().unwrap_or_default();
    if !only.is_limit() {
        return Ok(());
    }
    if !only.allow(account) {
        return Err("this caller submits for some accounts, and not for this one");
    }
    if envelope
        .recipients
        .iter()
        .any(|r| r.route_override.is_some())
    {
        return Err("a program does not choose routes");
    }
    match directory.check_sender(account, &envelope.reverse_path) {
        SenderVerdict::Allowed { tenant }
            if envelope.tenant != tenant.as_deref().unwrap_or("default") =>
        {
            Err("the account is of another tenant")
        }
        SenderVerdict::Allowed { .. } => Ok(()),
        SenderVerdict::NotAllowed { .. } => Err("the account may not use this sender"),
        SenderVerdict::NoAccount => Err("there is no such account, or it is disabled"),
    }
}

/// Whoever could make the MTA write to any socket of its host would speak as the MTA there.
fn names_a_socket(recipient: &Recipient) -> bool {
    let hop = recipient.route_override.as_ref();
    hop.is_some_and(|(_, hop)| matches!(hop, Some(NextHop::Unix(_))))
}

/// A recipient in a domain of ours, or one that an address of ours stands for.
fn is_ours(recipient: &Recipient, directory: &Directory) -> bool {
    let local = |domain: &Domain| directory.is_local_domain(domain);
    if local(recipient.address.domain()) {
        return true;
    }
    let Some(original) = &recipient.original else {
        return false;
    };
    let stands_for = |address: &Mailbox| address.folded() == recipient.address.folded();
    match directory.resolve(&ForwardPath::Mailbox(original.clone())) {
        Resolution::Local(all) => all.iter().any(|expanded| stands_for(&expanded.address)),
        _ => false,
    }
}
