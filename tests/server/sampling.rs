//! Sampling parameters: the command line and the API take the same values and refuse the others in the same words.

use super::common::sampling::{CASES, flags, refusal};
use super::common::server::{Server, endless};
use nanotern::infer::{PARAMETERS, Parameter, Sampling};
use serde_json::{Value, json};

#[test]
fn the_command_line_and_the_api_take_and_refuse_the_same_values() {
    let server = Server::start(64, "");
    let generate = |name: &str, value: &str| {
        let words = "generate --backend cpu --threads 1 --model runs/small --prompt x --max-tokens 1";
        let words = if name == "max_tokens" { words.trim_end_matches(" --max-tokens 1") } else { words };
        server.project.command(words).args(flags(name, value)).output().unwrap()
    };
    let ask = |name: &str, value: &str| {
        let mut fields = json!({"max_tokens": 1});
        fields[name] = serde_json::from_str(value).unwrap();
        server.chat(fields)
    };
    assert!(CASES.iter().map(|(name, ..)| *name).eq(PARAMETERS.iter().map(|row| row.name)), "a parameter has no case");
    for (name, good, bad, wanted) in CASES {
        for value in good {
            let (said, answered) = (generate(name, value), ask(name, value));
            assert!(said.status.success(), "{name} {value}: {}", String::from_utf8_lossy(&said.stderr));
            assert_eq!(answered.status, 200, "{name} {value}: {}", answered.text());
        }
        for value in bad {
            let message = refusal(name, value, wanted);
            let said = generate(name, value);
            assert_eq!(said.status.code(), Some(2), "{message}");
            assert!(String::from_utf8_lossy(&said.stderr).contains(&message), "{message}: {said:?}");
            let answered = ask(name, value);
            assert_eq!(answered.json()["error"]["message"], message);
            assert_eq!(answered.refused(400, name).0, name);
        }
    }
}

#[test]
fn the_defaults_are_those_of_the_table() {
    let server = Server::start(64, "");
    let help = server.project.ok("generate --help");
    let rows = server.get("/sampling.json").json();
    for (row, served) in PARAMETERS.iter().zip(rows.as_array().unwrap()) {
        let flag = help.split(&format!("--{} ", row.name.replace('_', "-"))).nth(1).expect(row.name);
        let line = flag.split("--").next().unwrap();
        assert!(line.contains(row.help.trim_end_matches('.')), "{line}");
        let shown = line.split("[default: ").nth(1).map(|rest| rest.split(']').next().unwrap().parse().unwrap());
        assert_eq!(shown, row.default, "{line}");
        // The API limits an answer by the context alone.
        let default = row.default.filter(|_| row.name != "max_tokens");
        assert_eq!(*served, json!(Parameter { default, ..*row }));
        let mut sampling = Sampling::default();
        if let Some(default) = row.default {
            let integer = default.fract() == 0.0;
            let value = if integer { Value::from(default as u64) } else { default.into() };
            assert!(sampling.set(row.name, &value).unwrap());
        }
        assert_eq!(sampling, Sampling::default(), "{}", row.name);
    }
    assert_eq!(server.chat(json!({"logit_bias": endless()})).json()["usage"]["total_tokens"], 64, "as many as fit");
}
