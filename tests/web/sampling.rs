//! Sampling parameters in the tab: it takes the same values as the command line and the API, and refuses the others in the
//! same words.

use super::common::sampling::{CASES, FIELDS, fields, refusal};
use super::list::endless_list;
use super::{NO_WEBGPU, Tab, bytes};
use nanotern::infer::PARAMETERS;
use serde_json::{Value, json};

#[test]
fn the_tab_takes_and_refuses_what_the_command_line_and_the_api_do() {
    let Some(tab) = Tab::api(NO_WEBGPU, "cpu") else { return };
    tab.load(&bytes(&endless_list(1)));
    let table = json!(PARAMETERS).to_string();
    let same = format!("return JSON.stringify(nanotern.runtime.parameters) == JSON.stringify({table})");
    assert_eq!(tab.browser.eval(&same), true);
    let ask = |name: &str, value: &str| {
        let request = format!("{{ prompt: '-', max_tokens: 1, [{}]: {value} }}", json!(name));
        let outcome = ".then(() => null, (error) => [error.code, error.message])";
        tab.browser.eval(&format!("return nanotern.completions.create({request}){outcome}"))
    };
    for (name, good, bad, wanted) in CASES {
        good.iter().for_each(|value| assert_eq!(ask(name, value), Value::Null, "{name} {value}"));
        bad.iter().for_each(|value| {
            assert_eq!(ask(name, value), json!(["invalid_request", refusal(name, value, wanted)]));
        });
    }
    assert_eq!(ask("temperature", "NaN")[0], "invalid_request", "JSON has no NaN");
    assert_eq!(ask("made_up", "1"), json!(["invalid_request", "there is no sampling parameter \"made_up\""]));
    assert!(ask("logit_bias", "{ 262: 1 }")[1].as_str().unwrap().contains("token 262: the model has 262 tokens"));
    let complete = |more: &str| {
        let request = format!("{{ prompt: '-', max_tokens: 8, temperature: 0, {more} }}");
        tab.browser.eval(&format!("return (await nanotern.completions.create({request})).choices[0].message.content"))
    };
    assert_eq!(complete(""), " word\n- ");
    assert_eq!(complete("logit_bias: { 111: -100, 65: 100 }").as_str().unwrap().matches('A').count(), 8);
    assert_eq!(complete("stop: 'rd'"), " wo");
    // Without a seed each request draws another text.
    let drawn = || complete("temperature: 2, logit_bias: { 32: -100, 65: 90, 66: 90, 67: 90 }, max_tokens: 30");
    assert_ne!(drawn(), drawn());
    tab.no_errors();
}

#[test]
fn the_settings_form_has_the_limits_of_the_table() {
    let Some(tab) = Tab::page(NO_WEBGPU) else { return };
    assert_eq!(tab.browser.eval(FIELDS), fields("256"));
    tab.no_errors();
}
