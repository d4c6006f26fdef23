//! Addresses that mail from the world must not be able to aim at.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Why `ip` is no place to send mail to on somebody else's word, or `None` for the public internet.
///
/// The special-purpose registries of RFC 6890 and its successors, and IPv6 forms that carry an IPv4 address
/// (mapped, compatible, 6to4, NAT64), which are judged by what they carry.
pub fn is_forbidden_destination(ip: IpAddr) -> Option<&'static str> {
    match ip {
        IpAddr::V4(v4) => forbidden_v4(v4),
        IpAddr::V6(v6) => forbidden_v6(v6),
    }
}

fn forbidden_v4(ip: Ipv4Addr) -> Option<&'static str> {
    let [a, b, c, _] = ip.octets();
    match (a, b, c) {
        _ if ip.is_unspecified() => Some("unspecified"),
        (0, ..) => Some("this network (RFC 791)"),
        (127, ..) => Some("loopback"),
        _ if ip.is_private() => Some("private (RFC 1918)"),
        (169, 254, _) => Some("link-local (RFC 3927)"),
        (100, 64..=127, _) => Some("carrier-grade NAT (RFC 6598)"),
        (192, 0, 0) => Some("protocol assignments (RFC 6890)"),
        _ if ip.is_documentation() => Some("documentation (RFC 5737)"),
        (198, 18 | 19, _) => Some("benchmarking (RFC 2544)"),
        (224..=239, ..) => Some("multicast"),
        _ if ip.is_broadcast() => Some("broadcast"),
        (240.., ..) => Some("reserved (RFC 1112)"),
        _ => None,
    }
}

fn forbidden_v6(ip: Ipv6Addr) -> Option<&'static str> {
    let s = ip.segments();
    match s {
        _ if ip.is_unspecified() => Some("unspecified"),
        _ if ip.is_loopback() => Some("loopback"),
        // RFC 4291 §2.5.5: IPv4-mapped, and the deprecated IPv4-compatible form.
        [0, 0, 0, 0, 0, 0xffff, high, low] | [0, 0, 0, 0, 0, 0, high, low] => {
            forbidden_v4(embedded(high, low))
        }
        // RFC 3056: 6to4; RFC 6052: NAT64.
        [0x2002, high, low, ..] => forbidden_v4(embedded(high, low)),
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] => forbidden_v4(embedded(high, low)),
        [0x64, 0xff9b, 1, ..] => Some("local NAT64 (RFC 8215)"),
        [0xfc00..=0xfdff, ..] => Some("unique local (RFC 4193)"),
        [0xfe80..=0xfebf, ..] => Some("link-local"),
        [0xfec0..=0xfeff, ..] => Some("site-local (RFC 3879)"),
        [0xff00..=0xffff, ..] => Some("multicast"),
        [0x2001, 0xdb8, ..] | [0x3fff, 0..=0xfff, ..] => Some("documentation (RFC 3849, RFC 9637)"),
        [0x2001, 0, ..] => Some("Teredo (RFC 4380)"),
        [0x2001, 2, 0, ..] => Some("benchmarking (RFC 5180)"),
        [0x100, 0, 0, 0, ..] => Some("discard (RFC 6666)"),
        _ => None,
    }
}

fn embedded(high: u16, low: u16) -> Ipv4Addr {
    let [a, b] = high.to_be_bytes();
    let [c, d] = low.to_be_bytes();
    Ipv4Addr::new(a, b, c, d)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn special_purpose_addresses_are_forbidden() {
        let cases = [
            ("0.0.0.0", "unspecified"),
            ("0.1.2.3", "this network"),
            ("127.255.0.1", "loopback"),
            ("10.0.0.1", "private"),
            ("172.31.255.255", "private"),
            ("192.168.0.1", "private"),
            ("169.254.169.254", "link-local"),
            ("100.127.255.255", "carrier-grade"),
            ("192.0.2.1", "documentation"),
            ("198.51.100.1", "documentation"),
            ("203.0.113.1", "documentation"),
            ("198.19.0.1", "benchmarking"),
            ("224.0.0.1", "multicast"),
            ("255.255.255.255", "broadcast"),
            ("250.0.0.1", "reserved"),
            ("::", "unspecified"),
            ("::1", "loopback"),
            ("::ffff:127.0.0.1", "loopback"),
            ("::ffff:10.0.0.1", "private"),
            ("::10.0.0.1", "private"),
            ("2002:0a00:0001::1", "private"),
            ("64:ff9b::127.0.0.1", "loopback"),
            ("64:ff9b:1::1", "NAT64"),
            ("fd00::1", "unique local"),
            ("fe80::1", "link-local"),
            ("febf::1", "link-local"),
            ("fec0::1", "site-local"),
            ("ff02::1", "multicast"),
            ("2001:db8::1", "documentation"),
            ("3fff:fff::1", "documentation"),
            ("2001:0:1::1", "Teredo"),
            ("100::1", "discard"),
        ];
        for (text, expected) in cases {
            let reason = is_forbidden_destination(text.parse().unwrap());
            assert!(
                reason.is_some_and(|reason| reason.contains(expected)),
                "{text}: {reason:?}"
            );
        }
    }

    #[test]
    fn the_public_internet_is_open() {
        for text in [
            "1.1.1.1",
            "100.63.255.255",
            "100.128.0.1",
            "172.32.0.1",
            "192.0.1.1",
            "198.20.0.1",
            "223.255.255.255",
            "2606:4700::1111",
            "2a00::1",
            "::ffff:8.8.8.8",
            "2002:0808:0808::1",
            "64:ff9b::8.8.8.8",
            "4000::1",
        ] {
            assert_eq!(
                is_forbidden_destination(text.parse().unwrap()),
                None,
                "{text}"
            );
        }
    }
}
