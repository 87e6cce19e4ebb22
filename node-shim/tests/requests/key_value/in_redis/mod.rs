//! Tests of `wasi:keyvalue` with stores in Redis: a real `redis-server` on a loopback address.

mod labels;
mod server;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use node_shim::counters::CounterTable;
use node_shim::egress::FunctionAuthorities;
use node_shim::key_value::{RedisTarget, StoreKind, StoreSpec};
use redis::TypedCommands;
use rustix::process::Signal;
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use zeroize::Zeroizing;

use super::guests::{asks, lists, reads, swapper, tour, writes};
use super::{DRAFT1, ask, seen, serve_all};
use crate::program::start;
use crate::support::key_value::{DRAFT2, counter};
use crate::support::node::{Node, Setup, eventually, served};
use crate::support::tls::Identity;
use crate::support::wire::get;
use server::{Proxy, Server, TestNetwork, hostile, tls_flags};

const URL: &str = "redis://r.shop.svc.cluster.local";
const REFUSES: &str =
    "the Redis server cannot be used: it refuses the user or the password of the Secret";
const NEVER: &str = "the Redis server cannot be used: no function may reach its address";

/// Returns a store with the label `cart`.
fn cart(url: &str, cache_ttl: Duration) -> StoreSpec {
    let target = RedisTarget::new(Zeroizing::new(url.to_owned()), "shop:".to_owned()).unwrap();
    StoreSpec {
        label: "cart".into(),
        kind: StoreKind::Redis {
            target: Arc::new(target),
            cache_ttl,
        },
    }
}

/// Returns a store that trusts these authorities in addition to those of the node.
fn cart_trusting(url: &str, authorities: Option<&Arc<FunctionAuthorities>>) -> StoreSpec {
    let target = RedisTarget::new(Zeroizing::new(url.to_owned()), "shop:".to_owned());
    StoreSpec {
        label: "cart".into(),
        kind: StoreKind::Redis {
            target: Arc::new(target.unwrap().trusting(authorities)),
            cache_ttl: Duration::ZERO,
        },
    }
}

/// Returns a setup whose function opens the store `cart` in the server.
fn setup_at(server: SocketAddr, url: &str) -> Setup {
    let mut setup = Setup {
        stores: vec![cart(url, Duration::ZERO)],
        ..Setup::default()
    };
    setup.options.egress.network = TestNetwork::to(server);
    setup
}

fn setup(server: &Server) -> Setup {
    setup_at(server.address, URL)
}

/// Returns a setup for requests that wait for many answers of the server, which takes its time on a busy machine.
fn patient(server: &Server) -> Setup {
    let mut setup = setup(server);
    setup.limits.timeout = Duration::from_secs(60);
    setup
}

fn cached(server: &Server, ttl: Duration) -> Setup {
    let mut setup = setup(server);
    setup.stores = vec![cart(URL, ttl)];
    setup
}

fn answer(node: &Node) -> (u16, String) {
    seen(&get(node.address(), "/"))
}

fn ok(text: &str) -> (u16, String) {
    (200, text.to_owned())
}

fn error(text: &str) -> (u16, String) {
    (500, text.to_owned())
}

#[test]
fn every_function_of_both_drafts_works_and_other_programs_read_the_entries() {
    let server = Server::start(&[]);
    let mut client = server.client();
    for draft in node_api::world::KEY_VALUE_VERSIONS {
        let node = setup(&server).start(&tour(draft));
        assert_eq!(answer(&node).0, 200, "{draft}");
        let left: Vec<String> = client.keys("*").unwrap();
        assert_eq!(left, ["shop:a"]);
        assert_eq!(client.get("shop:a").unwrap().as_deref(), Some("1"));
        client.flushall().unwrap();
    }
}

/// Each client reads, waits and swaps, through one of two nodes. A lost update would give two of them the same number.
#[test]
fn parallel_swaps_through_two_nodes_lose_no_update() {
    const CLIENTS: u32 = 8;
    const REQUESTS: u32 = 8;
    let server = Server::start(&[]);
    let nodes = [0, 1].map(|_| patient(&server).start(&swapper()));
    let clients = nodes.iter().flat_map(|node| {
        let address = node.address();
        (0..CLIENTS).map(move |_| {
            std::thread::spawn(move || {
                let swap = |_| {
                    let reply = get(address, "/");
                    assert_eq!(reply.status, 200, "{}", reply.text());
                    u32::from_le_bytes(reply.body.try_into().unwrap())
                };
                (0..REQUESTS).map(swap).collect::<Vec<_>>()
            })
        })
    });
    let clients: Vec<_> = clients.collect();
    let numbers = clients
        .into_iter()
        .flat_map(|client| client.join().unwrap());
    let numbers: BTreeSet<u32> = numbers.collect();
    assert_eq!(numbers, (1..=2 * CLIENTS * REQUESTS).collect());
}

#[test]
fn numbers_are_those_of_the_memory_store() {
    let server = Server::start(&[]);
    let functions: [(&str, &str, &[u8]); 4] = [
        ("ns", "up", &counter(DRAFT1, 3)),
        ("ns", "down", &counter(DRAFT2, -5)),
        ("ns", "zero", &counter(DRAFT1, 0)),
        ("ns", "huge", &counter(DRAFT2, i64::MAX)),
    ];
    let node = serve_all(&setup(&server), &functions);
    let out_of_range = error("the sum is out of range");
    for (function, expected) in [
        ("up", ok("3")),
        ("down", ok("-2")),
        ("zero", out_of_range.clone()),
        ("up", ok("1")),
        ("huge", out_of_range),
        ("up", ok("4")),
    ] {
        let answer = ask(node.address(), &format!("{function}.ns"));
        assert_eq!(answer, expected, "{function}");
    }
    server.client().set("shop:k", "x").unwrap();
    let text = error("the value is not a decimal number of 64 bits");
    assert_eq!(ask(node.address(), "up.ns"), text);
    server.client().set("shop:k", i64::MAX - 4).unwrap();
    let expected = ok(&(i64::MAX - 1).to_string());
    assert_eq!(ask(node.address(), "up.ns"), expected, "no digit is lost");
}

/// The prefix separates the keys of a store from those of other programs.
#[test]
fn list_keys_returns_the_keys_with_the_prefix_in_pages() {
    let server = Server::start(&[]);
    let mut client = server.client();
    let mut write = redis::pipe();
    for number in 0..1_000 {
        write.set(format!("shop:{number}"), 1).ignore();
        write.set(format!("shop*{number}"), 1).ignore();
    }
    write.lpush("shop:list", 1).ignore();
    write.set(format!("shop:{}", "k".repeat(1_025)), 1).ignore();
    write.cmd("SET").arg(&b"shop:\xff"[..]).arg(1).ignore();
    write.exec(&mut client).unwrap();
    let node = setup(&server).start(&lists());
    let reply = get(node.address(), "/");
    assert_eq!(reply.status, 200, "{}", reply.text());
    let counted = u32::from_le_bytes(reply.body.try_into().unwrap());
    assert_eq!(
        counted, 1_000,
        "without lists, long keys and keys that are no text"
    );
}

#[test]
fn what_a_component_cannot_read_is_an_error() {
    let server = Server::start(&[]);
    let mut client = server.client();
    let node = setup(&server).start(&reads());
    assert_eq!(answer(&node), (404, String::new()));
    client.set("shop:k", "").unwrap();
    assert_eq!(answer(&node), ok(""), "an empty value is a value");
    let large = "x".repeat((1 << 20) + 1);
    client.set("shop:k", large.as_str()).unwrap();
    let too_large = error("the value has 1048577 bytes; the limit is 1048576");
    assert_eq!(answer(&node), too_large);
    client.set("shop:k", &large[1..]).unwrap();
    assert_eq!(answer(&node), ok(&"x".repeat(1_000)), "the largest value");
    client.del("shop:k").unwrap();
    client.lpush("shop:k", 1).unwrap();
    let list = error("the key holds no value but a list, a hash or another type of Redis");
    assert_eq!(answer(&node), list);
}

#[test]
fn limits_of_requests_are_those_of_the_memory_store() {
    let server = Server::start(&[]);
    let node = setup(&server).start(&writes(1_025, 1));
    let long = error("the key has 1025 bytes; the limit is 1024");
    assert_eq!(answer(&node), long);
    let node = patient(&server).start(&asks(1_000));
    assert_eq!(answer(&node), error(super::SPENT));
    let size: u32 = redis::cmd("DBSIZE").query(&mut server.client()).unwrap();
    assert_eq!(size, 0);
}

#[test]
fn a_server_that_ends_is_an_error_until_it_is_back() {
    let mut server = Server::start(&[]);
    let mut setup = setup(&server);
    setup.key_value = vec!["other"];
    let node = setup.start(&counter(DRAFT2, 1));
    let apart = Setup {
        key_value: vec!["cart"],
        ..Setup::default()
    };
    let apart = apart.start(&counter(DRAFT2, 1));
    assert_eq!(answer(&node), ok("1"));
    server.kill();
    let (status, text) = answer(&node);
    assert_eq!(status, 500);
    assert!(
        text.starts_with("the Redis server cannot be used: "),
        "{text}"
    );
    let refused = "the Redis server cannot be used: it accepts no connection at its address";
    eventually("the address is tried again", || {
        answer(&node) == error(refused)
    });
    assert_eq!(answer(&apart), ok("1"), "other functions are served");
    server.run();
    eventually("the server is used again", || answer(&node).0 == 200);
    assert_eq!(node.failures(), [""; 0], "no guest was ended");
}

/// The connection stays open, but nothing arrives.
#[test]
fn a_server_that_does_not_answer_is_an_error_and_the_next_request_connects_again() {
    let server = Server::start(&[]);
    let proxy = Proxy::start(server.address);
    let node = setup_at(proxy.address, URL).start(&counter(DRAFT2, 1));
    assert_eq!(answer(&node), ok("1"));
    proxy.stall(true);
    assert_eq!(answer(&node), error("the store did not answer within 2 s"));
    proxy.stall(false);
    // the commands arrived, only the answers did not
    eventually("a new connection answers", || answer(&node).0 == 200);
    // connections that are accepted and then silent
    server.signal(Signal::STOP);
    let fresh = setup(&server).start(&counter(DRAFT2, 1));
    let (status, text) = answer(&fresh);
    server.signal(Signal::CONT);
    assert_eq!(status, 500, "{text}");
    eventually("the server continues", || answer(&fresh).0 == 200);
}

#[test]
fn a_request_does_not_wait_for_a_server_beyond_its_own_time() {
    let server = Server::start(&[]);
    let mut setup = setup(&server);
    setup.limits.first_byte = Duration::from_millis(300);
    let node = setup.start(&counter(DRAFT2, 1));
    eventually("the first connection is there", || answer(&node).0 == 200);
    server.signal(Signal::STOP);
    let late = get(node.address(), "/");
    server.signal(Signal::CONT);
    assert_eq!(late.status, 504);
    node.is_quiet();
    eventually("the same node serves again", || answer(&node).0 == 200);
}

#[test]
fn a_wrong_password_is_an_error_that_does_not_show_it() {
    let server = Server::start(&["--requirepass", "p@ss/word"]);
    let host = "r.shop.svc.cluster.local";
    for (login, expected) in [
        ("", error(REFUSES)),
        (":hunter2@", error(REFUSES)),
        ("hunter2:p%40ss%2Fword@", error(REFUSES)),
        (":p%40ss%2Fword@", ok("1")),
        ("default:p%40ss%2Fword@", ok("2")),
    ] {
        let url = format!("redis://{login}{host}/0");
        let node = setup_at(server.address, &url).start(&counter(DRAFT2, 1));
        assert_eq!(answer(&node), expected, "{login}");
    }
    let url = format!("redis://:p%40ss%2Fword@{host}/99");
    let node = setup_at(server.address, &url).start(&counter(DRAFT2, 1));
    let database = "the Redis server cannot be used: it has no database with the number in the URL";
    assert_eq!(answer(&node), error(database));
}

/// The user that the documentation shows has all that a store needs, and nothing outside the prefix.
#[test]
fn a_user_of_the_namespace_needs_only_its_prefix() {
    let server = Server::start(&[]);
    let mut user = redis::cmd("ACL");
    user.arg(&["SETUSER", "cart", "on", ">p", "~shop:*"]);
    user.arg(&["+@read", "+@write", "+@scripting", "+select"]);
    user.exec(&mut server.client()).unwrap();
    let host = "cart:p@r.shop.svc.cluster.local/1";
    let url = format!("redis://{host}");
    let node = setup_at(server.address, &url).start(&tour(DRAFT2));
    assert_eq!(answer(&node).0, 200);
    user = redis::cmd("ACL");
    user.arg(&["SETUSER", "cart", "resetkeys", "~other:*"]);
    user.exec(&mut server.client()).unwrap();
    let node = setup_at(server.address, &url).start(&counter(DRAFT2, 1));
    let (status, text) = answer(&node);
    assert_eq!(status, 500);
    assert!(text.contains("its user may not use the keys"), "{text}");
}

#[test]
fn tls_verifies_the_certificate() {
    let identity = Identity::of(&["r.shop.svc.cluster.local"]);
    let folder = tempfile::tempdir().unwrap();
    let flags = tls_flags(&identity.write(folder.path(), "tls"));
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let server = Server::start_in(folder, &flags);
    let certificate = CertificateDer::from_pem_slice(identity.certificate.as_bytes()).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(certificate).unwrap();
    let mut setup = setup_at(server.address, &URL.replace("redis:", "rediss:"));
    setup.options.egress.roots = Some(Arc::new(RootCertStore::empty()));
    let refused = "the Redis server cannot be used: its certificate is not valid for its name, or no known authority signed it";
    assert_eq!(
        answer(&setup.clone().start(&counter(DRAFT2, 1))),
        error(refused)
    );
    // an authority of one function opens no connection for another one of its namespace
    let authorities = FunctionAuthorities::parse(&identity.certificate).unwrap();
    let url = URL.replace("redis:", "rediss:");
    let trusting = Setup {
        stores: vec![cart_trusting(&url, Some(&Arc::new(authorities)))],
        ..setup.clone()
    };
    let counters = CounterTable::new();
    let node = setup.start_empty(counters.clone());
    let seen_by = |setup: &Setup, revision: &str| {
        let revision = setup.revision(revision, &counter(DRAFT2, 1), &counters);
        node.publish(vec![served(&revision, setup.routes.clone())]);
        answer(&node)
    };
    assert_eq!(seen_by(&trusting, "r1"), ok("1"));
    assert_eq!(seen_by(&setup, "r2"), error(refused));
    assert_eq!(seen_by(&trusting, "r3"), ok("2"));
    setup.options.egress.roots = Some(Arc::new(roots));
    assert_eq!(answer(&setup.start(&counter(DRAFT2, 1))), ok("3"));
}

/// HE-1: what outbound requests never reach, `redis://` does not reach either.
#[test]
fn addresses_that_no_function_reaches_are_refused() {
    let server = Server::start(&[]);
    let refused = |url: &str, loopback: bool| {
        let mut setup = setup_at(server.address, url);
        setup.options.loopback_stores = loopback;
        setup.options.egress.floor.denied = vec!["10.1.0.7/32".parse().unwrap()];
        answer(&setup.start(&counter(DRAFT2, 1)))
    };
    for loopback in [false, true] {
        for url in [
            "redis://169.254.169.254",
            "redis://metadata.example",
            "redis://[::ffff:169.254.169.254]",
            // the node itself, by address and by name
            "redis://10.1.0.7:9180",
            "redis://node.example:9180",
        ] {
            assert_eq!(refused(url, loopback), error(NEVER), "{url}");
        }
    }
    for url in ["redis://127.0.0.1", "redis://[::1]", "redis://localhost"] {
        assert_eq!(refused(url, false), error(NEVER), "{url}");
        assert_eq!(refused(url, true).0, 200, "{url}");
    }
    let unknown = "the Redis server cannot be used: its name has no addresses";
    assert_eq!(refused("redis://other.example", false), error(unknown));
    let keys: Vec<String> = server.client().keys("*").unwrap();
    assert_eq!(keys, ["shop:k"], "only with loopback");
}

/// HE-11: the user of a namespace chooses the server.
#[test]
fn he_11_replies_of_a_hostile_server_cost_no_memory() {
    for bytes in [
        &b"*1000000000\r\n"[..],
        b"$536870912\r\n",
        b"%1000000000\r\n",
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
    ] {
        let node = setup_at(hostile(bytes), URL).start(&counter(DRAFT2, 1));
        let invalid = "the Redis server cannot be used: its reply is not valid";
        assert_eq!(answer(&node), error(invalid));
    }
}

#[test]
fn reads_are_answered_from_memory_and_own_writes_are_seen() {
    let server = Server::start(&[]);
    let mut client = server.client();
    client.set("shop:k", "1").unwrap();
    let hour = Duration::from_secs(3_600);
    let functions: [(&str, &str, &[u8]); 2] =
        [("ns", "read", &reads()), ("ns", "add", &counter(DRAFT2, 1))];
    let node = serve_all(&cached(&server, hour), &functions);
    let read = || ask(node.address(), "read.ns");
    assert_eq!(read(), ok("1"));
    client.set("shop:k", "10").unwrap();
    assert_eq!(read(), ok("1"), "a copy");
    let usage = node.plane.key_value_usage();
    assert_eq!(
        (usage.entries, usage.memory),
        (1, 258),
        "charged like an entry"
    );
    assert_eq!(
        ask(node.address(), "add.ns"),
        ok("11"),
        "an increment uses the server"
    );
    assert_eq!(read(), ok("11"));
    // without the label on the node, the copy goes
    node.plane.retain_buckets(&BTreeSet::new());
    assert_eq!(node.plane.key_value_usage().entries, 0);
    client.set("shop:k", "20").unwrap();
    assert_eq!(read(), ok("20"));

    let short = cached(&server, Duration::from_millis(50)).start(&reads());
    assert_eq!(answer(&short), ok("20"));
    client.set("shop:k", "30").unwrap();
    eventually("the time of the copy ends", || answer(&short) == ok("30"));
}

#[test]
fn operations_and_copies_are_exported() {
    let server = Server::start(&[]);
    let node = cached(&server, Duration::from_secs(60)).start(&counter(DRAFT2, 1));
    assert_eq!(answer(&node), ok("1"));
    let down = setup_at(hostile(b"x"), URL).start(&reads());
    assert_eq!(answer(&down).0, 500);
    for (node, lines) in [
        (
            &node,
            [
                r#"selvage_key_value_operations_total{store="redis",outcome="ok"} 2"#,
                r#"selvage_key_value_cache_reads_total{result="miss"} 1"#,
                r#"selvage_key_value_cache_reads_total{result="hit"} 0"#,
            ],
        ),
        (
            &down,
            [
                r#"selvage_key_value_operations_total{store="redis",outcome="unavailable"} 1"#,
                r#"selvage_key_value_operations_total{store="redis",outcome="denied"} 0"#,
                r#"selvage_key_value_operations_total{store="memory",outcome="ok"} 0"#,
            ],
        ),
    ] {
        let page = super::metrics_page(node);
        for line in lines {
            assert!(page.lines().any(|one| one == line), "{line}\nin\n{page}");
        }
    }
}

#[test]
fn serve_has_a_store_in_the_redis_of_the_desk() {
    let server = Server::start(&[]);
    let store = format!("cart=redis://{}", server.address);
    let (mut child, address) = start(&counter(DRAFT2, 1), &["--key-value", &store]);
    let answers = [1, 2].map(|_| seen(&get(address, "/")));
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(answers, [ok("1"), ok("2")]);
    assert_eq!(server.client().get("k").unwrap().as_deref(), Some("2"));
}
