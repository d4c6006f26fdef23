//! The content of a mail as it would leave: what agents add and remove is applied to its header.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use futures::StreamExt as _;
use postroad_envelope::{HeaderEdit, QueueId};
use postroad_message::{DEFAULT_HEADER_LIMIT, HeaderSplitter, Split, apply_edits};
use postroad_queue_client::{ContentStream, QueueAdmin as _, QueueService, RemoteQueue};
use serde_json::json;

use super::Admin;
use crate::fault::Fault;
use crate::home::Home;
use crate::terminal::{Terminal, harmless};

/// `postroad queue show ID --content [FILE]`.
pub async fn content(
    admin: &Admin,
    home: &Home,
    id: QueueId,
    file: &Path,
    terminal: &mut Terminal<'_>,
) -> Result<(), Fault> {
    let edits = admin.show(id).await?.envelope.header_edits;
    let endpoint = admin.agents_of(id).await?;
    let queue = RemoteQueue::connect(&endpoint, home.common.tls.as_ref());
    let queue = queue.map_err(Fault::not_done)?;
    let stream = queue.read_any(id, 0).await?;
    if file.as_os_str() != "-" {
        return keep(stream, &edits, id, file, terminal).await;
    }
    let mut octets = Vec::new();
    copy(stream, &edits, &mut octets).await?;
    let text = String::from_utf8_lossy(&octets).replace("\r\n", "\n");
    if terminal.wants_json() {
        terminal.object(json!({ "queue_id": id.to_string(), "content": text }));
    } else {
        terminal.line(harmless(text.trim_end_matches('\n')));
    }
    Ok(())
}

/// To a new file that only its owner reads; nothing stays of one that is not whole.
async fn keep(
    stream: ContentStream,
    edits: &[HeaderEdit],
    id: QueueId,
    file: &Path,
    terminal: &mut Terminal<'_>,
) -> Result<(), Fault> {
    let failed = |cause: String| Fault::NotDone(format!("{}: {cause}", file.display()));
    let mut options = OpenOptions::new();
    options.write(true).create_new(true).mode(0o600);
    let mut out = options
        .open(file)
        .map_err(|error| failed(error.to_string()))?;
    let size = match copy(stream, edits, &mut out).await {
        Ok(size) => size,
        Err(fault) => {
            let _ = fs::remove_file(file);
            return Err(failed(fault.to_string()));
        }
    };
    if terminal.wants_json() {
        let path = file.display().to_string();
        terminal.object(json!({ "queue_id": id.to_string(), "file": path, "size": size }));
    } else {
        terminal.say(format_args!("{size} octets are in {}", file.display()));
    }
    Ok(())
}

/// Tells how many octets it wrote.
async fn copy(
    mut stream: ContentStream,
    edits: &[HeaderEdit],
    out: &mut (dyn Write + Send),
) -> Result<usize, Fault> {
    let mut splitter = Some(HeaderSplitter::new(DEFAULT_HEADER_LIMIT));
    let mut size = 0;
    let mut write = |octets: &[u8]| {
        size += octets.len();
        out.write_all(octets).map_err(Fault::not_done)
    };
    while let Some(chunk) = stream.next().await {
        let chunk = chunk?;
        let Some(header) = &mut splitter else {
            write(&chunk)?;
            continue;
        };
        if let Split::Complete { header, rest } = header.push(&chunk).map_err(Fault::not_done)? {
            splitter = None;
            write(&apply_edits(&header, edits))?;
            write(&rest)?;
        }
    }
    if let Some(mut header) = splitter {
        let (header, rest) = header.finish();
        write(&apply_edits(&header, edits))?;
        write(&rest)?;
    }
    Ok(size)
}
