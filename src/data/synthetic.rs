//! The embedded data set: dialogues about a closed world, generated from a seed, so that training, validation and a graded
//! exam need neither a file nor a network.
//!
//! A dialogue has one to four turns `<|user|>question<|end|>\n<|assistant|>answer<|end|>\n`, perhaps a courtesy before or
//! after them, and ends with `<|eos|>`. Some documents are plain code instead. The *held-out* questions do not depend on the
//! seed. They are one phrasing of some facts, which training sees in other words, and all phrasings of some facts that follow
//! from similar ones (repeating a word, code with another constant). None of them occurs in the training text; the validation
//! text consists of them alone.

use super::world::{self, Fact, Hold, TASKS};
use crate::rng::Rng;
use crate::tokenizer::{ASSISTANT, END, EOS, USER};

/// Least bytes of training text in the data set of a run.
pub const TRAIN_BYTES: usize = 3 << 20;

/// How often each held-out question occurs in the validation text.
const VAL_ROUNDS: usize = 3;

/// Seed of the choice of held-out questions. It does not depend on the seed of the text, so that any model can be examined.
const HOLD_OUT_SEED: u64 = 0x7e57;

/// A question with its one right answer.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Question {
    /// The task: `animals`, `lands`, `arithmetic`, `comparison`, `sequence`, `letters`, `repeat` or `code`.
    pub task: &'static str,
    /// The model's input: the user's turn and the marker that opens the answer.
    pub prompt: String,
    /// The text that the model should generate before `<|end|>`.
    pub answer: String,
}

/// Training and validation text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Text {
    /// At least the requested number of bytes, ending with a whole document.
    pub train: String,
    /// Dialogues of held-out questions.
    pub val: String,
}

/// The prompt for `question`: a user's turn and the marker that opens the answer.
pub fn prompt(question: &str) -> String {
    format!("{USER}{question}{END}\n{ASSISTANT}")
}

/// The questions that training never sees, in a fixed order.
pub fn held_out() -> Vec<Question> {
    split().1
}

/// The questions that occur in training text, by task, in a fixed order.
pub fn trained_on() -> Vec<Question> {
    split().0
}

/// Generates at least `train_bytes` of training text from `seed`, and the validation text.
pub fn generate(seed: u64, train_bytes: usize) -> Text {
    let (train, val) = split();
    Text { train: train_text(&train, seed, train_bytes), val: val_text(&val, seed) }
}

/// All questions: those for training and those held out.
fn split() -> (Vec<Question>, Vec<Question>) {
    let mut rng = Rng::new(HOLD_OUT_SEED);
    let (mut train, mut held_out) = (Vec::new(), Vec::new());
    for Fact { task, questions, answer, hold } in world::facts() {
        // Both are drawn for every fact, so that the result does not depend on the kind of the facts before it.
        let (one_in_three, one_in_six) = (rng.below(3) == 0, rng.below(6) == 0);
        let one = rng.below(questions.len() as u64) as usize;
        for (i, question) in questions.iter().enumerate() {
            let out = match hold {
                Hold::Phrasing => one_in_three && i == one,
                Hold::Fact => one_in_six,
            };
            let list = if out { &mut held_out } else { &mut train };
            list.push(Question { task, prompt: prompt(question), answer: answer.clone() });
        }
    }
    (train, held_out)
}

fn push_turn(text: &mut String, prompt: &str, answer: &str) {
    for part in [prompt, answer, END, "\n"] {
        text.push_str(part);
    }
}

fn train_text(questions: &[Question], seed: u64, bytes: usize) -> String {
    let by_task: Vec<Vec<&Question>> =
        TASKS.iter().map(|(task, _)| questions.iter().filter(|q| q.task == *task).collect()).collect();
    let mut rng = Rng::stream(seed, 0);
    let mut text = String::with_capacity(bytes + 4096);
    while text.len() < bytes {
        if rng.below(100) < 3 {
            code_document(&mut text, &by_task[TASKS.len() - 1], &mut rng);
        } else {
            dialogue(&mut text, &by_task, &mut rng);
        }
        text.push_str(EOS);
    }
    text
}

fn dialogue(text: &mut String, by_task: &[Vec<&Question>], rng: &mut Rng) {
    let courtesy = |text: &mut String, kinds: std::ops::Range<usize>, rng: &mut Rng| {
        let &(questions, answer) = rng.pick(&world::CHAT[kinds]);
        let question: &&str = rng.pick(questions);
        push_turn(text, &prompt(question), answer);
    };
    if rng.below(20) == 0 {
        courtesy(text, 0..2, rng);
    }
    for _ in 0..turns(rng) {
        let mut ticket = rng.below(TASKS.iter().map(|(_, weight)| weight).sum());
        let task = TASKS.iter().position(|&(_, weight)| {
            let drawn = ticket < weight;
            ticket = ticket.saturating_sub(weight);
            drawn
        });
        let question = rng.pick(&by_task[task.expect("the ticket is below the sum of the weights")]);
        push_turn(text, &question.prompt, &question.answer);
    }
    if rng.below(20) == 0 {
        courtesy(text, 2..4, rng);
    }
}

/// One to four; fewer are more likely.
fn turns(rng: &mut Rng) -> usize {
    *rng.pick(&[1, 1, 1, 1, 2, 2, 2, 3, 3, 4])
}

fn code_document(text: &mut String, code: &[&Question], rng: &mut Rng) {
    for _ in 0..turns(rng) + 1 {
        text.push_str(&rng.pick(code).answer);
        text.push_str("\n\n");
    }
}

fn val_text(questions: &[Question], seed: u64) -> String {
    let mut rng = Rng::stream(seed, 1);
    let mut order: Vec<&Question> = questions.iter().collect();
    let mut text = String::new();
    for _ in 0..VAL_ROUNDS {
        rng.shuffle(&mut order);
        let mut rest = &order[..];
        while !rest.is_empty() {
            let (dialogue, tail) = rest.split_at(turns(&mut rng).min(rest.len()));
            for question in dialogue {
                push_turn(&mut text, &question.prompt, &question.answer);
            }
            text.push_str(EOS);
            rest = tail;
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::{BTreeMap, BTreeSet};

    #[test]
    fn held_out_questions_never_occur_in_training_text() {
        for seed in [0, 1] {
            let text = generate(seed, TRAIN_BYTES);
            let turns: BTreeSet<&str> = text.train.split(USER).flat_map(|t| t.split(END)).collect();
            for q in held_out() {
                let question = q.prompt.strip_prefix(USER).and_then(|p| p.split(END).next()).unwrap();
                assert!(!turns.contains(question), "{question}");
                assert!(text.val.contains(&format!("{}{}{END}", q.prompt, q.answer)), "{question}");
            }
            // A few by plain search, which does not depend on how the text is split into turns.
            for q in held_out().iter().step_by(20) {
                assert!(!text.train.contains(&q.prompt), "{}", q.prompt);
            }
        }
    }

    #[test]
    fn every_question_has_one_answer_and_no_slot_is_left() {
        let mut answers = BTreeMap::new();
        for q in trained_on().into_iter().chain(held_out()) {
            assert!(!q.prompt.contains("{}") && !q.prompt.contains("{0}") && !q.answer.is_empty(), "{}", q.prompt);
            assert_eq!(answers.insert(q.prompt.clone(), q.answer), None, "asked twice: {}", q.prompt);
        }
        assert!(answers.len() > 2000, "{}", answers.len());
    }

    #[test]
    fn every_task_is_examined_and_every_answer_of_a_rephrased_fact_is_taught() {
        let (train, held_out) = split();
        for (task, _) in TASKS {
            let n = held_out.iter().filter(|q| q.task == task).count();
            assert!((12..200).contains(&n), "{task}: {n}");
        }
        let taught: BTreeSet<_> = train.iter().map(|q| (q.task, &q.answer)).collect();
        for q in held_out.iter().filter(|q| !matches!(q.task, "repeat" | "code")) {
            assert!(taught.contains(&(q.task, &q.answer)), "{}", q.prompt);
        }
        // Each word is still taught with another number of repeats.
        let repeated: BTreeSet<&str> =
            train.iter().filter(|q| q.task == "repeat").filter_map(|q| q.answer.split(' ').next()).collect();
        assert_eq!(repeated.len(), 16);
    }

    #[test]
    fn text_depends_on_the_seed_alone() {
        let (a, b) = (generate(3, 50_000), generate(3, 50_000));
        assert_eq!(a, b);
        assert_ne!(a.train, generate(4, 50_000).train);
        assert!((50_000..60_000).contains(&a.train.len()) && a.train.ends_with(EOS) && a.val.ends_with(EOS));
        assert!(generate(3, 100_000).train.starts_with(&a.train));
        assert_eq!(crc32c::crc32c(a.train.as_bytes()), 3_104_472_236, "the text of a seed is part of the interface");
    }

    #[test]
    fn every_training_question_is_asked() {
        let text = generate(0, TRAIN_BYTES).train;
        let asked: BTreeSet<&str> = text.split(USER).collect();
        let unasked = trained_on()
            .iter()
            .filter(|q| {
                let turn = format!("{}{}{END}\n", &q.prompt[USER.len()..], q.answer);
                !asked.contains(&*turn) && !asked.contains(&*format!("{turn}{EOS}"))
            })
            .count();
        assert_eq!(unasked, 0);
    }
}
