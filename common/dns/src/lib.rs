//! The names mail needs, by hickory or from a fixed zone.
//!
//! **Purpose.** Mail asks the DNS four things: which hosts take mail for a domain
//! ([`Resolver::mail_hosts`]), which addresses a host has ([`Resolver::addresses`]), what an address
//! calls itself ([`Resolver::reverse`]) and what a name publishes as text ([`Resolver::txt`]). This
//! crate answers them in those words; it is the only one that names hickory.
//!
//! **Flow.** [`ResolverOptions::open`] gives an `Arc<dyn Resolver>`. An implementation supplies one
//! method, [`Resolver::lookup`] (the records of one type, aliases followed); everything mail means by
//! them - preference, implicit and null MX, dropped targets, bounds, forward confirmation - is
//! written once, on the trait. Implementations:
//!
//! - [`HickoryResolver`] asks name servers over UDP and TCP, with a bounded cache;
//! - [`FixedZone`] is plain data read from a zone file, so that everything can be rehearsed offline;
//! - a zone that answers first and lets unknown names through is both, one above the other.
//!
//! Hosts of our own surroundings, such as the one where the queue is, are found by [`SystemNames`]: the hosts file and
//! the name servers of this system, search domains included.
//!
//! **Aliases.** A domain that is an alias has the mail hosts of its target (RFC 5321 §5.1). A mail host that is an alias is against RFC 2181
//! §10.3, and followed as Postfix does it: its owner's mistake should not cost anybody mail. It keeps the name that the MX record has, for
//! certificates and logs, and guards against loops go by what it leads to.
//!
//! **What can fail.** A [`DnsError`] says whose fault it is: the name does not exist, it has no such
//! records, it publishes nonsense, it takes no mail - all permanent - or the DNS could not say
//! ([`DnsError::is_temporary`]). [`SetupError`] belongs to start-up and names file, line and remedy.
//!
//! **Configuration** (`[common.dns]`, from which [`ResolverOptions`] are made):
//!
//! | key | meaning | default |
//! |---|---|---|
//! | `zone` | zone file that replaces the DNS (format: [`FixedZone`]) | none |
//! | `zone_falls_through` | names the zone does not know are asked of the name servers | `false` |
//! | `servers` | name servers, `"ip"`, `"ip:port"` or `"[ip]:port"`; empty: `/etc/resolv.conf` | `[]` |
//! | `timeout` | how long one attempt may take | `"5s"` |
//! | `attempts` | how often a question is asked | `2` |
//! | `cache_size` | answers remembered | `8192` |
//! | `cache_max_ttl` | an answer is remembered for its TTL, no longer than this | `"1d"` |
//! | `cache_max_negative_ttl` | the same of "there is no such name or record" (RFC 2308) | `"15m"` |
//! | `edns` | offer larger UDP answers (RFC 6891) | `true` |
//! | `dnssec` | validate answers from the trust anchors down (RFC 4035) | `false` |
//! | `trust_anchors` | file of DNSKEY records of the root zone that are believed instead of the public ones | none |
//! | `prefer` | address family tried first, `"ipv6"` or `"ipv4"` | `"ipv6"` |
#![forbid(unsafe_code)]

mod error;
mod hickory;
mod layered;
mod name;
mod options;
mod resolv_conf;
mod resolver;
mod system;
mod words;
mod zone;

pub use error::{DnsError, RecordType, SetupError};
pub use hickory::HickoryResolver;
pub use name::{HostName, NameError};
pub use options::ResolverOptions;
pub use postroad_daemon::AddressFamily;
pub use resolver::{MAX_ADDRESSES, MAX_MAIL_HOSTS, Resolver};
pub use system::SystemNames;
pub use words::{Answer, MailHosts, MxHost, Record, Tlsa};
pub use zone::FixedZone;
