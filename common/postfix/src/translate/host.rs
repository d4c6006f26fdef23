//! Names: of the host, of its domain, of the sender of reports; certificates.

use super::Work;
use crate::{lines::words, output::quoted};

/// Where agents look for the files.
const HOME: &str = "/etc/postroad";

impl Work<'_> {
    pub(super) fn host(&mut self) {
        let file = |name: &str| {
            let (_, text) = self.files.text(name).ok()?;
            Some(text.lines().next()?.trim().to_owned())
        };
        let system = file("/etc/hostname");
        let origin = self.values.value("myorigin");
        // Debian: the first line of a file.
        let origin = match origin.strip_prefix('/').and_then(|_| file(&origin)) {
            Some(line) => line,
            None => origin,
        };
        if let (false, Some(name)) = (
            self.is_set("myhostname"),
            system.filter(|name| !name.is_empty()),
        ) {
            let dotted = name.contains('.') || !self.is_set("mydomain");
            let name = match dotted {
                true => name,
                false => format!("{name}.{}", self.values.value("mydomain")),
            };
            self.values.suppose("myhostname", &name);
        }
        let host = self.values.value("myhostname");
        if host.is_empty() {
            self.must("common.hostname: the name of the host is not in main.cf, and there is no file hostname in the folder; write it");
        } else {
            let from = self.from("myhostname");
            self.config.set("common", "hostname", quoted(&host), &from);
            self.became("myhostname", format!("common.hostname = {}", quoted(&host)));
            if !host.contains('.') {
                self.must(format!("common.hostname: {host} is not fully qualified; write the name that the address of this host resolves to"));
            }
        }
        if self.target != HOME {
            let directory = format!("{}/directory.toml", self.target);
            self.config.set(
                "common",
                "directory",
                quoted(&directory),
                "where it was written; leave it out once both lie in /etc/postroad",
            );
        }
        self.needless("mydomain", "it is used by other values, and told of there");
        self.origin(&host, origin.trim());
    }

    fn origin(&mut self, host: &str, origin: &str) {
        let is_file = origin.starts_with('/');
        if is_file {
            self.lost("myorigin", format!("{origin} is not there: write its first line as common.domain, the domain of the sender of reports"));
        } else if origin.is_empty() || origin == host {
            self.needless("myorigin", "reports come from common.hostname, as they did");
        } else {
            let from = self.from("myorigin");
            self.config.set("common", "domain", quoted(origin), &from);
            self.became("myorigin", format!("common.domain = {}", quoted(origin)));
        }
        if !is_file {
            self.values.force("myorigin", origin);
        }
    }

    /// Certificates of the servers: pairs of files.
    pub(super) fn certificates(&mut self) -> Vec<(String, String)> {
        let mut found: Vec<(String, String)> = Vec::new();
        let mut add = |pair: (String, String)| {
            if !found.contains(&pair) {
                found.push(pair);
            }
        };
        let overriding: Vec<_> = self
            .services
            .iter()
            .filter(|one| one.command == "smtpd")
            .collect();
        let each = overriding
            .into_iter()
            .map(|one| self.values.with(&one.options));
        for values in std::iter::once(self.values.clone()).chain(each) {
            let chain = values.value("smtpd_tls_chain_files");
            let chain = words(&chain);
            match chain.as_slice() {
                [] => {
                    for (cert, key) in [("cert", "key"), ("eccert", "eckey")] {
                        let cert = values.value(&format!("smtpd_tls_{cert}_file"));
                        let key = values.value(&format!("smtpd_tls_{key}_file"));
                        match (cert.as_str(), key.as_str()) {
                            ("" | "none", _) => {}
                            (cert, "") => add((cert.to_owned(), cert.to_owned())),
                            (cert, key) => add((cert.to_owned(), key.to_owned())),
                        }
                    }
                }
                [both] => add(((*both).to_owned(), (*both).to_owned())),
                files => {
                    // A key stands before its chain: in a file of its own, or in the same one.
                    for pair in files.chunks(2) {
                        match pair {
                            [key, cert] if looks_like_key(key) => {
                                add(((*cert).to_owned(), (*key).to_owned()))
                            }
                            all => all
                                .iter()
                                .for_each(|both| add(((*both).to_owned(), (*both).to_owned()))),
                        }
                    }
                }
            }
        }
        for row in self.rows("tls_server_sni_maps", false) {
            match words(&row.value).as_slice() {
                [both] => found.push(((*both).to_owned(), (*both).to_owned())),
                [key, cert, ..] => found.push(((*cert).to_owned(), (*key).to_owned())),
                [] => {}
            }
        }
        found.dedup();
        found
    }
}

fn looks_like_key(file: &str) -> bool {
    let name = file.rsplit('/').next().unwrap_or(file);
    name.contains("key") || name.contains("priv")
}
