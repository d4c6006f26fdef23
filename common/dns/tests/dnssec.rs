//! DNSSEC as it is validated here: a name server on loopback that signs all it says, with the root zone as the only zone.

use std::net::SocketAddr;
use std::str::FromStr as _;
use std::sync::Arc;
use std::time::Duration;

use hickory_resolver::proto::dnssec::crypto::EcdsaSigningKey;
use hickory_resolver::proto::dnssec::rdata::{DNSKEY, DNSSECRData, NSEC, RRSIG};
use hickory_resolver::proto::dnssec::{Algorithm, DnssecSigner, SigningKey as _};
use hickory_resolver::proto::op::{Message, OpCode, ResponseCode};
use hickory_resolver::proto::rr::rdata::tlsa::{CertUsage, Matching, Selector};
use hickory_resolver::proto::rr::rdata::{A, MX, SOA, TLSA};
use hickory_resolver::proto::rr::{DNSClass, Name, RData, Record, RecordSet, RecordType};
use postroad_address::Domain;
use postroad_dns::{HostName, Resolver, ResolverOptions};
use tokio::net::UdpSocket;
use tokio::task::JoinHandle;

const DAY: Duration = Duration::from_secs(86_400);

/// All that there is; what lies below `bogus.` has signatures that do not fit.
struct Zone {
    records: Vec<Record>,
    signer: DnssecSigner,
}

struct Server {
    address: SocketAddr,
    /// The key as a file of anchors has it.
    anchor: String,
    task: JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn name(text: &str) -> Name {
    Name::from_str(text).unwrap()
}

fn record(owner: &str, data: RData) -> Record {
    Record::from_rdata(name(owner), 300, data)
}

fn zone() -> Zone {
    let algorithm = Algorithm::ECDSAP256SHA256;
    let pkcs8 = EcdsaSigningKey::generate_pkcs8(algorithm).unwrap();
    let key = EcdsaSigningKey::from_pkcs8(&pkcs8, algorithm).unwrap();
    let dnskey = DNSKEY::from_key(&key.to_public_key().unwrap());
    let mx = |host: &str| RData::MX(MX::new(10, name(host)));
    let a = RData::A(A::new(192, 0, 2, 1));
    let tlsa = RData::TLSA(TLSA::new(
        CertUsage::DaneEe,
        Selector::Spki,
        Matching::Sha256,
        vec![7; 32],
    ));
    let soa = SOA::new(name("ns."), name("root."), 1, 3600, 600, 86_400, 300);
    let records = vec![
        record(".", RData::SOA(soa)),
        record(".", RData::DNSSEC(DNSSECRData::DNSKEY(dnskey.clone()))),
        record("good.", mx("mx.good.")),
        record("mx.good.", a.clone()),
        record("_25._tcp.mx.good.", tlsa.clone()),
        record("bogus.", mx("mx.bogus.")),
        record("mx.bogus.", a),
        record("_25._tcp.mx.bogus.", tlsa),
    ];
    Zone {
        records,
        signer: DnssecSigner::new(dnskey, Box::new(key), Name::root(), DAY),
    }
}

impl Zone {
    fn answer(&self, question: &[u8]) -> Option<Message> {
        let question = Message::from_vec(question).ok()?;
        let query = question.queries.first()?.clone();
        let mut message = Message::response(question.metadata.id, OpCode::Query);
        message.metadata.recursion_desired = true;
        message.metadata.recursion_available = true;
        message.metadata.response_code = ResponseCode::NoError;
        let asked = query.name().to_lowercase();
        let found = self.of(&asked, query.query_type());
        if found.is_empty() {
            // RFC 4470: the name is there, and has no such records.
            let soa = self.of(&Name::root(), RecordType::SOA);
            let next = Name::from_labels([[0_u8].as_slice()]).unwrap();
            let next = next.append_domain(&asked).unwrap();
            let kinds = self.records.iter().filter(|record| record.name == asked);
            let kinds: Vec<_> = kinds.map(Record::record_type).collect();
            let nsec = RData::DNSSEC(DNSSECRData::NSEC(NSEC::new_cover_self(next, kinds)));
            let nsec = vec![Record::from_rdata(asked, 300, nsec)];
            for set in [soa, nsec] {
                let signature = self.signature(&set);
                set.into_iter().chain([signature]).for_each(|record| {
                    message.add_authority(record);
                });
            }
        } else {
            let signature = self.signature(&found);
            found.into_iter().chain([signature]).for_each(|record| {
                message.add_answer(record);
            });
        }
        message.add_query(query);
        Some(message)
    }

    fn of(&self, owner: &Name, kind: RecordType) -> Vec<Record> {
        let fits = |record: &&Record| record.name == *owner && record.record_type() == kind;
        self.records.iter().filter(fits).cloned().collect()
    }

    fn signature(&self, records: &[Record]) -> Record {
        let owner = &records[0].name;
        let mut set = RecordSet::with_ttl(owner.clone(), records[0].record_type(), 300);
        for record in records {
            set.insert(record.clone(), 1);
        }
        let now = time::OffsetDateTime::now_utc() - Duration::from_secs(3600);
        let good = RRSIG::from_rrset(&set, DNSClass::IN, now, &self.signer).unwrap();
        let signature = match owner.to_string().ends_with("bogus.") {
            true => RRSIG::from_sig(good.input().clone(), vec![1; 64]),
            false => good,
        };
        let data = RData::DNSSEC(DNSSECRData::RRSIG(signature));
        Record::from_rdata(owner.clone(), 300, data)
    }
}

async fn start() -> Server {
    let zone = Arc::new(zone());
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    let dnskey = &zone.of(&Name::root(), RecordType::DNSKEY)[0];
    let anchor = format!(". 300 IN DNSKEY {}\n", dnskey.data);
    let task = tokio::spawn(async move {
        let mut buffer = [0; 4096];
        loop {
            let Ok((length, peer)) = socket.recv_from(&mut buffer).await else {
                continue;
            };
            if let Some(answer) = zone.answer(&buffer[..length]) {
                let _ = socket.send_to(&answer.to_vec().unwrap(), peer).await;
            }
        }
    });
    Server {
        address,
        anchor,
        task,
    }
}

fn resolver(server: &Server, anchors: Option<&str>) -> Arc<dyn Resolver> {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), anchors.unwrap_or(&server.anchor)).unwrap();
    let options = ResolverOptions {
        servers: vec![server.address],
        timeout: Duration::from_secs(5),
        dnssec: true,
        trust_anchors: Some(file.path().into()),
        ..ResolverOptions::default()
    };
    options.open().unwrap()
}

fn host(text: &str) -> HostName {
    HostName::parse(text).unwrap()
}

#[tokio::test]
async fn what_is_signed_well_is_vouched_for() {
    let server = start().await;
    let resolver = resolver(&server, None);
    let domain = Domain::parse("good").unwrap();
    let hosts = resolver.mail_hosts(&domain).await.unwrap();
    assert!(hosts.authenticated && !hosts.implicit);
    let addresses = resolver.addresses(&host("mx.good")).await.unwrap();
    assert!(addresses.authenticated);
    // The second time from the cache.
    for _ in 0..2 {
        let tlsa = resolver.tlsa(&host("mx.good"), 25).await.unwrap();
        assert!(tlsa.authenticated);
        assert!(tlsa.records[0].to_string().starts_with("3 1 1 0707"));
    }
    let none = resolver.tlsa(&host("mx.good"), 26).await.unwrap_err();
    assert!(!none.is_temporary(), "{none}");
}

#[tokio::test]
async fn what_is_signed_wrongly_is_no_answer() {
    let server = start().await;
    let resolver = resolver(&server, None);
    let domain = Domain::parse("bogus").unwrap();
    let error = resolver.mail_hosts(&domain).await.unwrap_err();
    assert!(error.is_temporary(), "{error}");
    assert!(error.to_string().contains("DNSSEC"), "{error}");
    for port in [25, 26] {
        let error = resolver.tlsa(&host("mx.bogus"), port).await.unwrap_err();
        assert!(error.is_temporary(), "{error}");
    }
}

#[tokio::test]
async fn another_key_vouches_for_nothing() {
    let (server, other) = (start().await, start().await);
    let resolver = resolver(&server, Some(&other.anchor));
    let found = resolver.tlsa(&host("mx.good"), 25).await;
    assert!(found.is_err_and(|error| error.is_temporary()));
}

#[test]
fn a_file_that_holds_no_keys_is_named() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "nonsense\n").unwrap();
    let options = ResolverOptions {
        servers: vec!["127.0.0.1:9".parse().unwrap()],
        dnssec: true,
        trust_anchors: Some(file.path().into()),
        ..ResolverOptions::default()
    };
    let error = options.open().err().unwrap().to_string();
    assert!(
        error.contains("trust_anchors") && error.contains("DNSKEY"),
        "{error}"
    );
}
