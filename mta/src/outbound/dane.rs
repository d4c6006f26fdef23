//! Asks the DNS what it says of a host's certificate (RFC 7672 §2.2).

use postroad_dns::{HostName, Resolver, Tlsa};
use postroad_net::{Dane, DaneRecord};

use super::security::DaneFacts;

/// What is published for `host` at `port`. `secure`: DNSSEC vouches for the way to the host's addresses; without that nothing
/// is asked at all, since servers of unsigned zones are known to fail at such questions. `names`: RFC 7672 §3.2.2.
pub async fn facts(
    resolver: &dyn Resolver,
    host: &str,
    port: u16,
    secure: bool,
    names: Vec<String>,
) -> DaneFacts {
    let Ok(host) = HostName::parse(host) else {
        return DaneFacts::Insecure;
    };
    if !secure {
        return DaneFacts::Insecure;
    }
    match resolver.tlsa(&host, port).await {
        Ok(answer) if !answer.authenticated => DaneFacts::Insecure,
        Ok(answer) => {
            let records: Vec<DaneRecord> = answer.records.into_iter().map(record).collect();
            Dane::new(&records, names).map_or(DaneFacts::Unusable, DaneFacts::Usable)
        }
        Err(error) if error.is_temporary() => DaneFacts::Failed(error.to_string()),
        Err(_) => DaneFacts::Absent,
    }
}

fn record(tlsa: Tlsa) -> DaneRecord {
    DaneRecord {
        usage: tlsa.usage,
        selector: tlsa.selector,
        matching: tlsa.matching,
        data: tlsa.data,
    }
}
