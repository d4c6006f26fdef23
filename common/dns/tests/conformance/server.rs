//! A name server on loopback, over UDP and TCP, that answers from the lines of a zone.

use std::net::SocketAddr;
use std::str::FromStr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, RwLock};

use hickory_resolver::proto::op::{Message, OpCode, ResponseCode};
use hickory_resolver::proto::rr::rdata::{A, AAAA, CNAME, MX, NS, PTR, SOA, TXT};
use hickory_resolver::proto::rr::{Name, RData, Record, RecordType};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::task::JoinSet;

/// An answer longer than this is cut off over UDP.
const UDP_LIMIT: usize = 1000;
const MAX_ALIASES: usize = 8;

pub struct Server {
    address: SocketAddr,
    data: Arc<Data>,
    /// Aborted when the server is dropped.
    _tasks: JoinSet<()>,
}

impl Server {
    pub async fn start(zone: &str) -> Self {
        // The port must be free for both transports; another process may hold one of a pair.
        let (udp, tcp) = loop {
            let udp = UdpSocket::bind("127.0.0.1:0").await.unwrap();
            if let Ok(tcp) = TcpListener::bind(udp.local_addr().unwrap()).await {
                break (udp, tcp);
            }
        };
        let address = udp.local_addr().unwrap();
        let data = Arc::new(Data::read(zone));
        let mut tasks = JoinSet::new();
        tasks.spawn(serve_udp(udp, data.clone()));
        tasks.spawn(serve_tcp(tcp, data.clone()));
        Self {
            address,
            data,
            _tasks: tasks,
        }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// From now on it answers from another zone.
    pub fn serve(&self, zone: &str) {
        *self.data.zone.write().unwrap() = Zone::read(zone);
    }

    pub fn over_udp(&self) -> usize {
        self.data.over_udp.load(Ordering::SeqCst)
    }

    pub fn over_tcp(&self) -> usize {
        self.data.over_tcp.load(Ordering::SeqCst)
    }
}

struct Data {
    zone: RwLock<Zone>,
    over_udp: AtomicUsize,
    over_tcp: AtomicUsize,
}

#[derive(Default)]
struct Zone {
    records: Vec<Record>,
    broken: Vec<Name>,
    /// For one type alone.
    broken_types: Vec<(Name, RecordType)>,
    silent: Vec<Name>,
    /// Of what is not there (RFC 2308); without it nothing says for how long.
    soa: Option<Record>,
}

async fn serve_udp(socket: UdpSocket, data: Arc<Data>) {
    let mut buffer = [0; 4096];
    loop {
        let Ok((length, peer)) = socket.recv_from(&mut buffer).await else {
            continue;
        };
        data.over_udp.fetch_add(1, Ordering::SeqCst);
        let Some(mut answer) = data.answer(&buffer[..length]) else {
            continue;
        };
        if answer.to_vec().unwrap().len() > UDP_LIMIT {
            answer.answers.clear();
            answer.metadata.truncation = true;
        }
        let _ = socket.send_to(&answer.to_vec().unwrap(), peer).await;
    }
}

async fn serve_tcp(listener: TcpListener, data: Arc<Data>) {
    while let Ok((mut stream, _)) = listener.accept().await {
        while let Some(answer) = read_tcp(&mut stream, &data).await {
            let bytes = answer.to_vec().unwrap();
            stream
                .write_u16(bytes.len().try_into().unwrap())
                .await
                .unwrap();
            stream.write_all(&bytes).await.unwrap();
        }
    }
}

async fn read_tcp(stream: &mut TcpStream, data: &Data) -> Option<Message> {
    let length = stream.read_u16().await.ok()?;
    let mut question = vec![0; length.into()];
    stream.read_exact(&mut question).await.ok()?;
    data.over_tcp.fetch_add(1, Ordering::SeqCst);
    data.answer(&question)
}

impl Data {
    fn read(zone: &str) -> Self {
        Self {
            zone: RwLock::new(Zone::read(zone)),
            over_udp: AtomicUsize::new(0),
            over_tcp: AtomicUsize::new(0),
        }
    }

    fn answer(&self, question: &[u8]) -> Option<Message> {
        self.zone.read().unwrap().answer(question)
    }
}

impl Zone {
    /// A number after the name is the TTL of the record.
    fn read(zone: &str) -> Self {
        let mut data = Self::default();
        for line in zone.lines() {
            let mut words: Vec<&str> = line.split_whitespace().collect();
            let name = Name::from_str(words.remove(0)).unwrap();
            let ttl = match words[0].parse() {
                Ok(ttl) => {
                    words.remove(0);
                    ttl
                }
                Err(_) => 300,
            };
            let rdata = match words[..] {
                ["A", ip] => RData::A(A(ip.parse().unwrap())),
                ["AAAA", ip] => RData::AAAA(AAAA(ip.parse().unwrap())),
                ["MX", preference, host] => RData::MX(MX::new(
                    preference.parse().unwrap(),
                    Name::from_str(host).unwrap(),
                )),
                ["CNAME", target] => RData::CNAME(CNAME(Name::from_str(target).unwrap())),
                ["NS", target] => RData::NS(NS(Name::from_str(target).unwrap())),
                ["PTR", target] => RData::PTR(PTR(Name::from_str(target).unwrap())),
                // In halves, as one record may come in several strings.
                ["TXT", text] => {
                    let (a, b) = text.split_at(text.len() / 2);
                    RData::TXT(TXT::new(vec![a.to_owned(), b.to_owned()]))
                }
                ["SERVFAIL"] => {
                    data.broken.push(name);
                    continue;
                }
                ["SERVFAIL", kind] => {
                    data.broken_types
                        .push((name, RecordType::from_str(kind).unwrap()));
                    continue;
                }
                ["SOA"] => {
                    let soa = SOA::new(name.clone(), name.clone(), 1, 1, 1, 1, ttl);
                    data.soa = Some(Record::from_rdata(name, ttl, RData::SOA(soa)));
                    continue;
                }
                ["TIMEOUT"] => {
                    data.silent.push(name);
                    continue;
                }
                _ => panic!("the test's zone has a line this server does not know: {line}"),
            };
            data.records.push(Record::from_rdata(name, ttl, rdata));
        }
        data
    }

    fn answer(&self, question: &[u8]) -> Option<Message> {
        let question = Message::from_vec(question).ok()?;
        let query = question.queries.first()?.clone();
        let mut name = query.name().to_lowercase();
        if self.silent.contains(&name) {
            return None;
        }
        let mut message = Message::response(question.metadata.id, OpCode::Query);
        message.metadata.recursion_desired = true;
        message.metadata.recursion_available = true;
        message.metadata.authentic_data = name.to_string().starts_with("signed.");
        let known = self.records.iter().any(|record| record.name == name);
        message.metadata.response_code = match () {
            () if self.broken.contains(&name) => ResponseCode::ServFail,
            () if self
                .broken_types
                .contains(&(name.clone(), query.query_type())) =>
            {
                ResponseCode::ServFail
            }
            () if known => ResponseCode::NoError,
            () => ResponseCode::NXDomain,
        };
        // As a resolver does it; where an alias leads out of the zone, or in a circle, it gives what it has.
        for _ in 0..MAX_ALIASES {
            let Some(record) = self.of(&name, RecordType::CNAME).pop() else {
                break;
            };
            if let RData::CNAME(CNAME(target)) = &record.data {
                name = target.to_lowercase();
            }
            message.add_answer(record);
        }
        for record in self.of(&name, RecordType::NS) {
            message.add_authority(record);
        }
        for record in self.of(&name, query.query_type()) {
            message.add_answer(record);
        }
        let found = message.answers.iter();
        if !found
            .clone()
            .any(|record| record.record_type() == query.query_type())
            && let Some(soa) = &self.soa
        {
            message.add_authority(soa.clone());
        }
        message.add_query(query);
        Some(message)
    }

    fn of(&self, name: &Name, kind: RecordType) -> Vec<Record> {
        let matching = |r: &&Record| r.name == *name && r.record_type() == kind;
        self.records.iter().filter(matching).cloned().collect()
    }
}
