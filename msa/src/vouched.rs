//! Log-ins by something else than the account's password: a token of an issuer, a certificate of an authority, a password of one program. What comes of it is the
//! name of an account; whether there is such an account is the directory's to say.

use std::time::SystemTime;

use postroad_address::Mailbox;
use postroad_directory::AuthVerdict;
use postroad_net::PeerCertificate;
use postroad_oauth::{Refused, Rejection, Tokens};
use postroad_reply::{AUTH_INVALID_5_7_8, AUTH_INVALID_535, Reply};
use postroad_sasl::Password;
use postroad_smtpd::ClientFacts;
use tracing::info;

use crate::ClientCertificates;
use crate::policy::wrong;

/// What was vouched for.
#[derive(Debug, PartialEq, Eq)]
pub enum Vouched {
    /// This name of an account, as the directory writes names.
    For(String),
    /// Nothing, and the client hears this.
    ForNobody(Reply),
    /// It cannot be told now.
    NotNow,
}

/// By an access token.
pub async fn by_token(tokens: &Tokens, client: &ClientFacts, token: &Password) -> Vouched {
    let checked = tokens.check(token.reveal(), SystemTime::now()).await;
    let (issuer, why) = match checked {
        Err(Refused::Away) => return Vouched::NotNow,
        Err(Refused::Rejected { issuer, why }) => (issuer, why),
        Ok(claims) => match Mailbox::parse(&claims.account) {
            Ok(account) => return Vouched::For(account.folded()),
            Err(_) => (Some(claims.issuer), Rejection::NoAccount),
        },
    };
    info!(
        event = "token_refused",
        session_id = client.session_id,
        listener = client.listener,
        peer = %client.peer,
        issuer,
        reason = %why,
    );
    Vouched::ForNobody(wrong())
}

/// By a password of one program of the account, which is its own where it may be used. Why it may not is told to the operator alone.
pub fn by_app_password(client: &ClientFacts, verdict: AuthVerdict) -> AuthVerdict {
    let AuthVerdict::ByAppPassword {
        account,
        name,
        refused,
    } = verdict
    else {
        return verdict;
    };
    if let Some(reason) = refused {
        info!(
            event = "app_password_refused",
            session_id = client.session_id,
            listener = client.listener,
            peer = %client.peer,
            account,
            app_password = name,
            reason,
        );
        return AuthVerdict::Refused;
    }
    info!(
        event = "app_password_used",
        session_id = client.session_id,
        listener = client.listener,
        peer = %client.peer,
        account,
        app_password = name,
    );
    AuthVerdict::Accepted(account)
}

/// By the certificate of the connection (RFC 4422 appendix A). What is wrong with it only its holder is told, who showed it.
pub fn by_certificate(known: &ClientCertificates, client: &ClientFacts) -> Vouched {
    let text = match (&client.certificate, client.verified()) {
        (PeerCertificate::Verified, Some(name)) => match known.account_of(name) {
            Some(account) => return Vouched::For(account.folded()),
            None => return Vouched::ForNobody(wrong()),
        },
        (PeerCertificate::Unverified(reason), _) => format!("the certificate you showed {reason}"),
        _ => "you showed no certificate".to_owned(),
    };
    Vouched::ForNobody(Reply::new(AUTH_INVALID_535, AUTH_INVALID_5_7_8, text))
}
