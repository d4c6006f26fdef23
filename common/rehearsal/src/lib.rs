//! A mail host that follows a script, faults included, to rehearse sending with.
//!
//! **Purpose.** What a sender does when the other end is slow, full, broken or lying shows only against one that is. This one
//! speaks SMTP or LMTP on loopback, is a good host as long as its script says nothing else, and tells what happened as
//! events. It is `postroad rehearse peer SCRIPT` for operators, and [`Watched`] for tests.
//!
//! **The script** is a text: settings, then rules. The first rule that fits says what is done; without one, a good host answers.
//!
//! ```text
//! name: mx.peer.test
//! offers: PIPELINING, 8BITMIME, SIZE 10485760
//! connections: 5 else 421 4.7.0 too many connections
//! mails per 1m: 100 else 451 4.7.1 slow down
//!
//! on RCPT to full@*: 452 4.2.2 mailbox full
//! on end mail 1:
//!     keep
//!     wait 2s
//!     reset
//! ```
//!
//! | setting | meaning, and what holds without it |
//! |---|---|
//! | `name: HOST` | what it calls itself: `mx.peer.test` |
//! | `names: HOST, HOST` | what its certificate is for, beside its name, `localhost` and its address |
//! | `speaks: smtp` | or `lmtp` |
//! | `tls: starttls` | or `at once`, or `none` |
//! | `certificate: good` | or `expired`, `for another name`, `of an unknown authority`, `files CERT KEY` |
//! | `offers: WORD, WORD` | lines of the reply to EHLO, or `none`; STARTTLS is added: `PIPELINING, 8BITMIME, ENHANCEDSTATUSCODES, SIZE n` |
//! | `offers under tls: …` | the same under TLS; as before |
//! | `login: NAME SECRET` | a password, or a token, that AUTH takes; may be repeated. None: AUTH takes any |
//! | `size: 64MiB` | octets of content it takes |
//! | `door: open` | or `shut` (connections are refused), `deaf` (nobody answers them) |
//! | `connections: N else REPLY` | so many at once; further ones read the reply and are closed |
//! | `connections per TIME: N else REPLY`, `mails per TIME: N else REPLY` | so many in any such time |
//! | `mails per connection: N else REPLY`, `recipients per mail: N else REPLY` | the same for one connection, one mail |
//! | `greylist: TIME else REPLY` | a sender and recipient are taken so long after they were heard of first |
//! | `seed: N` | of what is left to chance: 1 |
//!
//! A rule is `on STAGE WHEN…: ACTION`, or without an action on its line those in the indented lines that follow. Stages, in their
//! order: `connect`, `handshake` (of TLS), `greeting`, `EHLO` (also HELO, LHLO), `STARTTLS`, `AUTH`, `MAIL`, `RCPT`, `DATA`,
//! `content` (while it comes), `BDAT` (a chunk that is not the last), `end` (of the content), `RSET`, `NOOP`, `QUIT`,
//! `other` commands.
//!
//! | when | meaning |
//! |---|---|
//! | `to ADDRESS`, `from ADDRESS` | the recipient, one of them at `end`; the sender. `*` stands for any text |
//! | `connection 2`, `mail 1..3` | the second connection; the first to third MAIL of all connections; `4..` from the fourth |
//! | `time 1..2` | the first two times that all else of this rule fits |
//! | `after 64KiB` | once so much content has come (`content` alone) |
//! | `with tls`, `without tls`, `with login`, `without login` | how the connection is |
//! | `chance 10%` | by the seed |
//!
//! | action | meaning |
//! |---|---|
//! | `451 4.7.1 text` | says this line; `250-text` is followed by more. 421 closes, 2xx and 354 have their effect |
//! | `ok` | does what a good host does here |
//! | `wait 2s` | does nothing for so long |
//! | `silence` | says nothing any more, reads on, and waits for the client to go |
//! | `deaf` | says nothing and reads nothing any more |
//! | `drip 100ms 250 text` | says this line an octet at a time |
//! | `half 250 text` | says half of this line, and nothing any more if nothing follows |
//! | `garbage 64` | so many octets of no meaning, and a line end |
//! | `octets 250 a\x00\r\n` | exactly these octets |
//! | `keep` | takes the mail, whatever is said of it (`end` alone) |
//! | `close`, `reset` | ends the connection, by FIN or by RST |
//! | `plain` | goes on without TLS (`handshake` alone) |
//! | `certificate expired` | shows this one (`handshake` alone), in the words of the setting |
//!
//! **Flow.** [`Script`] is parsed from text. A `Session` is a conversation without socket and clock: octets in, deeds out, with
//! a `Tally` of what all conversations of the host count. [`Peer`] is the sockets; [`Watched`] collects its events.
//!
//! **What can fail.** [`BadScript`] names each line, what is wrong and what to write; [`Error`] is of the surroundings.
#![forbid(unsafe_code)]

mod certificates;
mod event;
mod parse;
mod peer;
mod script;
mod session;
mod tally;
mod watched;

pub use event::{Ended, Event, EventKind, Taken};
pub use parse::{BadScript, ScriptFault};
pub use peer::{Error, Keep, Options, Peer, Place, Totals};
pub use script::{
    Action, CertificateKind, Door, Limit, Limits, Login, Pattern, Protocol, Range, Rule, Script,
    Stage, Tls, When,
};
pub use watched::Watched;
