//! Why a process ends.

use std::error::Error;
use std::fmt;
use std::io;
use std::process::ExitCode;

use crate::config::ConfigError;

type Cause = Box<dyn Error + Send + Sync>;

/// Why a process could not do its work, by whose fault; the exit status follows (sysexits).
#[derive(Debug)]
pub enum DaemonError {
    /// A person must change the configuration: 78.
    Config(Cause),
    /// The surroundings must change - a busy port, a failing disk; a supervisor may try again: 75.
    Temporary(Cause),
    /// A fault of ours: 70.
    Software(Cause),
}

impl DaemonError {
    /// The configuration's fault.
    pub fn config(cause: impl Into<Cause>) -> Self {
        Self::Config(cause.into())
    }

    /// The surroundings' fault.
    pub fn temporary(cause: impl Into<Cause>) -> Self {
        Self::Temporary(cause.into())
    }

    /// Our fault.
    pub fn software(cause: impl Into<Cause>) -> Self {
        Self::Software(cause.into())
    }

    /// Why an address cannot be listened on, with the remedy.
    pub fn bind(address: impl fmt::Display, error: io::Error) -> Self {
        let say = |remedy| format!("cannot listen on {address}: {error}; {remedy}");
        match error.kind() {
            io::ErrorKind::AddrInUse => Self::temporary(say(
                "stop the process that has it, or configure another address",
            )),
            io::ErrorKind::PermissionDenied => Self::config(say(
                "grant CAP_NET_BIND_SERVICE for ports below 1024, or configure another address",
            )),
            io::ErrorKind::AddrNotAvailable => {
                Self::config(say("configure an address this host has"))
            }
            _ => Self::temporary(say("check the network of this host")),
        }
    }

    /// The status of the process: 78, 75 or 70.
    pub fn status(&self) -> u8 {
        match self {
            Self::Config(_) => 78,
            Self::Temporary(_) => 75,
            Self::Software(_) => 70,
        }
    }

    fn cause(&self) -> &Cause {
        match self {
            Self::Config(cause) | Self::Temporary(cause) | Self::Software(cause) => cause,
        }
    }
}

impl fmt::Display for DaemonError {
    /// The error and those of its causes it does not quote itself.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut said = self.cause().to_string();
        f.write_str(&said)?;
        let mut source = self.cause().source();
        while let Some(cause) = source {
            let text = cause.to_string();
            if !said.contains(&text) {
                write!(f, ": {text}")?;
                said.push_str(&text);
            }
            source = cause.source();
        }
        Ok(())
    }
}

impl Error for DaemonError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.cause().source()
    }
}

impl From<ConfigError> for DaemonError {
    fn from(error: ConfigError) -> Self {
        Self::config(error)
    }
}

impl From<&DaemonError> for ExitCode {
    fn from(error: &DaemonError) -> Self {
        Self::from(error.status())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_says_whose_fault_it_is() {
        let bind = |kind| DaemonError::bind("[::]:25", io::Error::from(kind)).status();
        assert_eq!(bind(io::ErrorKind::AddrInUse), 75);
        assert_eq!(bind(io::ErrorKind::PermissionDenied), 78);
        assert_eq!(bind(io::ErrorKind::AddrNotAvailable), 78);
        assert_eq!(DaemonError::software("x").status(), 70);
    }

    #[test]
    fn causes_are_told_once() {
        #[derive(Debug, thiserror::Error)]
        #[error("{said}")]
        struct Outer {
            said: &'static str,
            source: io::Error,
        }
        let told = |said| {
            let source = io::Error::other("the disk is gone");
            DaemonError::temporary(Outer { said, source }).to_string()
        };
        assert_eq!(told("cannot write"), "cannot write: the disk is gone");
        assert_eq!(
            told("cannot write: the disk is gone; buy one"),
            "cannot write: the disk is gone; buy one"
        );
    }
}
