//! Log-ins by tickets of Kerberos (GSSAPI, RFC 4752).

use std::sync::Arc;

use postroad_address::Domain;
use postroad_directory::AuthGate;
use postroad_gssapi::{GssapiConfig, Service, names_itself};
use postroad_metrics::{Counter, Metrics, list};
use postroad_sasl::{ContextAnswer, ContextCall, ContextFault, Credentials, SecurityContext};
use postroad_smtpd::ClientFacts;
use tracing::{error, info};

use crate::policy::wrong;
use crate::vouched::Vouched;

/// What lets in by a ticket.
pub struct Tickets {
    config: GssapiConfig,
    service: Arc<Service>,
    refused: Counter,
}

/// What came of a call to the library.
pub enum Called {
    /// The context goes on.
    Answered(Box<dyn SecurityContext>, ContextAnswer),
    /// The ticket or what was said under it is not good.
    Refused,
    /// There is no key to read tickets by.
    Away,
    /// Too many others are logging in.
    Busy,
}

impl Tickets {
    /// By this configuration, at this host.
    pub fn new(config: &GssapiConfig, host: &Domain, metrics: &Metrics) -> Self {
        Self {
            config: config.clone(),
            service: Arc::new(Service::new(config, host)),
            refused: metrics.counter(&list::GSSAPI_REFUSED, &[]),
        }
    }

    /// Calls a context, or begins one, on a blocking thread.
    pub async fn call(
        &self,
        gate: &AuthGate,
        client: &ClientFacts,
        held: Option<Box<dyn SecurityContext>>,
        call: ContextCall,
    ) -> Called {
        let service = Arc::clone(&self.service);
        let called = gate.run(move || {
            let mut context = match held {
                Some(context) => context,
                None => service.begin().map_err(Unusable::Key)?,
            };
            let answer = context.call(&call).map_err(Unusable::Ticket)?;
            Ok((context, answer))
        });
        match called.await {
            None => Called::Busy,
            Some(Ok((context, answer))) => Called::Answered(context, answer),
            Some(Err(Unusable::Ticket(fault))) => {
                self.refuse(client, None, &fault.0);
                Called::Refused
            }
            Some(Err(Unusable::Key(fault))) => {
                error!(event = "fault", task = "gssapi", error = %fault);
                Called::Away
            }
        }
    }

    /// Whom the principal of a ticket is.
    pub fn whose(&self, client: &ClientFacts, principal: &str) -> Vouched {
        match self.config.account_of(principal) {
            Ok(account) => Vouched::For(account.folded()),
            Err(why) => {
                self.refuse(client, Some(principal), &why.to_string());
                Vouched::ForNobody(wrong())
            }
        }
    }

    fn refuse(&self, client: &ClientFacts, principal: Option<&str>, reason: &str) {
        self.refused.count();
        info!(
            event = "ticket_refused",
            session_id = client.session_id,
            listener = client.listener,
            peer = %client.peer,
            principal,
            reason,
        );
    }
}

/// What of a context cannot be used.
enum Unusable {
    Key(ContextFault),
    Ticket(ContextFault),
}

/// Without what a client wants to act as, where that is its own principal under another name (RFC 4752 §3.1 leaves the form open).
pub fn as_itself(credentials: &Credentials) -> Credentials {
    let principal = &credentials.authcid;
    let authzid = credentials.authzid.clone();
    Credentials {
        authzid: authzid.filter(|wanted| !names_itself(principal, wanted)),
        ..credentials.clone()
    }
}
