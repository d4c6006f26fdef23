//! Lists of networks in configuration.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use ipnet::{IpNet, Ipv4Net};
use serde::{Deserialize, Serialize};

use crate::Error;

/// A list such as `["127.0.0.0/8", "::1"]`; an address without a prefix length is itself alone.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(try_from = "Vec<String>", into = "Vec<String>")]
pub struct Networks(Vec<IpNet>);

impl Networks {
    /// Whether `ip` lies in one of the networks; a v4-mapped address is looked up as IPv4.
    pub fn contains(&self, ip: IpAddr) -> bool {
        let ip = ip.to_canonical();
        self.0.iter().any(|network| network.contains(&ip))
    }

    /// This host itself.
    pub fn loopback() -> Self {
        let v4 = Ipv4Net::new_assert(Ipv4Addr::new(127, 0, 0, 0), 8);
        let v6 = IpNet::from(IpAddr::from(Ipv6Addr::LOCALHOST));
        Self(vec![v4.into(), v6])
    }

    /// Whether the list names no network at all.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether they are together all addresses of a family.
    pub fn names_everyone(&self) -> bool {
        let joined = IpNet::aggregate(&self.0);
        joined.iter().any(|network| network.prefix_len() == 0)
    }

    /// Parses every text of a list.
    pub fn parse<T: AsRef<str>>(texts: impl IntoIterator<Item = T>) -> Result<Self, Error> {
        texts
            .into_iter()
            .map(|text| network(text.as_ref()))
            .collect::<Result<_, _>>()
            .map(Self)
    }
}

impl TryFrom<Vec<String>> for Networks {
    type Error = Error;

    fn try_from(texts: Vec<String>) -> Result<Self, Error> {
        Self::parse(texts)
    }
}

impl From<Networks> for Vec<String> {
    fn from(networks: Networks) -> Self {
        networks.0.iter().map(ToString::to_string).collect()
    }
}

impl fmt::Display for Networks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, network) in self.0.iter().enumerate() {
            write!(f, "{}{network}", if index == 0 { "" } else { ", " })?;
        }
        Ok(())
    }
}

fn network(text: &str) -> Result<IpNet, Error> {
    IpNet::from_str(text)
        .map(|network| network.trunc())
        .or_else(|_| IpAddr::from_str(text).map(IpNet::from))
        .map_err(|_| Error::Syntax {
            text: text.to_owned(),
            expected: "an address or network, such as \"192.0.2.0/24\" or \"::1\"",
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_and_single_addresses_are_matched() {
        let networks: Networks =
            serde_json::from_str(r#"["127.0.0.1/8", "::1", "2001:db8::/32"]"#).unwrap();
        for inside in ["127.9.9.9", "::1", "2001:db8:ffff::1", "::ffff:127.0.0.1"] {
            assert!(networks.contains(inside.parse().unwrap()), "{inside}");
        }
        for outside in ["128.0.0.1", "::2", "2001:db9::"] {
            assert!(!networks.contains(outside.parse().unwrap()), "{outside}");
        }
        assert_eq!(networks.to_string(), "127.0.0.0/8, ::1/128, 2001:db8::/32");
        assert_eq!(Networks::loopback().to_string(), "127.0.0.0/8, ::1/128");
        assert!(!Networks::default().contains("127.0.0.1".parse().unwrap()));
        assert!(!networks.names_everyone());
        for everyone in ["0.0.0.0/0", "::/0", "192.0.2.1/0"] {
            assert!(Networks::parse(["::1", everyone]).unwrap().names_everyone());
        }
        let halves = Networks::parse(["128.0.0.0/1", "0.0.0.0/2", "10.0.0.0/8", "64.0.0.0/2"]);
        assert!(halves.unwrap().names_everyone());
        let not_all = Networks::parse(["128.0.0.0/1", "0.0.0.0/2"]);
        assert!(!not_all.unwrap().names_everyone());
    }

    #[test]
    fn nonsense_is_refused_with_an_example() {
        for bad in ["", "localhost", "10.0.0.0/33", "10.0.0/8"] {
            let error = Networks::parse([bad]).unwrap_err().to_string();
            assert!(error.contains("192.0.2.0/24"), "{error}");
        }
    }
}
