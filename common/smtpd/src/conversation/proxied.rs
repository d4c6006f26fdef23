//! XCLIENT: from now on the client is the one that a listed proxy speaks for, with the rights of that client and none of the proxy's.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use postroad_metrics::labels::Login;
use postroad_net::{Peer, PeerCertificate};
use postroad_reply::{POLICY_4_7_0, Reply, SERVICE_NOT_AVAILABLE_421};
use postroad_sasl::{Identity, Mechanism};
use postroad_smtp::{Told, XClient};
use postroad_smtp_session::PolicyReply;
use tracing::info;

use super::Conversation;
use crate::{AuthDecision, facts::Proxied};

impl Conversation<'_> {
    pub(super) async fn xclient(&mut self, told: &XClient) {
        self.become_client(told);
        let (client, by) = (
            &self.client,
            self.client.proxied.as_ref().map(|told| told.by),
        );
        info!(
            event = "client_told",
            session_id = client.session_id,
            listener = client.listener,
            peer = %client.peer,
            proxy = by.map(tracing::field::display),
            client_name = client.rdns,
            helo = client.helo(),
        );
        let (answer, identity) = match self.place.is_of(self.client.peer.ip()) {
            true => self.welcome(told).await,
            false => (PolicyReply::Close(too_many()), None),
        };
        if let PolicyReply::Refuse(reply) | PolicyReply::Close(reply) = &answer {
            self.log_early(reply);
        }
        self.client.identity.clone_from(&identity);
        let session = Arc::clone(self.smtpd.session_of(self.client.peer, true));
        self.session.speaks_for(session, identity);
        let limit = self.smtpd.policy.size_limit(&self.client);
        self.session.set_size_limit(limit);
        self.session.answer(answer);
    }

    /// What was not told is not known, and never what is known of the proxy.
    fn become_client(&mut self, told: &XClient) {
        self.mail = None;
        let client = &mut self.client;
        (
            client.hello,
            client.identity,
            client.forwarded,
            client.known,
        ) = (None, None, None, None);
        if client.proxied.is_none() {
            let nobody = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
            let by = std::mem::replace(&mut client.peer, Peer::new(nobody));
            client.rdns = None;
            client.proxied = Some(Proxied {
                by,
                helo: None,
                protocol: None,
            });
        }
        let before = client.peer.addr().map_or(0, |addr| addr.port());
        let ip = match told.addr {
            None => client.peer.ip(),
            Some(Told::Value(addr)) => addr,
            Some(Told::Unavailable) => Ipv4Addr::UNSPECIFIED.into(),
        };
        let port = match told.port {
            None => before,
            Some(Told::Value(port)) => port,
            Some(Told::Unavailable) => 0,
        };
        client.peer = Peer::new((ip, port).into());
        learn(&mut client.rdns, told.name.as_ref());
        if let Some(proxied) = &mut client.proxied {
            learn(&mut proxied.helo, told.helo.as_ref());
            learn(&mut proxied.protocol, told.proto.as_ref());
        }
        client.certificate = PeerCertificate::Absent;
        self.unverify_proxied();
    }

    /// The name for which the certificate of a connection was verified is its peer's.
    pub(super) fn unverify_proxied(&mut self) {
        if let (Some(tls), Some(_)) = (&mut self.client.tls, &self.client.proxied) {
            tls.verified = None;
        }
    }

    async fn welcome(&mut self, told: &XClient) -> (PolicyReply, Option<Identity>) {
        let policy = &self.smtpd.policy;
        let answer = policy.connect(&self.client).await;
        let refused = matches!(answer, PolicyReply::Refuse(_) | PolicyReply::Close(_));
        let Some(login) = told.account().filter(|_| !refused) else {
            return (answer, None);
        };
        match policy.vouched(&self.client, login).await {
            AuthDecision::Accept { account } => {
                self.smtpd.counts.login(Login::Succeeded);
                let mechanism = Mechanism::External;
                info!(
                    event = "auth_succeeded",
                    session_id = self.client.session_id,
                    listener = self.client.listener,
                    peer = %self.client.peer,
                    account,
                    mechanism = %mechanism,
                );
                (answer, Some(Identity { account, mechanism }))
            }
            AuthDecision::Refuse(reply) => {
                self.log_auth_failed(login, Mechanism::External.as_str(), &reply);
                (PolicyReply::Refuse(reply), None)
            }
            AuthDecision::Close(reply) => {
                self.log_auth_failed(login, Mechanism::External.as_str(), &reply);
                (PolicyReply::Close(reply), None)
            }
        }
    }
}

fn learn<T: Clone>(known: &mut Option<T>, told: Option<&Told<T>>) {
    match told {
        Some(Told::Value(value)) => *known = Some(value.clone()),
        Some(Told::Unavailable) => *known = None,
        None => {}
    }
}

fn too_many() -> Reply {
    let text = "too many connections from your network, please try again later";
    Reply::new(SERVICE_NOT_AVAILABLE_421, POLICY_4_7_0, text)
}
