//! Templates that would take the stack, the memory or the time of the program. Each is refused with what it takes too much of,
//! or it works.

use super::{open, tokenizer};
use nanotern::infer::Message;

/// A stack that is smaller than that of any thread that renders.
const STACK: usize = 1 << 20;

/// Templates that can be seen to be too long or too deep before they are parsed.
fn deep() -> Vec<(&'static str, String)> {
    let chain = |link: &str| format!("{{{{ {}1 }}}}", link.repeat(60_000 / link.len()));
    let after = |link: &str| format!("{{{{ a{} }}}}", link.repeat(60_000 / link.len()));
    let around = |open: &str, middle: &str, close: &str| {
        let n = 60_000 / (open.len() + close.len());
        format!("{}{middle}{}", open.repeat(n), close.repeat(n))
    };
    vec![
        ("minus", chain("-")),
        ("not", chain("not ")),
        ("plus", chain("1+")),
        ("tilde", chain("1~")),
        ("power", chain("2**")),
        ("and", chain("1 and ")),
        ("or", chain("0 or ")),
        ("if else", chain("1 if 0 else ")),
        ("compare", chain("1<")),
        ("in", chain("1 in ")),
        ("filters", after("|d")),
        ("attributes", after(".b")),
        ("calls", after("()")),
        ("subscripts", after("[0]")),
        ("tests", after(" is a")),
        ("parentheses", format!("{{{{ {} }}}}", around("(", "1", ")"))),
        ("lists", format!("{{{{ {} }}}}", around("[", "1", "]"))),
        ("objects", format!("{{{{ {} }}}}", around("{'a':", "1", "}"))),
        ("calls in calls", format!("{{{{ {} }}}}", around("d(", "1", ")"))),
        ("mixed", format!("{{{{ {} }}}}", around("-(1+[", "1", "][0])"))),
        ("ifs", around("{% if 1 %}", "x", "{% endif %}")),
        ("loops", around("{% for i in a %}", "x", "{% endfor %}")),
        ("sets", around("{% set a %}", "x", "{% endset %}")),
        ("withs", around("{% with %}", "x", "{% endwith %}")),
        ("elif", format!("{{% if 0 %}}{}{{% endif %}}", "{% elif 0 %}".repeat(5_000))),
        ("filter blocks", around("{% filter d %}", "x", "{% endfilter %}")),
        ("long", "x".repeat(70_000)),
        ("open", format!("{{{{ {}", "(-".repeat(30_000))),
        ("after strings", format!("{{{{ '}}}}' ~ \"%}}\" ~ {}1 }}}}", "-".repeat(9_000))),
    ]
}

/// Templates that take too much when they run.
const GREEDY: [(&str, &str); 41] = [
    (
        "lists",
        "{% set n = namespace(l=[1]) %}{% for i in range(34) %}{% set n.l = n.l + n.l %}{% endfor %}{{ n.l|length }}",
    ),
    ("lists, straight", "{% set l = ([[1] * 1000] * 1000) * 1000 %}{{ l ~ '' }}"),
    (
        "strings",
        "{% set n = namespace(s='ab') %}{% for i in range(34) %}{% set n.s = n.s + n.s %}{% endfor %}{{ n.s|length }}",
    ),
    (
        "joined",
        "{% set n = namespace(s='ab') %}{% for i in range(34) %}{% set n.s = n.s ~ n.s %}{% endfor %}{{ n.s|length }}",
    ),
    (
        "blocks",
        "{% set n = namespace(s='ab') %}{% for i in range(34) %}{% set s %}{{ n.s }}{{ n.s }}{% endset %}{% set n.s = s %}{% endfor %}",
    ),
    (
        "macros",
        "{% macro d(s) %}{{ s }}{{ s }}{% endmacro %}{% set n = namespace(s='ab') %}{% for i in range(34) %}{% set n.s = d(n.s) %}{% endfor %}",
    ),
    ("recursion", "{% macro m() %}{{ m() }}{{ m() }}{% endmacro %}{{ m() }}"),
    ("recursive loop", "{% for x in [1] recursive %}{{ loop([x, x]) }}{% endfor %}"),
    ("width", "{{ '%99999999999d'|format(1) }}"),
    ("width of an argument", "{{ '%*d'|format(99999999999, 1) }}"),
    ("precision", "{{ '%.999999999f'|format(1.5) }}"),
    ("width of str.format", "{{ '{:>99999999999}'.format(1) }}"),
    ("fields", "{{ ('{0}' * 1000).format('x' * 100000) }}"),
    ("named fields", "{{ ('%(a)s' * 1000)|format(a='x' * 100000) }}"),
    ("indent", "{{ 'a\\nb'|indent(20000000000) }}{{ ('a\\n' * 9999)|indent('x' * 9999) }}"),
    ("indent of JSON", "{{ [[[1, 2], [3]], [4]]|tojson(indent='x' * 1000000) }}"),
    ("separators of JSON", "{{ range(1000)|list|tojson(separators=['x' * 100000, 'y']) }}"),
    ("times", "{{ 'ab' * 40000000000 }}"),
    ("replace", "{{ ('x' * 1000000)|replace('x', 'y' * 1000) }}"),
    ("method replace", "{{ ('x' * 1000000).replace('', 'y' * 1000) }}"),
    ("join", "{{ (['a'] * 10000)|join('x' * 100000) }}"),
    ("method join", "{{ ('x' * 100000).join(['a'] * 10000) }}"),
    ("pieces", "{{ ('a' * 20000000).split('')|length }}"),
    ("last pieces", "{{ ('a' * 20000000).rsplit('a')|length }}"),
    ("batch", "{{ [1]|batch(1000000000, 'x')|length }}"),
    ("filled batches", "{% for i in range(500) %}{% set x = [0]|batch(2000, 0) %}{% endfor %}"),
    ("slice", "{{ [1]|slice(1000000000)|length }}"),
    ("dates", "{{ strftime_now('%c' * 1000000) }}"),
    ("loops", "{% for i in range(100000) %}{% for j in range(100000) %}{% endfor %}{% endfor %}"),
    (
        "nested lists",
        "{% set n = namespace(x=[]) %}{% for i in range(60000) %}{% set n.x = [n.x] %}{% endfor %}{{ n.x == n.x }}",
    ),
    (
        "nested objects",
        "{% set n = namespace(x={}) %}{% for i in range(60000) %}{% set n.x = {'a': n.x} %}{% endfor %}",
    ),
    (
        "shared lists",
        "{% set n = namespace(x=[1], y=[1]) %}{% for i in range(60) %}{% set n.x = [n.x, n.x] %}{% set n.y = [n.y, n.y] %}{% endfor %}{{ n.x == n.y }}",
    ),
    (
        "shared objects",
        "{% set n = namespace(x={}) %}{% for i in range(60) %}{% set n.x = dict(a=n.x, b=n.x) %}{% endfor %}{{ n.x|tojson }}",
    ),
    ("a namespace in itself", "{% set n = namespace() %}{% set n.n = n %}{{ n }}"),
    ("a namespace in its list", "{% set n = namespace() %}{% set n.l = [n] %}{{ n }}"),
    (
        "a loop of comparisons",
        "{% set l = range(100000)|list %}{% for i in range(10000) %}{% if l == l[::-1] %}{% endif %}{% endfor %}",
    ),
    ("a sum of texts", "{{ (['x' * 40] * 90000)|sum(start='')|length }}"),
    ("a sum of lists", "{{ ([[1]] * 90000)|sum(start=[])|length }}"),
    ("mapped", "{{ (['a\nb'] * 1000)|map('indent', 'x' * 100000)|list|length }}"),
    ("mapped replacements", "{{ (['aaa'] * 1000)|map('replace', 'a', 'x' * 30000)|list|length }}"),
    ("output", "{% for i in range(50) %}{{ 'x' * 100000 }}{% endfor %}"),
];

/// Templates that work, though they look like the others.
const MODEST: [(&str, &str, &str); 6] = [
    (
        "slices",
        "{% set n = namespace(x=[1, 2]) %}{% for i in range(1000) %}{% set n.x = n.x[0:] %}{% endfor %}{{ n.x }}",
        "[1, 2]",
    ),
    (
        "lazy steps",
        "{% set n = namespace(x=[[1], [2]]) %}{% for i in range(500) %}{% set n.x = n.x|map('reverse')|list %}{% endfor %}{{ n.x }}",
        "[[1], [2]]",
    ),
    (
        "lazy chains",
        "{% set n = namespace(x={'a': 1}) %}{% for i in range(300) %}{% set n.x = n.x|chain({'b': i}) %}{% endfor %}{{ n.x }}",
        "{'a': 1, 'b': 299}",
    ),
    ("strip", "{{ ('ab' * 100000).strip('b' * 100000 ~ 'a') }}x", "x"),
    (
        "a list of turns",
        "{% set n = namespace(l=[]) %}{% for i in range(300) %}{% set n.l = n.l + [{'i': i}] %}{% endfor %}{{ n.l|length }}",
        "300",
    ),
    ("a string of braces", "{{ '((((((((((' ~ \"{{{{{{\" }}", "(((((((((({{{{{{"),
];

/// Runs on a small stack.
fn small(work: impl FnOnce() + Send + 'static) {
    std::thread::Builder::new().stack_size(STACK).spawn(work).unwrap().join().unwrap();
}

fn message(content: &str) -> Message {
    Message { role: "user".into(), content: content.into() }
}

#[test]
fn what_is_too_deep_is_refused_before_it_is_parsed() {
    small(|| {
        for (name, template) in deep() {
            let error = open(&template).err().unwrap_or_else(|| panic!("{name} opens")).to_string();
            assert!(error.contains("takes too much: ") && error.len() < 200, "{name}: {error}");
        }
    });
}

#[test]
fn what_takes_too_much_is_refused_and_the_next_conversation_renders() {
    small(|| {
        let t = tokenizer(&[]);
        for (name, template) in GREEDY {
            let error = open(template).err().unwrap_or_else(|| panic!("{name} opens")).to_string();
            let plain = open(&format!("{{% if messages[0].content == 'go' %}}{template}{{% endif %}}x")).unwrap();
            let later = plain.encode(&[message("go")], &t).unwrap_err().to_string();
            for error in [error, later] {
                let known = ["takes too much: ", "recursion limit exceeded", "too large"];
                assert!(known.iter().any(|known| error.contains(known)) && error.len() < 300, "{name}: {error}");
            }
            assert_eq!(plain.encode(&[message("stay")], &t).unwrap(), t.encode("x").unwrap(), "{name}");
        }
    });
}

#[test]
fn what_only_looks_like_too_much_renders() {
    small(|| {
        for (name, template, want) in MODEST {
            let conversation = (&[message("x")][..]).into();
            let text = open(template).and_then(|t| t.render(&conversation));
            assert_eq!(text.unwrap_or_else(|e| panic!("{name}: {e}")), want, "{name}");
        }
    });
}

/// The template with all of [`GREEDY`], which a message names.
#[cfg(all(feature = "cli", unix))]
fn all() -> String {
    let all = GREEDY
        .iter()
        .map(|(name, template)| format!("{{% if messages[0].content == '{name}' %}}{template}{{% endif %}}"));
    all.collect::<String>() + "x"
}

#[cfg(all(feature = "cli", unix))]
#[test]
fn a_server_answers_400_and_lives() {
    use super::common::{cli::Project, peak_kib, server::Server};
    use nanotern::formats::{Format, ModelFile};
    let project = Project::new();
    project.train("run", "--total-steps 1 --set train.eval_windows=1");
    let mut file = ModelFile::open(&project.path("run")).unwrap();
    file.text.chat_template = Some(all());
    let bytes = file.save_gguf(&project.path("model.gguf"), Format::default()).unwrap();
    let server = Server::of(&std::rc::Rc::new(project), "--model model.gguf");
    let ask = |content: &str| {
        server.chat(serde_json::json!({"messages": [{"role": "user", "content": content}], "max_tokens": 1}))
    };
    for (name, _) in GREEDY {
        ask(name).refused(400, name);
        assert_eq!(ask("stay").status, 200, "after {name}");
    }
    let kib = peak_kib(server.running.as_ref().unwrap().child.id());
    println!("at most {kib} KiB");
    assert!(kib < (64 << 10) + 4 * bytes / 1024, "{kib} KiB");
}
