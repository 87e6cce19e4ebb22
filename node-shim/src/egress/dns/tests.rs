use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::net::TcpListener;

use super::*;

type Replies = fn(&[u8], bool) -> Vec<Vec<u8>>;

const NXDOMAIN: u8 = 3;
const SERVFAIL: u8 = 2;

/// Starts a server. Returns a client of it, and the number of queries so far.
async fn served(replies: Replies) -> (Resolver, Arc<AtomicUsize>) {
    let (socket, listener) = one_port().await;
    let address = socket.local_addr().unwrap();
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    tokio::spawn(async move {
        let mut buffer = [0; 512];
        while let Ok((length, peer)) = socket.recv_from(&mut buffer).await {
            count.fetch_add(1, Ordering::Relaxed);
            for reply in replies(&buffer[..length], false) {
                socket.send_to(&reply, peer).await.unwrap();
            }
        }
    });
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let length = stream.read_u16().await.unwrap();
            let mut query = vec![0; length.into()];
            stream.read_exact(&mut query).await.unwrap();
            for reply in replies(&query, true) {
                let length = u16::try_from(reply.len()).unwrap();
                stream.write_u16(length).await.unwrap();
                stream.write_all(&reply).await.unwrap();
            }
        }
    });
    (Resolver::new(vec![address]), asked)
}

/// Binds a port of UDP and the same one of TCP. What is free for one may be taken for the other, by a test beside this one.
async fn one_port() -> (UdpSocket, TcpListener) {
    loop {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        match TcpListener::bind(socket.local_addr().unwrap()).await {
            Ok(listener) => return (socket, listener),
            Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::AddrInUse),
        }
    }
}

fn is_v4(query: &[u8]) -> bool {
    query[query.len() - 3] == 1
}

/// Returns an answer to the query with these flags and records.
fn answer(query: &[u8], code: u8, records: &[(&[u8], u8, &[u8])]) -> Vec<u8> {
    let mut answer = query.to_vec();
    answer[2] |= 0x80;
    answer[3] |= code;
    answer[7] = u8::try_from(records.len()).unwrap();
    for (name, kind, data) in records {
        answer.extend_from_slice(name);
        // type, class, time to live, length
        answer.extend_from_slice(&[0, *kind, 0, 1, 0, 0, 0, 60, 0]);
        answer.push(u8::try_from(data.len()).unwrap());
        answer.extend_from_slice(data);
    }
    answer
}

/// Returns an answer with an alias, its address, and the address of another name.
fn found(query: &[u8]) -> Vec<u8> {
    // a pointer to the name in the question
    let asked: &[u8] = &[0xc0, 12];
    let real: &[u8] = b"\x04real\x07example\0";
    let upper: &[u8] = b"\x04REAL\x07example\0";
    let other: &[u8] = b"\x05other\x07example\0";
    let v6 = "2606:4700::1111".parse::<Ipv6Addr>().unwrap().octets();
    let address: (&[u8], u8, &[u8]) = if is_v4(query) {
        (upper, 1, &[1, 1, 1, 1])
    } else {
        (real, 28, &v6)
    };
    let foreign: (&[u8], u8, &[u8]) = (other, 1, &[10, 0, 0, 1]);
    answer(query, 0, &[(asked, 5, real), foreign, address])
}

/// HE-4: aliases are followed inside the answer, and records of other names are ignored.
#[tokio::test]
async fn addresses_of_both_families_are_found_and_kept() {
    let (resolver, asked) = served(|query, _| vec![found(query)]).await;
    for _ in 0..2 {
        let addresses = resolver.lookup("api.example").await.unwrap();
        let shown: Vec<_> = addresses.iter().map(ToString::to_string).collect();
        assert_eq!(shown, ["1.1.1.1", "2606:4700::1111"]);
    }
    assert_eq!(asked.load(Ordering::Relaxed), 2);
}

#[tokio::test]
async fn answers_to_other_queries_are_ignored() {
    let (resolver, _) = served(|query, _| {
        let mut forged = found(query);
        forged[0] ^= 1;
        let mut another = answer(query, 0, &[]);
        another[13] ^= 1;
        vec![forged, another, b"x".to_vec(), answer(query, NXDOMAIN, &[])]
    })
    .await;
    let found = resolver.lookup("api.example").await;
    assert_eq!(found, Err(ResolveError::NotFound));
}

#[tokio::test]
async fn a_truncated_answer_is_asked_for_again_over_tcp() {
    let (resolver, _) = served(|query, tcp| {
        let mut answer = found(query);
        if !tcp {
            // the flag TC
            answer[2] |= 2;
        }
        vec![answer]
    })
    .await;
    assert_eq!(resolver.lookup("api.example").await.unwrap().len(), 2);
}

#[tokio::test]
async fn failures_are_distinguished_and_not_kept() {
    let (resolver, asked) = served(|query, _| vec![answer(query, SERVFAIL, &[])]).await;
    for _ in 0..2 {
        let failed = resolver.lookup("api.example").await.unwrap_err();
        assert_eq!(failed, ResolveError::Failed("SERVFAIL".into()));
    }
    assert_eq!(asked.load(Ordering::Relaxed), 2 * 2 * ROUNDS);
    let none = Resolver::from_configuration("");
    let failed = none.lookup("api.example").await;
    assert!(matches!(failed, Err(ResolveError::Failed(_))), "{failed:?}");
}

/// One family is enough.
#[tokio::test]
async fn a_failure_of_one_family_does_not_matter() {
    let (resolver, _) = served(|query, _| match is_v4(query) {
        true => vec![found(query)],
        false => vec![answer(query, SERVFAIL, &[])],
    })
    .await;
    assert_eq!(resolver.lookup("api.example").await.unwrap().len(), 1);
}

#[test]
fn servers_come_from_the_configuration() {
    let text = "search shop.svc.cluster.local\n# nameserver 9.9.9.9\nnameserver 10.96.0.10\n\
                nameserver fe80::1%eth0\nnameserver  fd00::a\noptions ndots:5\n";
    let resolver = Resolver::from_configuration(text);
    let shown: Vec<_> = resolver.servers.iter().map(ToString::to_string).collect();
    assert_eq!(shown, ["10.96.0.10:53", "[fd00::a]:53"]);
}
