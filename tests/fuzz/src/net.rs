//! What a balancer says before the client speaks.

use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};

use postroad_net::{Carried, ProxyHeaderError, read_proxy_header};
use tokio::io::{AsyncRead, ReadBuf};

use crate::pieces;

/// What comes in these pieces, and then ends.
struct Incoming<'a> {
    pieces: std::vec::IntoIter<&'a [u8]>,
    piece: &'a [u8],
    taken: usize,
}

impl<'a> Incoming<'a> {
    fn new(pieces: Vec<&'a [u8]>) -> Self {
        Self {
            pieces: pieces.into_iter(),
            piece: &[],
            taken: 0,
        }
    }
}

impl AsyncRead for Incoming<'_> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.piece.is_empty() {
            self.piece = self.pieces.next().unwrap_or_default();
        }
        let (now, later) = self
            .piece
            .split_at(self.piece.len().min(buffer.remaining()));
        buffer.put_slice(now);
        self.piece = later;
        self.taken += now.len();
        Poll::Ready(Ok(()))
    }
}

/// What is read, and how much was taken for it.
fn read(pieces: Vec<&[u8]>) -> (Result<Carried, ProxyHeaderError>, usize) {
    let mut incoming = Incoming::new(pieces);
    let Poll::Ready(carried) =
        pin!(read_proxy_header(&mut incoming)).poll(&mut Context::from_waker(Waker::noop()))
    else {
        panic!("nothing is waited for, and yet it waits");
    };
    (carried, incoming.taken)
}

/// A header is the same however it comes in pieces, nothing behind it is taken, and less than it is none. A client that it names
/// is the same when a balancer names it to us again.
pub fn proxy_header(input: &[u8]) {
    let (whole, taken) = read(vec![input]);
    let (parts, taken_of_parts) = read(pieces(input));
    assert_eq!(format!("{parts:?}"), format!("{whole:?}"));
    assert_eq!(taken_of_parts, taken);
    assert!(taken <= 16 + 4096);
    let Ok(carried) = whole else { return };
    let header = input.get(..taken).expect("it was taken from there");
    let (alone, _) = read(vec![header]);
    assert_eq!(alone.expect("the same header"), carried);
    let cut = header.split_last().map_or(header, |(_, rest)| rest);
    let (cut, _) = read(vec![cut]);
    assert!(matches!(cut, Err(ProxyHeaderError::Io(_))), "{cut:?}");
    if let Carried::Client(client) = carried {
        let family = if client.is_ipv4() { "TCP4" } else { "TCP6" };
        let (ip, port) = (client.ip(), client.port());
        let line = format!("PROXY {family} {ip} {ip} {port} 25\r\n");
        let (again, _) = read(vec![line.as_bytes()]);
        assert_eq!(again.expect("a line"), carried);
    }
}
