use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;
use postroad_address::Domain;
use rcgen::{CidrSubnet, GeneralSubtree, NameConstraints};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::X509Certificate;

use crate::Error;

/// What an authority may vouch for (RFC 5280 §4.2.1.10): domains with all below them, and networks. Without any it is
/// everything; with domains alone no address is permitted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Permits {
    domains: Vec<String>,
    networks: Vec<IpNet>,
}

impl Permits {
    /// Reads `example.org`, `192.0.2.0/24`, `::1`.
    pub fn parse<T: AsRef<str>>(texts: impl IntoIterator<Item = T>) -> Result<Self, Error> {
        let mut permits = Self::default();
        for text in texts {
            permits.add(text.as_ref())?;
        }
        Ok(permits)
    }

    fn add(&mut self, text: &str) -> Result<(), Error> {
        let network = text
            .parse::<IpNet>()
            .map(|network| network.trunc())
            .or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
        match network {
            Ok(network) if self.networks.contains(&network) => {}
            Ok(network) => self.networks.push(network),
            Err(_) => {
                let domain = host_name(text)?;
                if !self.domains.contains(&domain) {
                    self.domains.push(domain);
                }
            }
        }
        Ok(())
    }

    /// Whether a certificate may carry this name: a host name, also with `*.`, or an address.
    pub fn allow(&self, name: &str) -> bool {
        if *self == Self::default() {
            return true;
        }
        if let Ok(address) = name.parse::<IpAddr>() {
            return self
                .networks
                .iter()
                .any(|network| network.contains(&address));
        }
        let name = name.strip_prefix("*.").unwrap_or(name).to_ascii_lowercase();
        let below = |domain: &String| {
            let rest = name.strip_suffix(domain.as_str());
            rest.is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
        };
        self.domains.is_empty() || self.domains.iter().any(below)
    }

    pub(crate) fn constraints(&self) -> Option<NameConstraints> {
        if *self == Self::default() {
            return None;
        }
        let subnet = |network: &IpNet| {
            let subnet = CidrSubnet::from_addr_prefix(network.network(), network.prefix_len());
            GeneralSubtree::IpAddress(subnet)
        };
        let domains = self.domains.iter().cloned().map(GeneralSubtree::DnsName);
        let permitted = domains.chain(self.networks.iter().map(subnet)).collect();
        // Without a permitted network every address would pass.
        let excluded = match self.networks.is_empty() {
            true => vec![
                GeneralSubtree::IpAddress(CidrSubnet::V4([0; 4], [0; 4])),
                GeneralSubtree::IpAddress(CidrSubnet::V6([0; 16], [0; 16])),
            ],
            false => Vec::new(),
        };
        Some(NameConstraints {
            permitted_subtrees: permitted,
            excluded_subtrees: excluded,
        })
    }

    /// As they are written in an authority's certificate.
    pub(crate) fn of(certificate: &X509Certificate<'_>) -> Self {
        let mut permits = Self::default();
        let constraints = certificate.name_constraints().ok().flatten();
        let subtrees = constraints
            .and_then(|extension| extension.value.permitted_subtrees.as_ref())
            .into_iter()
            .flatten();
        for subtree in subtrees {
            match &subtree.base {
                GeneralName::DNSName(name) => permits.domains.push((*name).to_owned()),
                GeneralName::IPAddress(octets) => permits.networks.extend(network(octets)),
                _ => {}
            }
        }
        permits
    }
}

/// Address and mask.
fn network(octets: &[u8]) -> Option<IpNet> {
    let (address, mask) = octets.split_at_checked(octets.len() / 2)?;
    IpNet::with_netmask(ip(address)?, ip(mask)?).ok()
}

pub(crate) fn ip(octets: &[u8]) -> Option<IpAddr> {
    match octets.len() {
        4 => <[u8; 4]>::try_from(octets).ok().map(IpAddr::from),
        _ => <[u8; 16]>::try_from(octets).ok().map(IpAddr::from),
    }
}

/// A host name as certificates carry it: A-labels, lower case.
pub(crate) fn host_name(text: &str) -> Result<String, Error> {
    let bad = || Error::Name(text.to_owned());
    let (star, rest) = match text.strip_prefix("*.") {
        Some(rest) => ("*.", rest),
        None => ("", text),
    };
    let domain = Domain::parse(rest).map_err(|_| bad())?;
    match rest.starts_with('[') {
        true => Err(bad()),
        false => Ok(format!("{star}{}", domain.a_label())),
    }
}

impl fmt::Display for Permits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let networks = self.networks.iter().map(ToString::to_string);
        let all: Vec<String> = self.domains.iter().cloned().chain(networks).collect();
        f.write_str(match all.is_empty() {
            true => "everything",
            false => "",
        })?;
        f.write_str(&all.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn domains_permit_what_is_below_them_and_networks_their_addresses() {
        let permits = Permits::parse(["Example.org", "queued", "10.0.0.0/8", "::1"]).unwrap();
        for good in [
            "example.org",
            "mx.EXAMPLE.org",
            "*.example.org",
            "queued",
            "10.1.2.3",
            "::1",
        ] {
            assert!(permits.allow(good), "{good}");
        }
        for bad in ["example.com", "notexample.org", "192.0.2.1", "::2"] {
            assert!(!permits.allow(bad), "{bad}");
        }
        assert_eq!(
            permits.to_string(),
            "example.org, queued, 10.0.0.0/8, ::1/128"
        );
        let no_addresses = Permits::parse(["example.org"]).unwrap();
        assert!(!no_addresses.allow("127.0.0.1"));
        assert!(Permits::default().allow("127.0.0.1"));
        assert_eq!(Permits::default().to_string(), "everything");
        for bad in ["", "a b", "[192.0.2.1]", "10.0.0.0/33"] {
            assert!(Permits::parse([bad]).is_err(), "{bad}");
        }
    }
}
