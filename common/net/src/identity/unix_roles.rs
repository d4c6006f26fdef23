use serde::{Deserialize, Serialize};
use tokio::net::unix::UCred;

use super::{OnlyAccounts, PeerIdentity, PeerRole, Roles, Transport};
use crate::users::{group_id, user_id};

/// Which roles the users of this host have on a Unix socket. Without a rule of their own, root and the user we
/// run as (who owns the socket) have every role, and others none.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(transparent)]
pub struct UnixRoles(pub Vec<UnixRole>);

/// One rule: `{ user = "postroad-msa", roles = ["msa"] }`, or with numbers, `{ uid = 1001, gid = 1001, roles = ["msa"] }`. A
/// rule with both user and group needs both; one with neither fits nobody. `{ user = "www-data", roles = ["msa"], accounts =
/// ["www@example.org"] }` is a program that may submit mail of these accounts, and do nothing else.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(try_from = "WrittenUnixRole")]
pub struct UnixRole {
    /// The user it fits.
    pub uid: Option<u32>,
    /// The (primary) group it fits.
    pub gid: Option<u32>,
    /// What the peer may do.
    pub roles: Roles,
    /// Whose mail it may submit, if it is no agent; with the role msa alone.
    #[serde(skip_serializing_if = "is_no_limit")]
    pub accounts: OnlyAccounts,
}

fn is_no_limit(accounts: &OnlyAccounts) -> bool {
    !accounts.is_limit()
}

/// As configurations have it: names of this host in place of numbers.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenUnixRole {
    uid: Option<u32>,
    user: Option<String>,
    gid: Option<u32>,
    group: Option<String>,
    roles: Roles,
    accounts: Option<OnlyAccounts>,
}

impl TryFrom<WrittenUnixRole> for UnixRole {
    type Error = String;

    fn try_from(written: WrittenUnixRole) -> Result<Self, String> {
        let uid = match (written.uid, written.user) {
            (Some(_), Some(_)) => return Err("write either uid or user".to_owned()),
            (uid, None) => uid,
            (None, Some(name)) => Some(user_id(&name)?),
        };
        let gid = match (written.gid, written.group) {
            (Some(_), Some(_)) => return Err("write either gid or group".to_owned()),
            (gid, None) => gid,
            (None, Some(name)) => Some(group_id(&name)?),
        };
        let accounts = match written.accounts {
            Some(accounts) if !accounts.is_limit() => {
                return Err(
                    "`accounts` names nobody; leave it out, or name whose mail it may submit"
                        .to_owned(),
                );
            }
            Some(_) if written.roles != Roles::from_iter([PeerRole::Msa]) => {
                return Err("with `accounts`, roles is [\"msa\"] and nothing else".to_owned());
            }
            accounts => accounts.unwrap_or_default(),
        };
        Ok(Self {
            uid,
            gid,
            roles: written.roles,
            accounts,
        })
    }
}

impl UnixRoles {
    /// The identity of the process at the other end.
    pub fn identify(&self, peer: &UCred) -> PeerIdentity {
        let owner = rustix::process::geteuid().as_raw();
        let (roles, only) = self.allowed(peer.uid(), peer.gid(), owner);
        PeerIdentity {
            roles,
            name: format!("uid={}", peer.uid()),
            transport: Transport::Unix,
            serial: None,
            only,
        }
    }

    /// Rules add up: who has a role without a limit by one of them has none by another.
    pub(super) fn allowed(&self, uid: u32, gid: u32, owner: u32) -> (Roles, OnlyAccounts) {
        let fits = |rule: &&UnixRole| {
            (rule.uid.is_some() || rule.gid.is_some())
                && rule.uid.is_none_or(|wanted| wanted == uid)
                && rule.gid.is_none_or(|wanted| wanted == gid)
        };
        let granted: Vec<_> = self.0.iter().filter(fits).collect();
        if granted.is_empty() && (uid == owner || uid == 0) {
            return (Roles::all(), OnlyAccounts::default());
        }
        let roles = granted.iter().flat_map(|rule| rule.roles.iter()).collect();
        let is_limited = granted.iter().all(|rule| rule.accounts.is_limit());
        let accounts = granted.iter().filter(|_| is_limited);
        let accounts = accounts.flat_map(|rule| Vec::from(rule.accounts.clone()));
        (roles, accounts.collect())
    }
}
