//! A name server that others wrote: what it says is understood, and a change in it counts after the TTL.

use std::net::{TcpListener, UdpSocket};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use postroad_address::Domain;
use postroad_dns::{DnsError, HostName, Resolver, ResolverOptions};

const PATIENCE: Duration = Duration::from_secs(30);

struct Dnsmasq {
    port: u16,
    child: Child,
}

impl Dnsmasq {
    /// None: it is not on this machine.
    fn start(port: u16, options: &[&str]) -> Option<Self> {
        let fixed = "--keep-in-foreground --conf-file=/dev/null --pid-file= --user= --no-resolv --no-hosts \
             --listen-address=127.0.0.1 --bind-interfaces --local=/test/ --local-ttl=2";
        let mut command = Command::new("dnsmasq");
        // Servers lie outside of the path of plain users.
        let path = std::env::var("PATH").unwrap_or_default();
        command.env("PATH", format!("{path}:/usr/local/sbin:/usr/sbin:/sbin"));
        command.args(fixed.split_whitespace()).args(options);
        command.arg(format!("--port={port}"));
        let quiet = command.stdout(Stdio::null()).stderr(Stdio::null());
        match quiet.spawn() {
            Ok(child) => Some(Self { port, child }),
            Err(error) => {
                let strict = std::env::var("CI").is_ok_and(|value| value == "true");
                assert!(
                    !strict,
                    "the Debian package dnsmasq-base is needed: {error}"
                );
                None
            }
        }
    }

    fn resolver(&self) -> Arc<dyn Resolver> {
        let options = ResolverOptions {
            servers: vec![([127, 0, 0, 1], self.port).into()],
            ..ResolverOptions::default()
        };
        options.open().unwrap()
    }
}

impl Drop for Dnsmasq {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn free_port() -> u16 {
    loop {
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = udp.local_addr().unwrap();
        if TcpListener::bind(address).is_ok() {
            return address.port();
        }
    }
}

async fn hosts(resolver: &dyn Resolver, domain: &str) -> Result<Vec<String>, DnsError> {
    let found = resolver.mail_hosts(&Domain::parse(domain).unwrap()).await?;
    let names = found.hosts.iter().map(|host| host.name.to_string());
    Ok(names.collect())
}

/// Asks until it is so.
async fn until(resolver: &dyn Resolver, domain: &str, expected: &str) {
    let asked = Instant::now();
    loop {
        let said = hosts(resolver, domain).await;
        if said.as_ref().is_ok_and(|hosts| hosts == &[expected]) {
            return;
        }
        assert!(asked.elapsed() < PATIENCE, "{said:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn what_dnsmasq_says_is_understood_and_its_change_counts_after_the_ttl() {
    let port = free_port();
    let zone = [
        "--mx-host=a.test,old.test,10",
        "--host-record=old.test,192.0.2.1",
        "--host-record=both.test,192.0.2.2,2001:db8::2",
        "--cname=alias.test,both.test",
    ];
    let Some(dnsmasq) = Dnsmasq::start(port, &zone) else {
        return;
    };
    let resolver = dnsmasq.resolver();
    until(&*resolver, "a.test", "old.test").await;
    resolver.forget();
    let remembered = Instant::now();
    until(&*resolver, "a.test", "old.test").await;
    let of = async |name: &str| {
        let found = resolver.addresses(&HostName::parse(name).unwrap()).await;
        found.map(|answer| {
            answer
                .records
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>()
        })
    };
    assert_eq!(of("old.test").await.unwrap(), ["192.0.2.1"]);
    for name in ["both.test", "alias.test"] {
        assert_eq!(of(name).await.unwrap(), ["2001:db8::2", "192.0.2.2"]);
        assert_eq!(hosts(&*resolver, name).await.unwrap(), [name]);
    }
    let missing = hosts(&*resolver, "missing.test").await.unwrap_err();
    assert!(
        matches!(missing, DnsError::NoSuchDomain { .. }),
        "{missing}"
    );

    drop(dnsmasq);
    let _other = Dnsmasq::start(port, &["--mx-host=a.test,new.test,10"]).unwrap();
    until(&*resolver, "a.test", "new.test").await;
    let after = remembered.elapsed();
    assert!(after >= Duration::from_secs(2), "{after:?}");
}
