//! The service that tickets are for.

use postroad_address::Domain;
use postroad_sasl::{ContextFault, SecurityContext};

use crate::GssapiConfig;

/// A service by its name, and its key once that was looked for.
#[derive(Debug)]
pub struct Service {
    name: String,
    #[cfg(feature = "gssapi")]
    key: std::sync::OnceLock<crate::acceptor::Key>,
}

impl Service {
    /// By its configuration, or the name of this host.
    pub fn new(config: &GssapiConfig, host: &Domain) -> Self {
        let host = config.hostname.as_deref().unwrap_or(host.a_label());
        Self {
            name: format!("{}@{host}", config.service),
            #[cfg(feature = "gssapi")]
            key: std::sync::OnceLock::new(),
        }
    }

    /// As RFC 2743 §4.1 writes it: `smtp@mail.example.org`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A context for a client that begins. Blocks.
    ///
    /// # Errors
    ///
    /// There is no key, so that no ticket could be read; that is ours to mend.
    #[cfg(feature = "gssapi")]
    pub fn begin(&self) -> Result<Box<dyn SecurityContext>, ContextFault> {
        let key = match self.key.get() {
            Some(key) => key.clone(),
            None => {
                let key = crate::acceptor::Key::acquire(&self.name)?;
                self.key.get_or_init(|| key).clone()
            }
        };
        Ok(Box::new(crate::acceptor::Acceptor::new(key)))
    }

    /// As above; this build can do nothing.
    ///
    /// # Errors
    ///
    /// Always.
    #[cfg(not(feature = "gssapi"))]
    pub fn begin(&self) -> Result<Box<dyn SecurityContext>, ContextFault> {
        Err(ContextFault("this build has no GSSAPI".to_owned()))
    }
}
