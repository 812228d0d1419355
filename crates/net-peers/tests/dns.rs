//! `DnsResolver`, with a name server on the loopback interface.

use hickory_resolver::proto::op::{Message, MessageType, OpCode, ResponseCode};
use hickory_resolver::proto::rr::rdata::{A, AAAA, SRV};
use hickory_resolver::proto::rr::{Name, RData, Record, RecordType};
use net_peers::{DnsResolver, Endpoint, ResolveError, Resolver};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::net::UdpSocket;
use tokio::task::JoinHandle;

/// The records and failures of the name server.
#[derive(Default)]
struct Zone {
    records: HashMap<(String, RecordType), Vec<RData>>,
    /// The response code of all responses, if it is set.
    failure: Option<ResponseCode>,
    /// Queries of that type fail.
    broken: Option<RecordType>,
    queries: usize,
}

struct NameServer {
    zone: Arc<Mutex<Zone>>,
    address: SocketAddr,
    task: JoinHandle<()>,
}

impl Drop for NameServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Records expire immediately, so that each lookup sends a query.
const TTL: u32 = 0;

impl NameServer {
    async fn start() -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        let zone = Arc::new(Mutex::new(Zone::default()));
        let task = tokio::spawn(serve(socket, zone.clone()));
        Self { zone, address, task }
    }

    fn set(&self, name: &str, kind: RecordType, records: impl IntoIterator<Item = RData>) {
        let mut zone = self.zone.lock().unwrap();
        zone.records.insert((name.to_owned(), kind), records.into_iter().collect());
    }

    fn fail(&self, failure: Option<ResponseCode>) {
        self.zone.lock().unwrap().failure = failure;
    }

    fn addresses(&self, name: &str, port: u16) -> DnsResolver {
        self.configure(DnsResolver::addresses(name, port))
    }

    fn service(&self, name: &str) -> DnsResolver {
        self.configure(DnsResolver::service(name))
    }

    /// Configures a resolver to query this server without a pause.
    fn configure(&self, resolver: DnsResolver) -> DnsResolver {
        resolver.name_servers([self.address]).interval(Duration::ZERO, Duration::ZERO)
    }
}

async fn serve(socket: UdpSocket, zone: Arc<Mutex<Zone>>) {
    let mut buffer = [0; 4096];
    while let Ok((length, from)) = socket.recv_from(&mut buffer).await {
        let query = Message::from_vec(&buffer[..length]).unwrap();
        let question = query.queries[0].clone();
        let mut answer = Message::new(query.metadata.id, MessageType::Response, OpCode::Query);
        answer.add_query(question.clone());
        {
            let mut zone = zone.lock().unwrap();
            zone.queries += 1;
            let name = question.name().to_utf8();
            let records = zone.records.get(&(name.clone(), question.query_type()));
            let exists = zone.records.keys().any(|(known, _)| *known == name);
            answer.metadata.response_code = match zone.failure {
                Some(failure) => failure,
                None if zone.broken == Some(question.query_type()) => ResponseCode::ServFail,
                None if exists => ResponseCode::NoError,
                None => ResponseCode::NXDomain,
            };
            let is_answered = answer.metadata.response_code == ResponseCode::NoError;
            for data in records.filter(|_| is_answered).into_iter().flatten() {
                let record = Record::from_rdata(question.name().clone(), TTL, data.clone());
                answer.add_answer(record);
            }
        }
        socket.send_to(&answer.to_vec().unwrap(), from).await.unwrap();
    }
}

fn a(last: u8) -> RData {
    RData::A(A::new(10, 0, 0, last))
}

fn endpoints(addresses: &[&str]) -> Vec<Endpoint> {
    addresses.iter().map(|address| address.parse().unwrap()).collect()
}

async fn sorted(resolver: &mut DnsResolver) -> Vec<Endpoint> {
    let mut endpoints = resolver.resolve().await.unwrap();
    endpoints.sort();
    endpoints
}

#[tokio::test]
async fn addresses_of_both_families_are_returned_and_may_change() {
    let server = NameServer::start().await;
    let mut resolver = server.addresses("peers.test.", 4433);
    assert_eq!(sorted(&mut resolver).await, [], "the name does not exist yet");

    server.set("peers.test.", RecordType::A, [a(1), a(2)]);
    let aaaa = AAAA("2001:db8::1".parse().unwrap());
    server.set("peers.test.", RecordType::AAAA, [RData::AAAA(aaaa)]);
    let all = endpoints(&["10.0.0.1:4433", "10.0.0.2:4433", "[2001:db8::1]:4433"]);
    assert_eq!(sorted(&mut resolver).await, all);

    server.set("peers.test.", RecordType::A, [a(3)]);
    server.set("peers.test.", RecordType::AAAA, []);
    assert_eq!(sorted(&mut resolver).await, endpoints(&["10.0.0.3:4433"]));
    server.set("peers.test.", RecordType::A, []);
    assert_eq!(sorted(&mut resolver).await, [], "there are no records");
}

#[tokio::test]
async fn a_service_has_the_addresses_and_ports_of_its_targets() {
    let server = NameServer::start().await;
    let srv =
        |port, target: &str| RData::SRV(SRV::new(0, 0, port, Name::from_utf8(target).unwrap()));
    let mut resolver = server.service("_chat._udp.test.");
    assert_eq!(sorted(&mut resolver).await, []);

    let targets = [srv(1000, "one.test."), srv(2000, "two.test."), srv(3000, "gone.test.")];
    server.set("_chat._udp.test.", RecordType::SRV, targets);
    server.set("one.test.", RecordType::A, [a(1)]);
    server.set("two.test.", RecordType::A, [a(2), a(3)]);
    let all = endpoints(&["10.0.0.1:1000", "10.0.0.2:2000", "10.0.0.3:2000"]);
    assert_eq!(sorted(&mut resolver).await, all);

    server.set("_chat._udp.test.", RecordType::SRV, [srv(0, ".")]);
    assert_eq!(sorted(&mut resolver).await, [], "the service is not available");
}

#[tokio::test]
async fn a_failing_server_is_an_error_and_not_an_empty_list() {
    let server = NameServer::start().await;
    server.set("peers.test.", RecordType::A, [a(1)]);
    let mut resolver = server.addresses("peers.test.", 1);
    server.fail(Some(ResponseCode::ServFail));
    let error = resolver.resolve().await.unwrap_err();
    assert!(matches!(&error, ResolveError::Dns { name, .. } if name == "peers.test."), "{error:?}");
    assert!(std::error::Error::source(&error).is_some());
    server.fail(None);
    assert_eq!(sorted(&mut resolver).await, endpoints(&["10.0.0.1:1"]));
}

#[tokio::test]
async fn the_failure_of_one_family_is_an_error_only_without_other_addresses() {
    let server = NameServer::start().await;
    server.set("peers.test.", RecordType::A, [a(1)]);
    let mut resolver = server.addresses("peers.test.", 1);
    server.zone.lock().unwrap().broken = Some(RecordType::AAAA);
    assert_eq!(sorted(&mut resolver).await, endpoints(&["10.0.0.1:1"]));
    server.set("peers.test.", RecordType::A, []);
    resolver.resolve().await.unwrap_err();
    server.zone.lock().unwrap().broken = Some(RecordType::A);
    resolver.resolve().await.unwrap_err();
}

#[tokio::test]
async fn the_first_lookup_is_immediate_and_the_next_after_the_interval() {
    let server = NameServer::start().await;
    server.set("peers.test.", RecordType::A, [a(1)]);
    let hour = Duration::from_secs(3600);
    let mut resolver = server.addresses("peers.test.", 1).interval(hour, hour);
    resolver.resolve().await.unwrap();
    let asked = server.zone.lock().unwrap().queries;
    tokio::select! {
        biased;
        again = resolver.resolve() => panic!("{again:?}"),
        () = tokio::task::yield_now() => {}
    }
    assert_eq!(server.zone.lock().unwrap().queries, asked);
}
