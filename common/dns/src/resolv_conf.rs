//! resolv.conf(5), as much of it as we need.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// Like the C library, at most three.
const MOST_SERVERS: usize = 3;
const MOST_DOMAINS: usize = 6;
const PORT: u16 = 53;

/// What the file says, with the C library's defaults and bounds.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct ResolvConf {
    pub servers: Vec<SocketAddr>,
    /// Domains that names are completed with, in this order.
    pub search: Vec<String>,
    /// A name with fewer dots is tried in the search domains before it is tried as it is.
    pub ndots: usize,
    /// How long one attempt may take.
    pub timeout: Duration,
    /// How often a question is asked.
    pub attempts: usize,
}

impl ResolvConf {
    /// Lines that cannot be read are passed over, as others do.
    pub fn parse(text: &str) -> Self {
        let mut conf = Self {
            servers: Vec::new(),
            search: Vec::new(),
            ndots: 1,
            timeout: Duration::from_secs(5),
            attempts: 2,
        };
        for line in text.lines() {
            let mut words = line.split_whitespace();
            match words.next() {
                Some("nameserver") => conf.servers.extend(words.next().and_then(server)),
                // The last of these lines counts.
                Some("search" | "domain") => {
                    let domains = words.filter(|domain| *domain != ".");
                    conf.search = domains.take(MOST_DOMAINS).map(str::to_owned).collect();
                }
                Some("options") => words.for_each(|option| conf.set(option)),
                _ => {}
            }
        }
        conf.servers.truncate(MOST_SERVERS);
        conf
    }

    fn set(&mut self, option: &str) {
        let Some((key, value)) = option.split_once(':') else {
            return;
        };
        let Ok(value) = value.parse::<u8>() else {
            return;
        };
        match key {
            "ndots" => self.ndots = value.min(15).into(),
            "timeout" => self.timeout = Duration::from_secs(value.clamp(1, 30).into()),
            "attempts" => self.attempts = value.clamp(1, 5).into(),
            _ => {}
        }
    }
}

/// An address, or, as OpenBSD has it, `[address]:port`.
fn server(word: &str) -> Option<SocketAddr> {
    let address = word.parse::<IpAddr>();
    address.map_or_else(
        |_| word.parse().ok(),
        |address| Some(SocketAddr::new(address, PORT)),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_servers_of_the_system_are_read() {
        let text = "# nameserver 192.0.2.9\nsearch example.com\nnameserver 192.0.2.1\n\
                    nameserver\t2001:db8::1 # comment\noptions rotate\nnameserver oops\n\
                    nameserver 192.0.2.3:5353\nnameserver 192.0.2.4\n";
        let expected: Vec<SocketAddr> = ["192.0.2.1:53", "[2001:db8::1]:53", "192.0.2.3:5353"]
            .map(|server| server.parse().unwrap())
            .into();
        assert_eq!(ResolvConf::parse(text).servers, expected);
    }

    #[test]
    fn search_domains_and_options_are_read() {
        let text = "domain old.example\nsearch a.example b.example\nnameserver 127.0.0.11\n\
                    options edns0 ndots:0 timeout:0 attempts:99 trust-ad ndots:many\n";
        let conf = ResolvConf::parse(text);
        assert_eq!(conf.search, ["a.example", "b.example"]);
        assert_eq!((conf.ndots, conf.attempts), (0, 5));
        assert_eq!(conf.timeout, Duration::from_secs(1));
        let none = ResolvConf::parse("search .\n");
        assert_eq!((none.ndots, none.attempts, none.search.len()), (1, 2, 0));
    }
}
