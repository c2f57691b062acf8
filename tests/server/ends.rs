//! Answers that end early: the server is told to stop, or the client stops reading.

use super::common::server::{Server, endless, post, request};
use rustix::process::Signal;
use serde_json::json;
use std::io::{Read, Write};
use std::time::{Duration, Instant};

#[test]
fn a_stream_is_cut_at_the_deadline() {
    let mut server = Server::start(8192, "--drain-seconds 0");
    let mut stream = server.stream();
    let mut waiting = server.connect();
    waiting.write_all(&post(request(json!({"logit_bias": endless()})).to_string().as_bytes())).unwrap();
    let running = server.running.take().unwrap();
    let begun = Instant::now();
    running.signal(Signal::TERM);
    let (mut rest, mut whole) = (String::new(), String::new());
    stream.read_to_string(&mut rest).unwrap();
    waiting.read_to_string(&mut whole).unwrap();
    let ended = running.end();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    assert!(rest.contains("\"finish_reason\":\"length\"") && rest.contains("[DONE]"), "{rest}");
    assert!(rest.matches("data:").count() < 8000, "it came to its own end");
    assert!(whole.starts_with("HTTP/1.1 200") || whole.starts_with("HTTP/1.1 503"), "{whole}");
}

#[test]
fn a_client_that_reads_no_more_holds_no_slot() {
    let server = Server::start(1024, "--slots 1 --queue 1");
    // This client reads nothing after its first token.
    let _stalled = server.stream();
    let begun = Instant::now();
    assert_eq!(server.chat(json!({"max_tokens": 1})).status, 200);
    server.wait_until_idle();
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    assert!(server.metric("nanotern_generated_tokens_total") > 1000.0, "the sequence came to its end");
}
