use bytes::{Buf, Bytes, BytesMut};
use memchr::memchr3;

use super::ContentFault;

/// Removes dot-stuffing (RFC 5321 §4.5.2) from a stream without copying it.
///
/// Only CRLF.CRLF ends the content. Faults do not stop the decoding, so that the client can be told at the
/// real end; they are in [`DotDecoder::fault`] as soon as they are seen.
#[derive(Debug)]
pub struct DotDecoder {
    at_line_start: bool,
    checker: ContentChecker,
}

/// What [`DotDecoder::decode`] found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DotPiece {
    /// A piece of content, cut anywhere but inside CRLF.
    Content(Bytes),
    /// The final dot.
    End,
}

impl DotDecoder {
    /// At the start of content; lines longer than `max_line` octets, CRLF apart, are a fault.
    pub fn new(max_line: usize) -> Self {
        Self {
            at_line_start: true,
            checker: ContentChecker::new(max_line),
        }
    }

    /// The first fault seen.
    pub fn fault(&self) -> Option<ContentFault> {
        self.checker.fault
    }

    /// Takes the next piece off `input`. None: more input is needed.
    pub fn decode(&mut self, input: &mut BytesMut) -> Option<DotPiece> {
        loop {
            if self.at_line_start {
                match input.as_ref() {
                    [] | [b'.'] | [b'.', b'\r'] => return None,
                    [b'.', b'\r', b'\n', ..] => {
                        input.advance(3);
                        return Some(DotPiece::End);
                    }
                    [b'.', ..] => input.advance(1),
                    _ => {}
                }
                self.at_line_start = false;
            }
            let length = self.scan(input);
            if length > 0 {
                return Some(DotPiece::Content(input.split_to(length).freeze()));
            }
            if !self.at_line_start {
                return None;
            }
        }
    }

    /// How far content goes: to the end of `input`, a CR that may be half a CRLF, or a line that starts with a dot.
    fn scan(&mut self, input: &[u8]) -> usize {
        let mut at = 0;
        loop {
            let rest = input.get(at..).unwrap_or_default();
            let (length, stop) = self.checker.line(rest);
            at += length;
            match stop {
                Stop::LineEnd if matches!(input.get(at), None | Some(b'.')) => {
                    self.at_line_start = true;
                    return at;
                }
                Stop::LineEnd => {}
                Stop::PendingCr | Stop::InputEnd => return at,
            }
        }
    }
}

/// Looks for [`ContentFault`]s in content that comes in chunks (BDAT).
#[derive(Debug)]
pub struct ContentChecker {
    max_line: usize,
    line_length: usize,
    pending_cr: bool,
    fault: Option<ContentFault>,
}

pub(super) enum Stop {
    /// Behind a CRLF.
    LineEnd,
    /// Before a CR that is the last octet.
    PendingCr,
    InputEnd,
}

impl ContentChecker {
    /// At the start of content.
    pub fn new(max_line: usize) -> Self {
        Self {
            max_line,
            line_length: 0,
            pending_cr: false,
            fault: None,
        }
    }

    /// Looks at the next chunk, and says the first fault seen so far.
    pub fn check(&mut self, chunk: &[u8]) -> Option<ContentFault> {
        let mut chunk = self.end_pending_line(chunk);
        loop {
            let (length, stop) = self.line(chunk);
            chunk = chunk.get(length..).unwrap_or_default();
            match stop {
                Stop::LineEnd => {}
                Stop::InputEnd => return self.fault,
                Stop::PendingCr => {
                    self.wait_for_line_feed();
                    return self.fault;
                }
            }
        }
    }

    /// The first fault seen so far.
    pub(super) fn fault(&self) -> Option<ContentFault> {
        self.fault
    }

    /// The next chunk is to begin with the LF of a CR before it.
    pub(super) fn wait_for_line_feed(&mut self) {
        self.pending_cr = true;
    }

    /// Takes that LF off the chunk.
    pub(super) fn end_pending_line<'a>(&mut self, chunk: &'a [u8]) -> &'a [u8] {
        if chunk.is_empty() || !std::mem::take(&mut self.pending_cr) {
            return chunk;
        }
        if let Some(rest) = chunk.strip_prefix(b"\n") {
            self.line_length = 0;
            return rest;
        }
        self.found(ContentFault::BareCr);
        chunk
    }

    /// At the end of the content: a CR that waits for its LF is bare.
    pub fn finish(&mut self) -> Option<ContentFault> {
        if std::mem::take(&mut self.pending_cr) {
            self.found(ContentFault::BareCr);
        }
        self.fault
    }

    /// Goes to the end of the line, noting faults on the way; one search per line of good content.
    pub(super) fn line(&mut self, input: &[u8]) -> (usize, Stop) {
        let mut at = 0;
        let stop = loop {
            let rest = input.get(at..).unwrap_or_default();
            let Some(found) = memchr3(b'\r', b'\n', 0, rest) else {
                at = input.len();
                break Stop::InputEnd;
            };
            at += found;
            let fault = match (input.get(at), input.get(at + 1)) {
                (Some(b'\r'), None) => break Stop::PendingCr,
                (Some(b'\r'), Some(b'\n')) => {
                    at += 2;
                    break Stop::LineEnd;
                }
                (Some(b'\r'), _) => ContentFault::BareCr,
                (Some(b'\n'), _) => ContentFault::BareLf,
                _ => ContentFault::Nul,
            };
            // Which comes first must not depend on how the content comes in pieces.
            self.look_at_length(at);
            self.found(fault);
            at += 1;
        };
        let end = if matches!(stop, Stop::LineEnd) { 2 } else { 0 };
        self.look_at_length(at - end);
        self.line_length = if end > 0 { 0 } else { self.line_length + at };
        (at, stop)
    }

    /// With so many more octets on the line.
    fn look_at_length(&mut self, more: usize) {
        if self.line_length + more > self.max_line {
            self.found(ContentFault::LineTooLong);
        }
    }

    fn found(&mut self, fault: ContentFault) {
        self.fault.get_or_insert(fault);
    }
}
