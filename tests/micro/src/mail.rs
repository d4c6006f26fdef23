//! The header of a mail.

use anyhow::{Result, ensure};
use postroad_envelope::{EditPlace, HeaderEdit};
use postroad_message::{HeaderBlock, HeaderSplitter, Split, apply_edits};

use crate::{Step, mail};

/// As it comes from a socket, in pieces.
const PIECE: usize = 1400;

pub fn header() -> Result<Step> {
    let content = mail(5 << 10);
    let add = |field: &str| HeaderEdit::Add {
        place: EditPlace::Top,
        field: field.as_bytes().to_vec(),
    };
    let edits = vec![
        add(
            "Received: from client.example ([192.0.2.1]) by mx.example with ESMTPS id 1;\r\n\tSat, 28 Nov 2026 10:00:01 +0100\r\n",
        ),
        add("Authentication-Results: mx.example; spf=pass smtp.mailfrom=client.example\r\n"),
        add("Return-Path: <alice@client.example>\r\n"),
    ];
    Ok(Box::new(move || {
        let mut splitter = HeaderSplitter::new(64 << 10);
        for piece in content.chunks(PIECE) {
            if let Split::Complete { header, .. } = splitter.push(piece)? {
                let block = HeaderBlock::parse(&header);
                ensure!(
                    block.message_id().is_some() && block.date().is_some(),
                    "a whole header"
                );
                ensure!(
                    apply_edits(&header, &edits).len() > header.len(),
                    "three fields more"
                );
                return Ok(());
            }
        }
        anyhow::bail!("the header has no end")
    }))
}
