use postroad_daemon::DaemonError;
use postroad_net::Error as NetError;

/// Why the submission agent cannot start. Once it runs, what goes wrong is a reply.
#[derive(Debug, thiserror::Error)]
pub enum MsaError {
    /// Configuration: passwords are taken under TLS only, and there is no certificate.
    #[error(
        "msa.certificates is empty, and passwords are taken under TLS only; name a certificate: certificates = [{{ cert_file = \"…\", key_file = \"…\" }}]"
    )]
    NoCertificate,
    /// Configuration: a certificate cannot be used.
    #[error("msa.certificates: {0}")]
    Tls(#[source] NetError),
    /// The surroundings or the configuration: a port cannot be had.
    #[error("msa.{listener}: {source}")]
    Listen {
        /// Its name.
        listener: String,
        /// Why.
        #[source]
        source: NetError,
    },
}

impl From<MsaError> for DaemonError {
    fn from(error: MsaError) -> Self {
        match error {
            MsaError::NoCertificate | MsaError::Tls(_) => Self::config(error),
            MsaError::Listen { .. } => Self::temporary(error),
        }
    }
}
