//! Answers that are too large, and the other functions of their batch.

use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;
use crate::node_api::{Fleet, Tables};
use crate::queue::Queue;

fn function(name: &str) -> SampleQuery {
    SampleQuery {
        function: FunctionKey::new("shop", name),
        ..wanted()
    }
}

/// Answers about all functions with the samples of one node, and endlessly when a query names `flood`.
fn flooded(query: &str) -> Reply {
    let ok = |result: Value| {
        let data = json!({ "resultType": "matrix", "result": result });
        let answer = json!({ "status": "success", "data": data });
        (StatusCode::OK, answer.to_string())
    };
    let metric = query.split('{').next().unwrap();
    let mut result = Vec::new();
    let names = ["a", "b", "c", "d", "flood"];
    for one in one_node().remove(metric).unwrap_or_default() {
        if one["metric"].get("function").is_none() {
            result.push(one);
            continue;
        }
        for name in names.iter().filter(|name| query.contains(**name)) {
            let mut one = one.clone();
            one["metric"]["function"] = json!(name);
            result.push(one);
        }
    }
    if metric == "selvage_requests_total" && query.contains("flood") {
        let mut more = one_node().remove(metric).unwrap().remove(0);
        more["metric"]["function"] = json!("flood");
        more["metric"]["outcome"] = json!("x".repeat(10_000));
        result.extend(std::iter::repeat_n(more, 1_100));
    }
    ok(json!(result))
}

async fn answers(
    prometheus: &Prometheus,
    suspects: &mut batch::Suspects,
    names: &[&str],
) -> BTreeMap<String, Result<usize, &'static str>> {
    let mut answers = BTreeMap::new();
    let deliver = |wanted: SampleQuery, answer: Result<Samples, MeasureError>| {
        let answer = answer.map(|samples| samples.snapshots.len());
        let answer = answer.map_err(|error| error.reason());
        answers.insert(wanted.function.name.to_string(), answer);
    };
    let wanted = names.iter().map(|name| function(name)).collect();
    batch::run(prometheus, &known(), wanted, suspects, deliver).await;
    answers
}

/// FE-2: the samples of one function exceed every bound. The others of its batch have theirs.
#[tokio::test]
async fn the_flood_of_one_function_takes_no_other_with_it() {
    let (prometheus, stub) = Stub::answering(flooded).serve().await;
    let mut suspects = batch::Suspects::default();
    let names = ["a", "b", "c", "d", "flood"];
    let expected: BTreeMap<String, Result<usize, &str>> = names
        .iter()
        .map(|name| {
            let answer = if *name == "flood" {
                Err("too_large")
            } else {
                Ok(1)
            };
            ((*name).to_owned(), answer)
        })
        .collect();
    assert_eq!(answers(&prometheus, &mut suspects, &names).await, expected);
    // it is not asked about again at once, and the others are read together again
    stub.asked.lock().clear();
    assert_eq!(answers(&prometheus, &mut suspects, &names).await, expected);
    let asked = stub.asked.lock();
    assert!(
        asked.iter().all(|query| !query.contains("flood")),
        "{asked:?}"
    );
    assert_eq!(asked.len(), 5, "{asked:?}");
}

/// One query per metric answers all functions that wait, and each of them is queued with its answer. An answer is used once.
#[tokio::test]
async fn functions_that_wait_together_are_read_together() {
    let (prometheus, stub) = Stub::answering(flooded).serve().await;
    let (tables, second) = (Tables::new(), Duration::from_secs(1));
    let (fleet, queue) = (Fleet::new(tables, second, second), Queue::default());
    fleet.counters_from("node-1", 900_250, []);
    let source = PrometheusQueries::new(prometheus, fleet, queue.clone());
    let all = ["a", "b", "c", "d"].map(function);
    for one in &all {
        assert!(matches!(source.newest(one), QueryState::Pending(_)));
    }
    assert!(source.settled().await);
    assert_eq!(stub.asked.lock().len(), 5, "{:?}", stub.asked.lock());
    for one in &all {
        let QueryState::Answered(Ok(samples)) = source.newest(one) else {
            panic!("{one:?} has no answer");
        };
        assert_eq!(samples.snapshots.len(), 1);
        let item = queue.take(false).await;
        let is_item = |one: &SampleQuery| *one.function.name == *item.key.name;
        assert!(all.iter().any(is_item));
    }
    assert!(matches!(source.newest(&all[0]), QueryState::Pending(_)));
}

/// FE-2: an answer without end is read up to a bound that follows from what was asked.
#[tokio::test]
async fn an_endless_answer_is_left_at_its_bound() {
    const PART: &str = r#"{"metric":{"node_name":"node-1"},"values":[[1,"1"]]},"#;
    let _ = rustls::crypto::ring::default_provider().install_default();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let written = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&written);
    let server = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut asked = [0; 4096];
        let _ = stream.read(&mut asked).await;
        let head = "HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n";
        let begin = r#"{"status":"success","data":{"resultType":"matrix","result":["#;
        let _ = stream.write_all(format!("{head}{begin}").as_bytes()).await;
        let chunk = PART.repeat(1_000);
        while stream.write_all(chunk.as_bytes()).await.is_ok() {
            counted.fetch_add(chunk.len(), Ordering::SeqCst);
        }
    });
    let error = batch(&client(&url).unwrap()).await.unwrap_err();
    assert_eq!(error.reason(), "too_large", "{error}");
    // it ends because the client has left
    server.await.unwrap();
    let written = written.load(Ordering::SeqCst);
    // the bound of this question is below 22 MiB, for the names of 5,000 nodes; sockets hold some more
    assert!(written < 34 << 20, "{written} bytes were taken");
}
