//! Content on its way in: DATA and BDAT.

use bytes::{Bytes, BytesMut};
use postroad_reply::Reply;
use postroad_smtp::{ContentChecker, ContentFault, DotPiece};

use super::{Chunk, CloseReason, Event, Incoming, Pending, Phase, ServerSession, command::ok};

impl ServerSession {
    /// Takes what `input` has; false: nothing more can be done without more input.
    pub(super) fn step_content(&mut self, phase: Phase, input: &mut BytesMut) -> (Phase, bool) {
        match phase {
            Phase::Dot(mut incoming, mut decoder) => match decoder.decode(input) {
                None => (Phase::Dot(incoming, decoder), false),
                Some(DotPiece::Content(octets)) => {
                    let fault = decoder.fault();
                    match self.take(&mut incoming, octets, fault) {
                        None => (Phase::Dot(incoming, decoder), true),
                        Some(closed) => (closed, true),
                    }
                }
                Some(DotPiece::End) => {
                    self.judge(&mut incoming, decoder.fault());
                    (self.content_end(incoming), true)
                }
            },
            Phase::Chunk(incoming, chunk) if chunk.remaining == 0 => {
                (self.end_chunk(incoming, chunk), true)
            }
            Phase::Chunk(mut incoming, mut chunk) => {
                let octets = split_at_most(input, chunk.remaining);
                if octets.is_empty() {
                    return (Phase::Chunk(incoming, chunk), false);
                }
                chunk.remaining = chunk.remaining.saturating_sub(length(&octets));
                let checker = incoming.checker.as_mut();
                let fault = checker.and_then(|checker| checker.check(&octets));
                match self.take(&mut incoming, octets, fault) {
                    None => (Phase::Chunk(incoming, chunk), true),
                    Some(closed) => (closed, true),
                }
            }
            Phase::Discard(0, reply, back) => (self.mistake(*back, reply), true),
            Phase::Discard(remaining, reply, back) => {
                let dropped = length(&split_at_most(input, remaining));
                let rest = remaining.saturating_sub(dropped);
                (Phase::Discard(rest, reply, back), dropped > 0)
            }
            phase => (phase, false),
        }
    }

    /// Octets behind a BDAT that is refused are read all the same (RFC 3030 §2), within reason.
    pub(super) fn discard(&mut self, phase: Phase, size: u64, reply: Reply) -> Phase {
        if size > self.patience() {
            return self.closing(reply, CloseReason::Flood);
        }
        Phase::Discard(size, reply, Box::new(phase))
    }

    pub(super) fn begin_chunk(&mut self, mut incoming: Incoming, chunk: Chunk) -> Phase {
        let announced = incoming.received.saturating_add(chunk.size);
        if announced > self.size_limit() {
            let reply = self.too_large();
            self.fail(&mut incoming, reply);
        }
        if announced > self.patience() {
            let reply = incoming.fault.unwrap_or_else(|| self.too_large());
            return self.closing(reply, CloseReason::Flood);
        }
        Phase::Chunk(incoming, chunk)
    }

    fn end_chunk(&mut self, mut incoming: Incoming, chunk: Chunk) -> Phase {
        if chunk.last {
            let checker = incoming.checker.as_mut();
            let fault = checker.and_then(ContentChecker::finish);
            self.judge(&mut incoming, fault);
            return self.content_end(incoming);
        }
        let reply = match &incoming.fault {
            Some(reply) => reply.clone(),
            None => ok(&format!("{} octets received", chunk.size)),
        };
        self.say(&reply);
        Phase::BetweenChunks(incoming)
    }

    /// Hands octets out, unless the content is refused by now. Gives the end, if it went on for too long.
    fn take(
        &mut self,
        incoming: &mut Incoming,
        octets: Bytes,
        fault: Option<ContentFault>,
    ) -> Option<Phase> {
        incoming.received = incoming.received.saturating_add(length(&octets));
        self.judge(incoming, fault);
        match &incoming.fault {
            None => self.events.push_back(Event::Content(octets)),
            Some(reply) if incoming.received > self.patience() => {
                let reply = reply.clone();
                return Some(self.closing(reply, CloseReason::Flood));
            }
            Some(_) => {}
        }
        None
    }

    fn judge(&mut self, incoming: &mut Incoming, fault: Option<ContentFault>) {
        if let Some(fault) = fault {
            self.fail(incoming, fault.reply());
        } else if incoming.received > self.size_limit() {
            // RFC 1870 §6.3: whatever was announced, this counts.
            let reply = self.too_large();
            self.fail(incoming, reply);
        }
    }

    fn fail(&mut self, incoming: &mut Incoming, reply: Reply) {
        if incoming.fault.is_none() {
            self.events.push_back(Event::ContentRefused(reply.clone()));
            incoming.fault = Some(reply);
        }
    }

    fn content_end(&mut self, incoming: Incoming) -> Phase {
        match incoming.fault {
            Some(reply) => self.end_transaction(&incoming.transaction, &reply),
            None => self.ask(Event::ContentEnd, Pending::ContentEnd(incoming.transaction)),
        }
    }

    /// How much refused content is read before the connection is cut.
    fn patience(&self) -> u64 {
        self.size_limit().saturating_mul(2).saturating_add(1 << 20)
    }
}

fn split_at_most(input: &mut BytesMut, limit: u64) -> Bytes {
    let length = usize::try_from(limit)
        .unwrap_or(usize::MAX)
        .min(input.len());
    input.split_to(length).freeze()
}

fn length(octets: &Bytes) -> u64 {
    u64::try_from(octets.len()).unwrap_or(u64::MAX)
}
