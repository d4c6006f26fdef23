//! VRFY and EXPN of clients that logged in, where an operator wants them answered (RFC 5321 §3.5).

use postroad_accounts::Accounts;
use postroad_address::ForwardPath;
use postroad_directory::{Resolution, Resolved};
use postroad_reply::{
    BAD_MAILBOX_5_1_1, LOCAL_ERROR_451, MAILBOX_UNAVAILABLE_550, OK_250, RECIPIENT_OK_2_1_5, Reply,
    SYSTEM_4_3_0,
};

/// Lines of a reply; RFC 5321 has no bound, and clients have.
const MOST: usize = 100;

/// Whether an address is ours. None: it is not, or no address, and nothing can be told of it (252).
pub async fn verify(accounts: &Accounts, name: &str) -> Option<Reply> {
    match resolve(accounts, name).await {
        Ok(resolved) => match resolved?.resolution {
            Resolution::Local(_) => Some(told(format!("<{}>", bare(name)))),
            Resolution::UnknownRecipient => Some(unknown()),
            _ => None,
        },
        Err(reply) => Some(reply),
    }
}

/// Where an alias leads. None: it is none of ours.
pub async fn expand(accounts: &Accounts, name: &str) -> Option<Reply> {
    match resolve(accounts, name).await {
        Ok(resolved) => match resolved?.resolution {
            Resolution::Local(targets) => {
                let lines = targets.iter().take(MOST);
                let lines: Vec<_> = lines.map(|one| format!("<{}>", one.address)).collect();
                Some(told(lines.join("\n")))
            }
            Resolution::UnknownRecipient => Some(unknown()),
            _ => None,
        },
        Err(reply) => Some(reply),
    }
}

async fn resolve(accounts: &Accounts, name: &str) -> Result<Option<Resolved>, Reply> {
    let Ok(path) = ForwardPath::parse(bare(name)) else {
        return Ok(None);
    };
    let resolved = accounts.resolve(&path).await;
    resolved.map(Some).map_err(|_| {
        let text = "accounts cannot be looked up now, please try again later";
        Reply::new(LOCAL_ERROR_451, SYSTEM_4_3_0, text)
    })
}

fn bare(name: &str) -> &str {
    let name = name.trim();
    let inner = name
        .strip_prefix('<')
        .and_then(|name| name.strip_suffix('>'));
    inner.unwrap_or(name)
}

fn told(text: String) -> Reply {
    Reply::new(OK_250, RECIPIENT_OK_2_1_5, text)
}

fn unknown() -> Reply {
    let text = "there is no such address here";
    Reply::new(MAILBOX_UNAVAILABLE_550, BAD_MAILBOX_5_1_1, text)
}
