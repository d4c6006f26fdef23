//! What a balancer says before the client speaks: whose connection it carries.
//!
//! The PROXY protocol of HAProxy (proxy-protocol.txt), versions 1 and 2. A header is read octet for octet, never
//! beyond its end: what follows is the client's, and may be a TLS handshake.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use tokio::io::{AsyncRead, AsyncReadExt};

/// §2.2: the first octets of version 2.
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// §2.1: the longest line of version 1, with its CRLF.
const LONGEST_LINE: usize = 107;
/// Addresses and additions (TLVs) of version 2. HAProxy sends some hundred octets; a header could say 65,535.
const LONGEST_BODY: u16 = 4096;

/// Whose connection it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Carried {
    /// The balancer's own: a look whether we are well, by no client.
    Own,
    /// That of a client it cannot tell.
    Unknown,
    /// That of the client at this address.
    Client(SocketAddr),
}

/// Why there is no header to go by. Whoever is at the other end is no balancer, or is set up in another way.
#[derive(Debug, thiserror::Error)]
pub enum HeaderError {
    /// It took longer than may be waited for.
    #[error("no PROXY protocol header came in time")]
    TimedOut,
    /// What came first is neither version's beginning.
    #[error("the connection does not begin with a PROXY protocol header")]
    Absent,
    /// Longer than is read of one.
    #[error("a PROXY protocol header of {0} octets")]
    TooLong(usize),
    /// It says what it must not.
    #[error("a PROXY protocol header with {0}")]
    Malformed(&'static str),
    /// The connection ended, or failed, within it.
    #[error("before the end of the PROXY protocol header: {0}")]
    Io(#[from] io::Error),
}

/// Reads one header and not an octet more.
pub async fn read_header(from: &mut (impl AsyncRead + Unpin)) -> Result<Carried, HeaderError> {
    // No header of either version is shorter than this.
    let mut start = [0; SIGNATURE.len()];
    from.read_exact(&mut start).await?;
    if start == *SIGNATURE {
        return read_binary(from).await;
    }
    if start.starts_with(b"PROXY ") {
        return read_line(from, &start).await;
    }
    Err(HeaderError::Absent)
}

/// Version 2, behind the signature.
async fn read_binary(from: &mut (impl AsyncRead + Unpin)) -> Result<Carried, HeaderError> {
    let (command, family) = (from.read_u8().await?, from.read_u8().await?);
    let length = from.read_u16().await?;
    if length > LONGEST_BODY {
        return Err(HeaderError::TooLong(length.into()));
    }
    let mut body = vec![0; length.into()];
    from.read_exact(&mut body).await?;
    decode_binary(command, family, &body)
}

/// §2.2. What follows the addresses (TLVs) is passed over.
fn decode_binary(command: u8, family: u8, body: &[u8]) -> Result<Carried, HeaderError> {
    match command {
        0x21 => {}
        // LOCAL: whatever else the header says is to be ignored.
        0x20 => return Ok(Carried::Own),
        0x22..=0x2f => return Err(HeaderError::Malformed("an unknown command")),
        _ => return Err(HeaderError::Malformed("an unknown version")),
    }
    match family {
        // TCP over IPv4: source, destination, source port, destination port.
        0x11 => match body {
            &[a, b, c, d, _, _, _, _, high, low, _, _, ..] => {
                Ok(client(Ipv4Addr::new(a, b, c, d), [high, low]))
            }
            _ => Err(HeaderError::Malformed("half an address")),
        },
        // TCP over IPv6: the same with 16 octets each.
        0x21 => match (body.first_chunk(), body.get(32..36)) {
            (Some(source), Some(&[high, low, _, _])) => {
                Ok(client(Ipv6Addr::from_octets(*source), [high, low]))
            }
            _ => Err(HeaderError::Malformed("half an address")),
        },
        // UNSPEC, and streams over Unix sockets, whose clients have no address we could use.
        0x00 | 0x31 => Ok(Carried::Unknown),
        _ => Err(HeaderError::Malformed(
            "an address family or transport that is not of TCP",
        )),
    }
}

fn client(ip: impl Into<IpAddr>, port: [u8; 2]) -> Carried {
    Carried::Client(SocketAddr::new(ip.into(), u16::from_be_bytes(port)))
}

/// Version 1, a line of text. Its end is found octet by octet, since nothing behind it may be taken.
async fn read_line(
    from: &mut (impl AsyncRead + Unpin),
    start: &[u8],
) -> Result<Carried, HeaderError> {
    let mut line = Vec::with_capacity(LONGEST_LINE);
    line.extend_from_slice(start);
    while !line.ends_with(b"\r\n") {
        if line.len() == LONGEST_LINE {
            return Err(HeaderError::TooLong(LONGEST_LINE + 1));
        }
        line.push(from.read_u8().await?);
    }
    decode_line(&line)
}

/// §2.1.
fn decode_line(line: &[u8]) -> Result<Carried, HeaderError> {
    let text = line.strip_suffix(b"\r\n").map(str::from_utf8);
    let Some(Ok(text)) = text else {
        return Err(HeaderError::Malformed("octets that are no text"));
    };
    let mut words = text.split(' ').skip(1);
    let source = match words.next() {
        // "The receiver must ignore anything presented before the CRLF".
        Some("UNKNOWN") => return Ok(Carried::Unknown),
        Some("TCP4") => addresses::<Ipv4Addr>(&mut words),
        Some("TCP6") => addresses::<Ipv6Addr>(&mut words),
        _ => return Err(HeaderError::Malformed("an unknown protocol")),
    };
    let ports = [port(words.next()), port(words.next())];
    match (source, ports, words.next()) {
        (Some(source), [Some(port), Some(_)], None) => {
            Ok(Carried::Client(SocketAddr::new(source, port)))
        }
        _ => Err(HeaderError::Malformed("an address that cannot be read")),
    }
}

/// The first of two addresses of one family.
fn addresses<'a, A: std::str::FromStr + Into<IpAddr>>(
    words: &mut impl Iterator<Item = &'a str>,
) -> Option<IpAddr> {
    let (source, destination) = (words.next()?.parse::<A>(), words.next()?.parse::<A>());
    destination.ok()?;
    Some(source.ok()?.into())
}

fn port(word: Option<&str>) -> Option<u16> {
    let word = word?;
    let digits = word.bytes().all(|octet| octet.is_ascii_digit());
    digits.then(|| word.parse().ok()).flatten()
}

#[cfg(test)]
mod tests;
