//! The first signal is recorded, the second ends the process. The exit code tells which it was.
#![cfg(all(feature = "native", unix))]

mod common;

use common::hangup;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nanotern::train::Signals;
use rustix::process::{Pid, Signal, kill_process};

/// A process with the handlers installed; `mode` tells its reaction to a pending signal.
fn child(mode: &str) -> (Child, BufReader<std::process::ChildStdout>) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child_waits", "--nocapture"])
        .env("NANOTERN_TEST_CHILD", mode)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut out = BufReader::new(child.stdout.take().unwrap());
    wait_for(&mut out, "ready");
    (child, out)
}

fn wait_for(out: &mut impl BufRead, word: &str) {
    let mut line = String::new();
    while !line.contains(word) {
        line.clear();
        assert_ne!(out.read_line(&mut line).unwrap(), 0, "the child ended before it said {word:?}");
    }
}

fn send(child: &Child, signal: Signal) {
    kill_process(Pid::from_child(child), signal).unwrap();
}

#[test]
fn child_waits() {
    let Ok(mode) = std::env::var("NANOTERN_TEST_CHILD") else { return };
    let signals = Signals::install();
    assert_eq!(signals.pending(), None);
    println!("ready");
    for _ in 0..6000 {
        if let Some(signal) = Signals::install().pending() {
            if mode == "obeys" {
                std::process::exit(Signals::exit_code(signal));
            }
            println!("noted {signal}");
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn the_first_signal_is_left_to_the_program() {
    for (signal, code) in [(Signal::INT, 130), (Signal::TERM, 143), hangup()] {
        let (mut child, _out) = child("obeys");
        send(&child, signal);
        assert_eq!(child.wait().unwrap().code(), Some(code));
    }
}

#[test]
fn the_second_signal_ends_the_process() {
    let pairs = [(Signal::INT, Signal::INT, 130), (Signal::INT, Signal::TERM, 143), (hangup().0, Signal::INT, 130)];
    for (first, second, code) in pairs {
        let (mut child, mut out) = child("ignores");
        send(&child, first);
        wait_for(&mut out, if first == Signal::HUP { "noted 1" } else { "noted 2" });
        send(&child, second);
        assert_eq!(child.wait().unwrap().code(), Some(code));
    }
}
