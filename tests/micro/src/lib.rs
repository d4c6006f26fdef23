//! Steps of which a mail is made, each to be repeated at will: timed by `cargo bench -p postroad-micro`, counted in
//! instructions by `micro count`. How to use it: `tests/micro/README.md`.
#![forbid(unsafe_code)]

mod directory;
mod mail;
mod queue;
mod smtp;

use anyhow::{Context as _, Result};

/// Does the step once.
pub type Step = Box<dyn FnMut() -> Result<()>>;

/// Percent by which a step may cost more than it did: libraries choose their ways by the processor, and tables are hashed by chance.
pub const MARGIN: f64 = 10.0;

/// A step under its name.
pub struct Case {
    /// As it is typed.
    pub name: &'static str,
    /// What one repetition does.
    pub about: &'static str,
    /// How often it is repeated to be counted: enough for what happens once in a while to weigh little.
    pub repeat: u64,
    prepare: fn() -> Result<Step>,
}

impl Case {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self {
            name: "server",
            about: "a conversation with a client: EHLO, a mail of 5 KiB by DATA, QUIT",
            repeat: 200,
            prepare: smtp::server,
        },
        Self {
            name: "client",
            about: "a conversation with a host: EHLO, a mail of 5 KiB by DATA, QUIT",
            repeat: 200,
            prepare: smtp::client,
        },
        Self {
            name: "header",
            about: "finding the end of a header, reading it and adding three fields",
            repeat: 500,
            prepare: mail::header,
        },
        Self {
            name: "append",
            about: "16 records of 5 KiB appended to the journal as one group, and synced",
            repeat: 100,
            prepare: queue::append,
        },
        Self {
            name: "record",
            about: "a mail written as a record of the journal, and read again",
            repeat: 500,
            prepare: queue::record,
        },
        Self {
            name: "schedule",
            about: "a job placed among 10,000 of other destinations, leased and removed",
            repeat: 2000,
            prepare: queue::schedule,
        },
        Self {
            name: "queue",
            about: "a mail through queue and index, without the journal: inserted, leased, settled",
            repeat: 1000,
            prepare: queue::through,
        },
        Self {
            name: "directory",
            about: "a directory of 1,000 accounts read from the text of its file",
            repeat: 2,
            prepare: directory::read,
        },
    ];

    /// The one of that name.
    pub fn named(name: &str) -> Result<&'static Self> {
        const { &Self::ALL }
            .iter()
            .find(|case| case.name == name)
            .with_context(|| format!("there is no case {name:?}"))
    }

    /// Everything that is needed once.
    pub fn prepare(&self) -> Result<Step> {
        (self.prepare)()
    }
}

/// A mail of so many octets, with a header as people's programs write it.
fn mail(size: usize) -> Vec<u8> {
    let mut mail = b"Message-ID: <20261128.1@client.example>\r\nDate: Sat, 28 Nov 2026 10:00:00 +0100\r\n\
        From: Alice Example <alice@client.example>\r\nTo: Bob Example <bob@example.net>,\r\n\tCarol <carol@example.net>\r\n\
        Subject: What was said about the meeting, and what was not\r\nMIME-Version: 1.0\r\n\
        Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\n"
        .to_vec();
    while mail.len() < size {
        mail.extend_from_slice(
            b"Of the seventy-two letters of a line nobody ever reads more than a few.\r\n",
        );
    }
    mail
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_step_can_be_done_again_and_again() {
        for case in &Case::ALL {
            let mut step = case.prepare().unwrap();
            for _ in 0..3 {
                step().unwrap_or_else(|error| panic!("{}: {error:#}", case.name));
            }
        }
        assert!(Case::named("nothing").is_err());
    }
}
