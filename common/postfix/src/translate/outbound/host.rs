//! A host that is named, and how it is spoken to.

use crate::output::{list, quoted};

/// One of `mta.outbound.hosts`.
pub struct Host {
    pub name: String,
    pub tls: Option<&'static str>,
    pub names: Vec<String>,
    pub authorities: Option<String>,
    pub log_in: Option<(String, String)>,
    /// Certificate and key.
    pub own: Option<(String, String)>,
    pub implicit: bool,
    pub from: String,
}

impl Host {
    /// `[host]:port`, `[host]`, `host:port`, `domain`.
    pub fn new(key: &str, from: &str) -> Self {
        let (host, port) = match key.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            Some((host, rest)) => (host, rest.strip_prefix(':')),
            None => match key.rsplit_once(':') {
                Some((host, port)) if !host.contains(':') => (host, Some(port)),
                _ => (key, None),
            },
        };
        let port = port.and_then(super::super::listeners::port_number);
        let name = match (host.contains(':'), port) {
            (true, Some(port)) => format!("[{host}]:{port}"),
            (false, Some(port)) => format!("{host}:{port}"),
            (_, None) => host.to_owned(),
        };
        Self {
            name,
            tls: None,
            names: Vec::new(),
            authorities: None,
            log_in: None,
            own: None,
            implicit: false,
            from: from.to_owned(),
        }
    }

    pub fn shown(&self) -> String {
        let mut shown = format!("{{ host = {}", quoted(&self.name));
        if let Some(tls) = self.tls {
            shown += &format!(", tls = {}", quoted(tls));
        }
        if self.implicit {
            shown += ", implicit_tls = true";
        }
        if !self.names.is_empty() {
            shown += &format!(
                ", tls_names = {}",
                list(self.names.iter().map(|one| quoted(one)))
            );
        }
        if let Some(file) = &self.authorities {
            shown += &format!(", ca_file = {}", quoted(file));
        }
        if let Some((cert, key)) = &self.own {
            let (cert, key) = (quoted(cert), quoted(key));
            shown += &format!(", cert_file = {cert}, key_file = {key}");
        }
        if let Some((user, file)) = &self.log_in {
            shown += &format!(
                ", user = {}, password_file = {}",
                quoted(user),
                quoted(file)
            );
        }
        shown + " }"
    }
}
