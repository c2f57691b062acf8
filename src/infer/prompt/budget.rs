//! What a chat template may cost. The template comes from a file, so it is untrusted.
//!
//! - Its source is short, and its expressions and blocks are not deep ([`check_depth`]). So neither the parser nor the compiler
//!   can overflow the stack.
//! - The engine's fuel pays for instructions, and for the bytes of strings and the slots of lists that they make. It does not
//!   bound what a value looks like: sequences are lazy, and one value may be a part of many. So each instruction that makes a
//!   value is followed by a test of it ([`watched`]): it is shallow, it is not lazy, and written out it is small. Whatever is then
//!   done with it, such as printing, comparing or dropping it, ends soon.
//! - The same test looks at the clock.

use super::jinja::{Made, failed};
use crate::error::caught;
use minijinja::machinery::{
    Instruction, Instructions, Token, eval, get_compiled_template, make_string_output, tokenize,
};
use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, ObjectRepr, Tuple, Value, ValueKind};
use minijinja::{AutoEscape, Environment, Error, ErrorKind, State, filters};
use std::cell::Cell;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Most bytes of a template.
const LONGEST_SOURCE: usize = 64 << 10;

/// Most levels of an expression, of blocks, and of a value that a template makes. A link of a chain such as `a + b + c` is a
/// level, too.
const DEEPEST: usize = 100;

/// Most levels of macros and recursive loops, in the count of the engine: a macro is four.
const RECURSION: usize = 200;

/// An instruction costs one, and so do 64 bytes: this is 16 MB.
const FUEL: u64 = 250_000;

/// Most bytes of a rendered conversation, of what one filter makes, and of all texts within a value that a template makes.
pub const LONGEST_OUTPUT: usize = 4 << 20;

/// Most values within a value that a template makes.
const MOST_PARTS: usize = 1 << 17;

/// The longest time of a rendering. Without optimisation all takes longer.
const LONGEST_TIME: Duration = Duration::from_secs(if cfg!(debug_assertions) { 10 } else { 1 });

// No template can spell these names.
const IN_TIME: &str = "\0intime";
const LOOSE: &str = "\0loose";
const STORABLE: &str = "\0storable";
const SETTLED: &str = "\0settled";

thread_local! {
    /// When the rendering on this thread must be done.
    static UNTIL: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// The error of a template that takes too much.
pub fn over(what: impl Into<String>) -> Error {
    Error::new(ErrorKind::OutOfFuel, what.into())
}

/// What a template takes too much of, if that is why it failed.
pub fn exceeded(error: &Error) -> Option<String> {
    let mut next = Some(error);
    while let Some(error) = next {
        if error.kind() == ErrorKind::OutOfFuel {
            let all = || format!("it ran out of fuel, which is {FUEL} instructions, or {} MB", FUEL * 64 / 1_000_000);
            return Some(error.detail().map_or_else(all, String::from));
        }
        next = std::error::Error::source(error).and_then(|source| source.downcast_ref());
    }
    None
}

/// Refuses more bytes than [`LONGEST_OUTPUT`].
pub fn fits(bytes: usize) -> Result<(), Error> {
    if bytes > LONGEST_OUTPUT {
        return Err(over(format!("it makes a text, or texts in a list, of more than {} MB", LONGEST_OUTPUT >> 20)));
    }
    Ok(())
}

/// Prepares an environment for [`render`].
pub fn limit(environment: &mut Environment<'_>) {
    environment.set_fuel(Some(FUEL));
    environment.set_recursion_limit(RECURSION);
    environment.add_test(IN_TIME, |_: &Value| in_time());
    environment.add_test(LOOSE, |value: &Value| in_time().map(|_| value.as_object().is_some()));
    environment.add_test(STORABLE, |value: &Value| match is_namespace(value) {
        true => Err(over("it stores a namespace in a namespace")),
        false => Ok(true),
    });
    environment.remove_global("debug"); // prints all variables at once
    environment.add_filter("sum", sum);
    environment.add_filter(SETTLED, |value: Value| {
        let settled = Size::default().settle(&value, 0)?;
        Ok::<_, Error>(settled.unwrap_or(value))
    });
}

/// Jinja's `sum`, which copies what is not a number again and again.
fn sum(state: &State<'_, '_>, values: Value, of: Option<&str>, start: Option<Value>, named: Kwargs) -> Made {
    /// Most lists that are joined.
    const MOST: usize = 1000;
    let from = start.clone().or(named.peek("start").ok()).unwrap_or(Value::from(0));
    if !from.is_number() && values.len().is_none_or(|n| n > MOST) {
        return Err(over(format!("it sums more than {MOST} values that are no numbers")));
    }
    filters::sum(state, values, of, start, named)
}

fn in_time() -> Result<bool, Error> {
    if UNTIL.get().is_some_and(|until| Instant::now() > until) {
        return Err(over(format!("it takes longer than {} s", LONGEST_TIME.as_secs())));
    }
    Ok(true)
}

/// Checks that a template is short.
pub fn check_length(source: &str) -> Result<(), Error> {
    match source.len() {
        ..=LONGEST_SOURCE => Ok(()),
        bytes => Err(over(format!("it has {bytes} bytes, and the most are {LONGEST_SOURCE}"))),
    }
}

/// Checks that a template is not deep, before the engine parses it.
pub fn check_depth(source: &str, syntax: SyntaxConfig) -> Result<(), Error> {
    let mut depth = Depth::default();
    // The parser reports what is no token. It reads no further than that.
    for (token, span) in tokenize(source, false, syntax).map_while(Result::ok) {
        if depth.push(&token) > DEEPEST {
            return Err(over(format!("line {} nests or chains more than {DEEPEST} deep", span.start_line)));
        }
    }
    Ok(())
}

/// A bracket that is open. All from one comma to the next is taken for one chain.
#[derive(Clone, Copy, Default)]
struct Bracket {
    /// Links of the chain so far.
    links: usize,
    /// The depth of the deepest bracket in the chain so far.
    within: usize,
    /// The depth of the deepest chain before.
    before: usize,
}

/// How deep the tree of the tokens so far can be.
#[derive(Default)]
struct Depth {
    /// The brackets that are open, the tag first.
    open: Vec<Bracket>,
    /// Links of all open brackets.
    links: usize,
    /// The blocks that are open: each with its branches.
    blocks: Vec<usize>,
    /// Whether the token before ends an operand.
    operand: bool,
    /// The tag has begun.
    begins: bool,
    /// The tag is a `set`, which begins a block unless it has a `=`.
    sets: bool,
}

impl Depth {
    /// The depth of the tree with this token.
    fn push(&mut self, token: &Token<'_>) -> usize {
        let begins = std::mem::take(&mut self.begins);
        let operand = std::mem::take(&mut self.operand);
        let mut deepest = 0;
        match token {
            Token::TemplateData(_) => {}
            Token::VariableStart | Token::BlockStart => {
                (self.open, self.links) = (vec![Bracket::default()], 0);
                (self.begins, self.sets) = (matches!(token, Token::BlockStart), false);
            }
            Token::VariableEnd | Token::BlockEnd => {
                if std::mem::take(&mut self.sets) {
                    self.blocks.push(1);
                }
                deepest = self.end_chain();
            }
            Token::Ident(word) if begins => self.block(word),
            Token::Ident("and" | "or" | "not" | "is" | "in" | "if" | "else") => self.link(),
            Token::Ident(_) | Token::Str(_) | Token::String(_) | Token::Int(_) | Token::Int128(_) | Token::Float(_) => {
                self.operand = true;
            }
            Token::Comma | Token::Colon => deepest = self.end_chain(),
            Token::Assign => {
                self.sets &= self.open.len() > 1;
                deepest = self.end_chain();
            }
            Token::BracketOpen | Token::ParenOpen | Token::BraceOpen => {
                if operand {
                    self.link(); // a call, or a subscript
                }
                self.open.push(Bracket::default());
            }
            Token::BracketClose | Token::ParenClose | Token::BraceClose => {
                deepest = self.end_chain();
                let closed = self.open.pop().unwrap_or_default();
                if let Some(around) = self.open.last_mut() {
                    around.within = around.within.max(closed.before + 1);
                }
                self.operand = true;
            }
            _ => self.link(),
        }
        deepest.max(self.links + self.open.len()).max(self.blocks.iter().sum())
    }

    fn link(&mut self) {
        if let Some(bracket) = self.open.last_mut() {
            bracket.links += 1;
            self.links += 1;
        }
    }

    /// Ends the chain of the innermost bracket. Returns how deep the chain is, with all around it.
    fn end_chain(&mut self) -> usize {
        let levels = self.open.len();
        let Some(bracket) = self.open.last_mut() else { return 0 };
        self.links -= bracket.links;
        let deep = bracket.links + bracket.within;
        *bracket = Bracket { before: bracket.before.max(deep), ..Bracket::default() };
        levels + self.links + deep
    }

    fn block(&mut self, word: &str) {
        match word {
            "elif" => self.blocks.last_mut().into_iter().for_each(|branches| *branches += 1),
            "set" => self.sets = true,
            _ if word.starts_with("end") => drop(self.blocks.pop()),
            "if" | "for" | "macro" | "call" | "filter" | "with" | "block" | "autoescape" => self.blocks.push(1),
            _ => {}
        }
    }
}

/// Renders the template `chat`.
///
/// # Errors
/// When it fails, or takes too much.
pub fn render(environment: &Environment<'_>, context: Value) -> Result<String, Error> {
    sound(|| render_until(Instant::now() + LONGEST_TIME, environment, context))
}

/// Calls the engine, which panics at some templates: those that leave a loop from within a `set` block, say.
pub fn sound<T>(work: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
    caught(work).unwrap_or_else(|panic| Err(failed(format!("it breaks the engine: {panic}"))))
}

fn render_until(until: Instant, environment: &Environment<'_>, context: Value) -> Result<String, Error> {
    let template = environment.get_template("chat")?;
    let compiled = get_compiled_template(&template);
    let instructions = watched(&compiled.instructions)?;
    let blocks = compiled.blocks.iter().map(|(name, block)| Ok((*name, watched(block)?)));
    let blocks = blocks.collect::<Result<BTreeMap<_, _>, Error>>()?;
    let mut text = String::new();
    UNTIL.set(Some(until));
    let mut out = make_string_output(&mut text);
    eval(environment, &instructions, context, &blocks, &mut out, AutoEscape::None)?;
    fits(text.len())?;
    Ok(text)
}

/// The instructions of a template, with tests of the values that they make.
fn watched<'s>(old: &Instructions<'s>) -> Result<Instructions<'s>, Error> {
    use Instruction as I;
    let test = |name| I::PerformTest(name, Some(1), !0);
    let group = |instruction: &I<'s>, next: u32| {
        Ok(match instruction {
            I::Include(_) | I::LoadBlocks => return Err(over("it reads another template")),
            I::SetAttr(_) => vec![I::Swap, I::DupTop, test(STORABLE), I::DiscardTop, I::Swap, instruction.clone()],
            I::Add
            | I::Mul
            | I::Slice
            | I::BuildList(_)
            | I::BuildTuple(_)
            | I::BuildMap(_)
            | I::ApplyFilter(..)
            | I::CallFunction(..)
            | I::CallMethod(..)
            | I::CallObject(_) => {
                let settled = I::ApplyFilter(SETTLED, Some(1), !0);
                vec![instruction.clone(), I::DupTop, test(LOOSE), I::JumpIfFalse(next), settled]
            }
            I::Eq
            | I::Ne
            | I::Gt
            | I::Gte
            | I::Lt
            | I::Lte
            | I::In
            | I::CompareAndPreserve(_)
            | I::GetItem
            | I::PerformTest(..) => vec![instruction.clone(), I::DupTop, test(IN_TIME), I::DiscardTop],
            _ => vec![instruction.clone()],
        })
    };
    let mut starts = vec![0];
    for at in 0.. {
        let Some(instruction) = old.get(at) else { break };
        starts.push(starts[at as usize] + group(instruction, 0)?.len() as u32);
    }
    let mut new = Instructions::new(old.name(), old.source());
    for at in 0..starts.len() as u32 - 1 {
        let Some(instruction) = old.get(at) else { break };
        let mut instruction = instruction.clone();
        if let I::Jump(to)
        | I::JumpIfFalse(to)
        | I::JumpIfFalseOrPop(to)
        | I::JumpIfTrueOrPop(to)
        | I::Iterate(to)
        | I::BuildMacro(_, to, _) = &mut instruction
        {
            *to = starts[*to as usize];
        }
        for instruction in group(&instruction, starts[at as usize + 1])? {
            match (old.get_span(at), old.get_line(at)) {
                (Some(span), _) => new.add_with_span(instruction, span),
                (None, line) => new.add_with_line(instruction, line.unwrap_or(0) as u16),
            };
        }
    }
    Ok(new)
}

fn is_namespace(value: &Value) -> bool {
    value.as_object().is_some_and(|object| object.type_name().ends_with("::Namespace"))
}

/// How large a value is.
#[derive(Default)]
struct Size {
    parts: usize,
    bytes: usize,
}

impl Size {
    /// Counts a value and all within it, as often as it is there. Returns the same without sequences that are lazy, if it has any.
    fn settle(&mut self, value: &Value, depth: usize) -> Result<Option<Value>, Error> {
        self.add(1)?;
        self.bytes += value.as_bytes().map_or(0, <[u8]>::len);
        fits(self.bytes)?;
        if value.kind() == ValueKind::Invalid {
            return Err(failed(value.to_string()));
        }
        let Some(object) = value.as_object().filter(|object| object.repr() != ObjectRepr::Plain) else {
            return Ok(None);
        };
        if depth == DEEPEST {
            return Err(over(format!("it nests lists or objects more than {DEEPEST} deep")));
        }
        // It could hold itself.
        if depth > 0 && is_namespace(value) {
            return Err(over("it puts a namespace into a list or an object"));
        }
        // A chain of objects is lazy, though it is an object.
        let mut changed = object.repr() == ObjectRepr::Iterable || object.type_name().contains("::merge_object::");
        let mut item = |value: Value, size: &mut Size| {
            let settled = size.settle(&value, depth + 1)?;
            changed |= settled.is_some();
            Ok::<_, Error>(settled.unwrap_or(value))
        };
        if object.repr() == ObjectRepr::Map {
            let pairs = object.try_iter_pairs().into_iter().flatten();
            let pairs = pairs.map(|(key, value)| Ok((item(key, self)?, item(value, self)?)));
            let pairs: Vec<_> = pairs.collect::<Result<_, Error>>()?;
            return Ok(changed.then(|| Value::from_pairs(pairs)));
        }
        // One that is too long is not begun.
        Size { ..*self }.add(object.enumerator_len().unwrap_or(0))?;
        let items = object.try_iter().into_iter().flatten().map(|value| item(value, self));
        let items: Vec<_> = items.collect::<Result<_, Error>>()?;
        let all = |items| if value.is_tuple() { Tuple::from(items).into() } else { Value::from(items) };
        Ok(changed.then(|| all(items)))
    }

    fn add(&mut self, parts: usize) -> Result<(), Error> {
        self.parts = self.parts.saturating_add(parts);
        if self.parts > MOST_PARTS {
            return Err(over(format!("it makes a list or an object of more than {MOST_PARTS} values")));
        }
        Ok(())
    }
}

/// Checks that what a text says in the ways of `printf` or `str.format` fits.
pub fn check_format(text: &str, open: char, args: &[Value]) -> Result<(), Error> {
    let (mut fields, mut widest) = (0, 0);
    for field in text.split(open).skip(1) {
        let field = if open == '%' { field.split_once(')').map_or(field, |(_, spec)| spec) } else { field };
        let spec = field.split(|c: char| c == '}' || open == '%' && c.is_alphabetic()).next().unwrap_or_default();
        for number in spec.split(|c: char| !c.is_ascii_digit()).filter(|digits| !digits.is_empty()) {
            widest = number.parse().unwrap_or(usize::MAX).max(widest);
        }
        fields += 1;
    }
    for arg in args {
        let said = arg.as_str().map_or_else(|| arg.to_string().len(), str::len);
        // It may be a width: `%*d`.
        let width = arg.as_i64().filter(|_| text.contains('*')).map_or(0, |n| n.unsigned_abs() as usize);
        widest = widest.max(said).max(width);
    }
    fits(text.len().saturating_add(widest.saturating_mul(fields)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn depth(source: &str) -> usize {
        let mut depth = Depth::default();
        let tokens = tokenize(source, false, SyntaxConfig::default()).map(|token| depth.push(&token.unwrap().0));
        tokens.max().unwrap_or(0)
    }

    #[test]
    fn a_rendering_ends_in_time() {
        let context = || Value::from_pairs([("x", Value::from(vec![1, 2]))]);
        for template in
            ["{{ [x] }}", "{{ x == 2 }}", "{{ x[0] }}", "{{ x|last }}", "{{ 'a'.join(x) }}", "{{ x is defined }}"]
        {
            let environment = super::super::jinja::environment(template).unwrap();
            assert!(render(&environment, context()).is_ok());
            let error = render_until(Instant::now() - Duration::from_secs(1), &environment, context()).unwrap_err();
            assert!(exceeded(&error).unwrap().contains("takes longer than"), "{template}: {error}");
        }
    }

    #[test]
    fn a_loop_that_is_left_from_within_a_block_ends_with_a_word_or_works() {
        let blocks = [
            ("{% with y = 1 %}", "{% endwith %}"),
            ("{% set y %}", "{% endset %}"),
            ("{% filter upper %}", "{% endfilter %}"),
            ("{% for y in x %}", "{% endfor %}"),
        ];
        for way in ["break", "continue"] {
            for (open, close) in blocks {
                for times in [1, 5] {
                    let (open, close) = (open.repeat(times), close.repeat(times));
                    let template = format!("{{% for z in x %}}{open}{{% {way} %}}{close}{{% endfor %}}{open}{close}");
                    let environment = super::super::jinja::environment(&template).unwrap();
                    let _ = render(&environment, Value::from_pairs([("x", Value::from(vec![1, 2]))]));
                }
            }
        }
    }

    #[test]
    fn the_depth_of_a_source_is_that_of_its_deepest_place() {
        for (source, want) in [
            ("a ((((", 0),
            ("{{ a }}{{ b }}", 1),
            ("{{ a, b, c }}", 1),
            ("{{ - - a }}", 3),
            ("{{ a + b + c, d }}", 3),
            ("{{ a.b[0](c)|d }}", 6),
            ("{{ [a + b, c + d, [e, f], g.h, [i]] + j }}", 4),
            ("{{ [[[a]]] + b }}", 5),
            ("{{ '((((' ~ \"[[\" }}", 2),
            ("{# (((( #}{% raw %}{{ (((( }}{% endraw %}", 0),
            ("{% if a %}{% elif b %}{% elif c %}{% if d %}{% endif %}{% endif %}", 4),
            ("{% set a = 1 %}{% set b = 1 %}{% set c = 1 %}", 1),
            ("{% set a %}{% set b %}{% set c %}{% endset %}{% endset %}{% endset %}", 3),
        ] {
            assert_eq!(depth(source), want, "{source}");
        }
    }
}
