//! Debian's Dovecot with a configuration of its own: IMAP for mail that others filed, and LMTP.

use std::{fs, net::SocketAddr, path::Path};

use anyhow::{Context as _, Result};
use postroad_tests::free_port;

use super::{Kept, folder, hand_over, user};

/// What everybody logs in with.
pub const PASSWORD: &str = "imap secret";
/// Whose the mail is. Dovecot serves no mail of root.
pub const OWNER: &str = "nobody";

pub struct Dovecot {
    pub imap: SocketAddr,
    _kept: Kept,
}

impl Dovecot {
    /// Serves the Maildirs `<mail_root>/<domain>/<local part>/Maildir` of these accounts, and takes mail for them.
    pub async fn start(
        place: &Path,
        mail_root: &Path,
        accounts: &[&str],
        lmtp: SocketAddr,
    ) -> Result<Self> {
        for leaf in ["", "run", "state", "home"] {
            folder(&place.join(leaf))?;
        }
        let owner = user(OWNER)?;
        hand_over(&place.join("home"), owner)?;
        let users = accounts
            .iter()
            .map(|account| format!("{account}:{{PLAIN}}{PASSWORD}\n"));
        fs::write(place.join("users"), users.collect::<String>())?;
        let imap = SocketAddr::from(([127, 0, 0, 1], free_port()?));
        let config = place.join("dovecot.conf");
        fs::write(&config, dovecot_conf(place, mail_root, [imap, lmtp], owner))?;
        let config = config.to_str().context("a folder with a plain name")?;
        let kept = Kept::start(
            "Dovecot",
            &["dovecot", "-F", "-c", config],
            place.join("output"),
        )?;
        for address in [imap, lmtp] {
            kept.listens(address).await?;
        }
        Ok(Self { imap, _kept: kept })
    }
}

fn dovecot_conf(
    place: &Path,
    mail_root: &Path,
    [imap, lmtp]: [SocketAddr; 2],
    owner: (u32, u32),
) -> String {
    let (place, mail_root, (uid, gid)) = (place.display(), mail_root.display(), owner);
    let (ip, imap, lmtp) = (imap.ip(), imap.port(), lmtp.port());
    format!(
        "base_dir = {place}/run
state_dir = {place}/state
instance_name = postroad-interop
log_path = {place}/log
protocols = imap lmtp
listen = {ip}
ssl = no
disable_plaintext_auth = no
first_valid_uid = 1
mail_location = maildir:{mail_root}/%d/%n/Maildir
service imap-login {{
  inet_listener imap {{
    port = {imap}
  }}
  inet_listener imaps {{
    port = 0
  }}
}}
service lmtp {{
  inet_listener lmtp {{
    address = {ip}
    port = {lmtp}
  }}
}}
postmaster_address = postmaster@lmtp.test
hostname = mx.lmtp.test
passdb {{
  driver = passwd-file
  args = username_format=%u {place}/users
}}
userdb {{
  driver = static
  args = uid={uid} gid={gid} home={place}/home/%u
}}
"
    )
}
