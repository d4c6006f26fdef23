use super::*;
use proptest::prelude::*;

/// What is read from `octets`, and what is left of them.
fn read(octets: &[u8]) -> (Result<Carried, HeaderError>, &[u8]) {
    let mut rest = octets;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let read = runtime.block_on(read_header(&mut rest));
    (read, rest)
}

fn binary(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
    let length = u16::try_from(body.len()).unwrap().to_be_bytes();
    [SIGNATURE, [command, family].as_slice(), &length, body].concat()
}

fn v4_body() -> Vec<u8> {
    [
        &[198, 51, 100, 7][..],
        &[192, 0, 2, 1],
        &[0x12, 0x67],
        &[0, 25],
    ]
    .concat()
}

fn v6_body() -> Vec<u8> {
    let source: Ipv6Addr = "2001:db8::7".parse().unwrap();
    let ours: Ipv6Addr = "2001:db8::25".parse().unwrap();
    [
        &source.octets()[..],
        &ours.octets(),
        &[0x12, 0x67],
        &[0, 25],
    ]
    .concat()
}

fn carried(octets: &[u8]) -> String {
    match read(octets).0 {
        Ok(Carried::Own) => "own".to_owned(),
        Ok(Carried::Unknown) => "unknown".to_owned(),
        Ok(Carried::Client(address)) => address.to_string(),
        Err(error) => error.to_string(),
    }
}

#[test]
fn version_2_names_the_client_of_either_family() {
    assert_eq!(
        carried(&binary(0x21, 0x11, &v4_body())),
        "198.51.100.7:4711"
    );
    assert_eq!(
        carried(&binary(0x21, 0x21, &v6_body())),
        "[2001:db8::7]:4711"
    );
}

#[test]
fn additions_are_passed_over_and_what_follows_is_left() {
    // An authority (0x02) of 3 octets, an unknown one of none, and one that is cut off.
    let additions = [&[2, 0, 3][..], b"a.b", &[0xe0, 0, 0], &[4, 0, 9, 0]].concat();
    for body in [v4_body(), v6_body()] {
        let family = if body.len() == 12 { 0x11 } else { 0x21 };
        let mut octets = binary(0x21, family, &[body, additions.clone()].concat());
        octets.extend_from_slice(b"EHLO a\r\n");
        let (header, rest) = read(&octets);
        assert!(matches!(header, Ok(Carried::Client(_))), "{header:?}");
        assert_eq!(rest, b"EHLO a\r\n");
    }
}

#[test]
fn local_connections_are_the_balancers_own() {
    for (family, body) in [(0x00, vec![]), (0x11, v4_body()), (0xff, vec![1, 2, 3])] {
        assert_eq!(carried(&binary(0x20, family, &body)), "own");
    }
}

#[test]
fn of_unspecified_and_unix_connections_the_client_is_unknown() {
    for (family, body) in [(0x00, vec![]), (0x31, vec![0; 216])] {
        assert_eq!(carried(&binary(0x21, family, &body)), "unknown");
    }
    for line in ["PROXY UNKNOWN\r\n", "PROXY UNKNOWN ff::1 what ever 1 2\r\n"] {
        assert_eq!(carried(line.as_bytes()), "unknown");
    }
}

#[test]
fn version_2_that_cannot_be_is_refused() {
    for (octets, why) in [
        (binary(0x11, 0x11, &v4_body()), "an unknown version"),
        (binary(0x31, 0x11, &v4_body()), "an unknown version"),
        (binary(0x22, 0x11, &v4_body()), "an unknown command"),
        (binary(0x21, 0x12, &v4_body()), "not of TCP"),
        (binary(0x21, 0x01, &v4_body()), "not of TCP"),
        (binary(0x21, 0x41, &v4_body()), "not of TCP"),
        (binary(0x21, 0x11, &v4_body()[..11]), "half an address"),
        (binary(0x21, 0x21, &v6_body()[..35]), "half an address"),
        (binary(0x21, 0x11, &[0; 4097]), "of 4097 octets"),
        (
            binary(0x21, 0x11, &v4_body())[..27].to_vec(),
            "before the end",
        ),
        (
            b"EHLO client.example.org\r\n".to_vec(),
            "does not begin with",
        ),
        (b"\r\n\r\n\0\r\nQUIT\r".to_vec(), "does not begin with"),
        (Vec::new(), "before the end"),
    ] {
        let told = carried(&octets);
        assert!(told.contains(why), "{told}");
    }
}

#[test]
fn version_1_names_the_client_of_either_family() {
    for (line, expected) in [
        (
            "PROXY TCP4 198.51.100.7 192.0.2.1 4711 25\r\n",
            "198.51.100.7:4711",
        ),
        (
            "PROXY TCP6 2001:db8::7 2001:db8::25 4711 25\r\n",
            "[2001:db8::7]:4711",
        ),
    ] {
        assert_eq!(carried(line.as_bytes()), expected);
        let followed = format!("{line}PROXY");
        assert_eq!(read(followed.as_bytes()).1, b"PROXY");
    }
}

#[test]
fn version_1_that_cannot_be_is_refused() {
    for line in [
        "PROXY TCP4 198.51.100.7 192.0.2.1 4711\r\n",
        "PROXY TCP4 198.51.100.7 192.0.2.1 4711 25 1\r\n",
        "PROXY TCP4 198.51.100.7  192.0.2.1 4711 25\r\n",
        "PROXY TCP4 2001:db8::7 2001:db8::25 4711 25\r\n",
        "PROXY TCP4 198.51.100.7 2001:db8::25 4711 25\r\n",
        "PROXY TCP6 198.51.100.7 192.0.2.1 4711 25\r\n",
        "PROXY TCP4 198.51.100.7 192.0.2.1 +4711 25\r\n",
        "PROXY TCP4 198.51.100.7 192.0.2.1 65536 25\r\n",
        "PROXY TCP4 198.51.100.7 192.0.2.1 4711 \r\n",
        "PROXY UDP4 198.51.100.7 192.0.2.1 4711 25\r\n",
        "PROXY  TCP4 198.51.100.7 192.0.2.1 4711 25\r\n",
        "PROXY TCP4 \u{e9}\r\n",
    ] {
        assert!(read(line.as_bytes()).0.is_err(), "{line}");
    }
    let endless = format!("PROXY UNKNOWN {}\r\n", "x".repeat(92));
    assert_eq!(endless.len(), LONGEST_LINE + 1);
    assert!(carried(endless.as_bytes()).contains("of 108 octets"));
    assert_eq!(carried(endless.replacen('x', "", 1).as_bytes()), "unknown");
}

proptest! {
    #[test]
    fn arbitrary_octets_are_read_within_bounds(
        start in 0..4usize,
        octets in proptest::collection::vec(any::<u8>(), 0..6000),
    ) {
        let start: &[u8] = [&b""[..], SIGNATURE, b"\r\n\r\n\0\r\nQUIT\n\x21", b"PROXY TCP"][start];
        let octets = [start, &octets].concat();
        let (header, rest) = read(&octets);
        let taken = octets.len() - rest.len();
        prop_assert!(taken <= 16 + usize::from(LONGEST_BODY));
        // A header says the same whatever follows it.
        if let Ok(header) = header {
            prop_assert_eq!(read(&octets[..taken]).0.unwrap(), header);
        }
    }

    #[test]
    fn every_client_is_told_as_it_is(source: [u8; 16], port: u16, tail: Vec<u8>) {
        let [a, b, c, d, ..] = source;
        let p = port.to_be_bytes();
        let v4 = [&[a, b, c, d][..], &[0; 4], &p, &[0, 25]].concat();
        let v6 = [&source[..], &[0; 16], &p, &[0, 25]].concat();
        for (family, body, ip) in [
            (0x11, v4, IpAddr::from([a, b, c, d])),
            (0x21, v6, IpAddr::from(source)),
        ] {
            let octets = [binary(0x21, family, &body), tail.clone()].concat();
            let (header, rest) = read(&octets);
            prop_assert_eq!(header.unwrap(), Carried::Client(SocketAddr::new(ip, port)));
            prop_assert_eq!(rest, &tail[..]);
        }
    }
}
