//! One mail through a conversation in this process, and what its replies mean to the program that waits.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};

use bytes::BytesMut;
use postroad_reply::{EnhancedStatusCode, Reply, Severity};
use postroad_smtp::{ContentFault, HeloName};
use postroad_smtp_session::{
    ClientConfig, ClientSession, OutgoingMail, Progress, RecipientResult, Stage, TlsUse,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;

use super::status::{self, NotSent};

/// Octets of content at a time.
const PIECE: usize = 64 << 10;

/// Sends the mail whose content is in `file`, from its beginning; what was said as it was taken.
pub async fn send(
    mut socket: UnixStream,
    helo: HeloName,
    mail: OutgoingMail,
    mut file: File,
) -> Result<String, NotSent> {
    let mut config = ClientConfig::new(helo);
    config.tls = TlsUse::Never;
    let mut session = ClientSession::new(config, false);
    let mut input = BytesMut::new();
    let mut waiting = Some(mail);
    loop {
        let news = session.receive(&mut input);
        let mut news = news.map_err(|error| NotSent::new(status::SOFTWARE, error))?;
        if news == Some(Progress::Ready)
            && let Some(mail) = waiting.take()
        {
            news = session.send(mail);
        }
        match news {
            Some(Progress::SendContent) => content(&mut session, &mut socket, &mut file).await?,
            Some(Progress::Done(results)) => return told(&results),
            Some(_) => {
                return Err(NotSent::new(
                    status::SOFTWARE,
                    "the conversation ended early",
                ));
            }
            None => {
                write(&mut session, &mut socket).await?;
                if socket.read_buf(&mut input).await.map_err(broken)? == 0 {
                    return Err(NotSent::new(
                        status::TRY_AGAIN,
                        "the conversation broke off",
                    ));
                }
            }
        }
    }
}

async fn content(
    session: &mut ClientSession,
    socket: &mut UnixStream,
    file: &mut File,
) -> Result<(), NotSent> {
    let unread = |error| {
        NotSent::new(
            status::IO,
            format!("the mail cannot be read again: {error}"),
        )
    };
    file.seek(SeekFrom::Start(0)).map_err(unread)?;
    let mut piece = vec![0; PIECE];
    loop {
        // A file that was written a moment ago is in memory.
        match file.read(&mut piece).map_err(unread)? {
            0 => break,
            count => {
                let piece = piece.get(..count).unwrap_or_default();
                session.content(piece).map_err(unfit)?;
            }
        }
        write(session, socket).await?;
    }
    session.content_end().map_err(unfit)
}

fn unfit(fault: ContentFault) -> NotSent {
    NotSent::new(status::DATA, fault)
}

async fn write(session: &mut ClientSession, socket: &mut UnixStream) -> Result<(), NotSent> {
    socket
        .write_all(&session.take_output())
        .await
        .map_err(broken)
}

fn broken(error: std::io::Error) -> NotSent {
    NotSent::new(status::SOFTWARE, error)
}

/// All recipients were taken, or why not. Recipients are looked up before, so the replies are mostly alike.
fn told(results: &[RecipientResult]) -> Result<String, NotSent> {
    let refusals: Vec<NotSent> = results.iter().filter_map(refusal).collect();
    let Some(first) = refusals.first() else {
        let said = results.iter().find_map(|result| match result {
            RecipientResult::Accepted(reply) => Some(reply.text().to_owned()),
            _ => None,
        });
        return Ok(said.unwrap_or_default());
    };
    let mut why: Vec<&str> = refusals
        .iter()
        .map(|refusal| refusal.why.as_str())
        .collect();
    why.dedup();
    Err(NotSent::new(first.status, why.join("\n")))
}

fn refusal(result: &RecipientResult) -> Option<NotSent> {
    match result {
        RecipientResult::Accepted(_) => None,
        RecipientResult::Unfit { text, .. } => Some(NotSent::new(status::UNAVAILABLE, text)),
        RecipientResult::Refused { stage, reply } => {
            Some(NotSent::new(status_of(*stage, reply), reply))
        }
    }
}

/// The exit status for a reply.
pub fn status_of(stage: Stage, reply: &Reply) -> u8 {
    if reply.severity() != Severity::Permanent {
        return status::TRY_AGAIN;
    }
    match (stage, reply.enhanced().map(EnhancedStatusCode::subject)) {
        // RFC 3463: X.1 is about addresses, X.7 about what is allowed, X.6 about the content.
        (Stage::Rcpt, Some(1 | 2)) => status::NO_USER,
        (_, Some(7)) => status::NOT_ALLOWED,
        (_, Some(6)) => status::DATA,
        _ => status::UNAVAILABLE,
    }
}
