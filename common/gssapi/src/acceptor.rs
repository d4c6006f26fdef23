//! The library's part.

use libgssapi::context::{CtxFlags, SecurityContext as _, ServerCtx};
use libgssapi::credential::{Cred, CredUsage};
use libgssapi::error::Error;
use libgssapi::name::Name;
use libgssapi::oid::{GSS_MECH_KRB5, GSS_NT_HOSTBASED_SERVICE, OidSet};
use libgssapi::util::Buf;
use postroad_sasl::{ContextAnswer, ContextCall, ContextFault, SecurityContext};

/// The key of a service: where it is, for the library reads it each time.
#[derive(Debug, Clone)]
pub struct Key(Cred);

impl Key {
    /// Looks for it in the keytab.
    pub fn acquire(service: &str) -> Result<Self, ContextFault> {
        // Without a list SPNEGO and whatever else is installed would be taken too; RFC 4752 is about Kerberos V5.
        let only = OidSet::singleton(GSS_MECH_KRB5).map_err(fault)?;
        let name = Name::new(service.as_bytes(), Some(GSS_NT_HOSTBASED_SERVICE)).map_err(fault)?;
        let key = Cred::acquire(Some(&name), None, CredUsage::Accept, Some(&only));
        key.map(Self).map_err(fault)
    }
}

/// A context of one exchange.
#[derive(Debug)]
pub struct Acceptor(ServerCtx);

impl Acceptor {
    pub fn new(key: Key) -> Self {
        Self(ServerCtx::new(Some(key.0)))
    }

    fn accept(&mut self, token: &[u8]) -> Result<ContextAnswer, ContextFault> {
        // RFC 4752 §3.1 and §3.2: without channel bindings.
        let token = self.0.step(token, None).map_err(fault)?;
        let token = token.map(octets).unwrap_or_default();
        if !self.0.is_complete() {
            return Ok(ContextAnswer::Continue(token));
        }
        if self.0.mechanism().map_err(fault)? != GSS_MECH_KRB5 {
            return Err(ContextFault("it is not of Kerberos V5".to_owned()));
        }
        let flags = self.0.flags().map_err(fault)?;
        if flags.contains(CtxFlags::GSS_C_ANON_FLAG) {
            return Err(ContextFault("it is nobody's (anonymous)".to_owned()));
        }
        let name = self.0.source_name().map_err(fault)?;
        let name = octets(name.display_name().map_err(fault)?);
        let principal = String::from_utf8(name)
            .map_err(|_| ContextFault("its principal is not written in UTF-8".to_owned()))?;
        Ok(ContextAnswer::Complete { token, principal })
    }
}

impl SecurityContext for Acceptor {
    fn call(&mut self, call: &ContextCall) -> Result<ContextAnswer, ContextFault> {
        let made = match call {
            ContextCall::Begin(token) | ContextCall::Accept(token) => return self.accept(token),
            // RFC 4752 §3.2: not encrypted.
            ContextCall::Wrap(plain) => self.0.wrap(false, plain),
            ContextCall::Unwrap(wrapped) => self.0.unwrap(wrapped),
        };
        made.map(octets).map(ContextAnswer::Octets).map_err(fault)
    }
}

fn octets(buffer: Buf) -> Vec<u8> {
    buffer.to_vec()
}

/// In the words of the library, which are this thread's until its next call.
fn fault(error: Error) -> ContextFault {
    ContextFault(error.to_string())
}
