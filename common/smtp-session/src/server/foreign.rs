//! Other protocols at our port: browsers that a page made send a form, scanners, mail programs with the wrong setting for TLS.

/// The methods of HTTP (RFC 9110 §9); none is a command of SMTP.
const METHODS: [&[u8]; 9] = [
    b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"CONNECT", b"OPTIONS", b"TRACE", b"PATCH",
];

/// Fields that come in a request of HTTP, were its first line passed over.
const FIELDS: [&[u8]; 4] = [b"HOST:", b"USER-AGENT:", b"CONTENT-LENGTH:", b"COOKIE:"];

/// Whether a line that is no command is of another protocol.
pub fn is_line(line: &[u8]) -> bool {
    let upper = line.to_ascii_uppercase();
    let mut words = upper.split(|b| *b == b' ');
    let first = words.next().unwrap_or_default();
    let requests = METHODS.contains(&first) && words.next().is_some();
    requests || FIELDS.iter().any(|field| upper.starts_with(field)) || upper.starts_with(b"SSH-")
}

/// A handshake record of any version of TLS, and the older hello with its length (RFC 5246 appendix E.2).
pub fn is_hello_of_tls(input: &[u8]) -> bool {
    matches!(input, [0x16, 0x03, ..] | [0x80..=0xff, _, 0x01, 0x03, ..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_told_from_commands() {
        for foreign in [
            "GET / HTTP/1.1",
            "post /x HTTP/1.0",
            "CONNECT mx.example:25 HTTP/1.1",
            "Host: mx.example",
            "SSH-2.0-OpenSSH_9.2",
        ] {
            assert!(is_line(foreign.as_bytes()), "{foreign}");
        }
        for ours in ["GET", "HELP", "XGET /", "Hosts: x", "", "MAIL FROM:<>"] {
            assert!(!is_line(ours.as_bytes()), "{ours}");
        }
    }

    #[test]
    fn a_hello_of_tls_is_known_by_its_first_octets() {
        assert!(is_hello_of_tls(&[0x16, 3, 1, 2, 0, 1]));
        assert!(is_hello_of_tls(&[0x80, 0x2e, 1, 3, 1]));
        assert!(!is_hello_of_tls(&[0x16]) && !is_hello_of_tls(b"EHLO x\r\n"));
        // A name in UTF-8 is no hello.
        assert!(!is_hello_of_tls("ü\u{1}".as_bytes()));
    }
}
