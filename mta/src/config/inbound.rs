//! `[mta.inbound]`: mail from the world.

use std::{
    collections::BTreeMap,
    net::{Ipv6Addr, SocketAddr},
};

use postroad_daemon::{ByteSize, Interval, SecretFile};
use postroad_net::{CertFiles, Limits, ListenAddr, Networks, ServerTls};
use postroad_smtpd::{DeliverByKeys, PerConnection, Timeouts};
use serde::{Deserialize, Serialize};

use super::{DelimitersText, HostText, ListenerConfig, SenderText};

/// `[mta.inbound]`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default)]
pub struct InboundConfig {
    /// Whether this agent takes mail.
    pub enabled: bool,
    /// Where to listen, by the name that logs show.
    pub listeners: BTreeMap<String, ListenerConfig>,
    /// Certificates; with at least one STARTTLS is offered. The one that fits the name a client asks for is shown.
    pub certificates: Vec<CertFiles>,
    /// Octets of content.
    pub size_limit: ByteSize,
    /// Recipients of one mail; never fewer than 100.
    pub max_recipients: usize,
    /// Clients in these networks may send to anyone.
    pub relay_networks: Networks,
    /// Balancers: from there, each connection must say whose it is by a header of the PROXY protocol.
    pub proxy_networks: Networks,
    /// Mail systems in front of us: believed what they tell by XFORWARD of their own clients.
    pub xforward_networks: Networks,
    /// Proxies that are believed what they tell by XCLIENT of the client for whom they speak.
    pub xclient_networks: Networks,
    /// How long the name of a client is looked up.
    pub rdns_timeout: Interval,
    /// How long the queue is waited for before the client is told to come again.
    pub queue_timeout: Interval,
    /// Received fields in a mail that has been round too often.
    pub max_hops: u32,
    /// How long the greeting is held back, to send away who speaks before it.
    pub greeting_delay: Interval,
    /// Octets of content that a client must bring in a second, on the average of three minutes.
    pub min_rate: ByteSize,
    /// How much one connection may bring; as much as there is where a neighbour is at its other end (`xforward_networks`).
    pub per_connection: PerConnection,
    /// Whether mail may say by when it is to be delivered (RFC 2852).
    pub deliver_by: DeliverByKeys,
    /// How long a client is waited for.
    pub timeouts: Timeouts,
    /// The keys of bounce addresses that were signed when mail left, one on a line; all of them are believed.
    pub bounce_key_file: Option<SecretFile>,
    /// Domains of ours that take mail without a sender at signed addresses alone.
    pub bounces_only_signed: Vec<HostText>,
    /// Senders whose mail left from an address for each recipient: what comes to one goes to the sender, and tells of the recipient.
    pub verp_senders: Vec<SenderText>,
    /// How those addresses are divided.
    pub verp_delimiters: DelimitersText,
    /// Connections.
    pub limits: Limits,
}

/// The certificates for STARTTLS, if there are any.
pub fn load_certificates(files: &[CertFiles]) -> Result<Option<ServerTls>, postroad_net::Error> {
    match files {
        [] => Ok(None),
        files => ServerTls::load(files).map(Some),
    }
}

impl Default for InboundConfig {
    fn default() -> Self {
        let everywhere = SocketAddr::from((Ipv6Addr::UNSPECIFIED, 25));
        Self {
            enabled: true,
            listeners: BTreeMap::from([("smtp".to_owned(), ListenAddr(everywhere).into())]),
            certificates: Vec::new(),
            size_limit: ByteSize::mib(50),
            max_recipients: 1000,
            relay_networks: Networks::default(),
            proxy_networks: Networks::default(),
            xforward_networks: Networks::default(),
            xclient_networks: Networks::default(),
            rdns_timeout: Interval::seconds(2),
            queue_timeout: Interval::seconds(30),
            max_hops: 100,
            greeting_delay: Interval::seconds(0),
            min_rate: ByteSize::bytes(100),
            per_connection: PerConnection::default(),
            deliver_by: DeliverByKeys::default(),
            timeouts: Timeouts::default(),
            bounce_key_file: None,
            bounces_only_signed: Vec::new(),
            verp_senders: Vec::new(),
            verp_delimiters: DelimitersText::default(),
            limits: Limits::default(),
        }
    }
}
