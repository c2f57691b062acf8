//! What a kernel needs and what its loops consist of, read from the machine code that NVRTC makes: an ELF file.

use std::ops::Range;

/// Tags of the attributes in `.nv.info`, each of a function: a symbol and a value.
const REGISTERS: u8 = 0x2f;
const STACK: u8 = 0x11;
/// The form of an attribute with a size and a payload.
const SIZED: u8 = 4;
const SYMBOL_TABLE: u32 = 2;
const SYMBOL_BYTES: usize = 24;

/// Bytes of an instruction. Its first 12 bits say what it does; the form of its operands is in the upper three.
const INSTRUCTION: usize = 16;
const OPERATION: u64 = 0x1ff;
const BRANCH: u64 = 0x147;
const EXIT: u64 = 0x14d;
const MULTIPLY_ADD: u64 = 0x023;
/// Products of tiles on tensor cores, of f16 and of int8.
const TENSOR: [u64; 2] = [0x03c, 0x037];

/// A function's needs.
#[derive(Debug, Default)]
pub struct Needs {
    pub name: String,
    /// Of a thread.
    pub registers: u32,
    /// Bytes of a thread's frame; values that found no register lie there.
    pub stack: u32,
}

struct Section {
    name: usize,
    kind: u32,
    at: usize,
    bytes: usize,
    link: usize,
}

/// An image and its sections.
struct Elf<'a> {
    image: &'a [u8],
    sections: Vec<Section>,
    names: usize,
}

impl<'a> Elf<'a> {
    fn new(image: &'a [u8]) -> Self {
        let mut elf = Elf { image, sections: Vec::new(), names: 0 };
        let section = |i: usize| {
            let at = elf.long(0x28) + i * elf.half(0x3a);
            let [name, kind, link] = [at, at + 4, at + 40].map(|at| elf.word(at));
            let [name, link] = [name, link].map(|n| n as usize);
            Section { name, kind, at: elf.long(at + 24), bytes: elf.long(at + 32), link }
        };
        elf.sections = (0..elf.half(0x3c)).map(section).collect();
        elf.names = elf.sections[elf.half(0x3e)].at;
        elf
    }

    fn word(&self, at: usize) -> u32 {
        u32::from_le_bytes(self.image[at..at + 4].try_into().unwrap())
    }

    fn half(&self, at: usize) -> usize {
        u16::from_le_bytes(self.image[at..at + 2].try_into().unwrap()).into()
    }

    fn long(&self, at: usize) -> usize {
        u64::from_le_bytes(self.image[at..at + 8].try_into().unwrap()) as usize
    }

    fn text(&self, at: usize) -> &'a str {
        let end = self.image[at..].iter().position(|b| *b == 0).unwrap();
        std::str::from_utf8(&self.image[at..at + end]).unwrap()
    }

    fn name(&self, section: &Section) -> &'a str {
        self.text(self.names + section.name)
    }
}

/// Reads the needs of every function in an image.
pub fn needs(image: &[u8]) -> Vec<Needs> {
    let elf = Elf::new(image);
    let symbols = elf.sections.iter().find(|s| s.kind == SYMBOL_TABLE).unwrap();
    let info = elf.sections.iter().find(|s| elf.name(s) == ".nv.info").unwrap();
    let mut found: Vec<Needs> = Vec::new();
    let mut at = info.at;
    while at < info.at + info.bytes {
        let (form, tag, size) = (image[at], image[at + 1], elf.half(at + 2));
        at += 4;
        if form != SIZED {
            continue;
        }
        if [REGISTERS, STACK].contains(&tag) {
            let symbol = elf.word(symbols.at + SYMBOL_BYTES * elf.word(at) as usize) as usize;
            let name = elf.text(elf.sections[symbols.link].at + symbol).to_string();
            let i = found.iter().position(|f| f.name == name).unwrap_or_else(|| {
                found.push(Needs { name, ..Needs::default() });
                found.len() - 1
            });
            let value = if tag == REGISTERS { &mut found[i].registers } else { &mut found[i].stack };
            *value = elf.word(at + 4);
        }
        at += size;
    }
    found
}

/// A loop: instructions that end with a branch back to the first.
#[derive(Clone, Debug)]
pub struct Loop {
    pub function: String,
    /// Numbers of its instructions.
    pub code: Range<usize>,
    /// Multiply-adds of f32 among them.
    pub multiply_adds: usize,
    /// On its best way: most products of tiles on tensor cores, then most multiply-adds, then fewest instructions.
    pub way: Way,
}

/// A way through a loop. It leaves out what seldom runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Way {
    /// Products of tiles on tensor cores.
    pub products: usize,
    /// Multiply-adds of f32.
    pub multiply_adds: usize,
    /// Those of inner loops count once.
    pub instructions: usize,
}

impl Loop {
    /// Whether it is a part of another loop.
    pub fn is_within(&self, other: &Loop) -> bool {
        let (a, b) = (&self.code, &other.code);
        self.function == other.function && a != b && b.start <= a.start && a.end <= b.end
    }
}

/// The instructions of a function, two words each.
struct Code {
    words: Vec<[u64; 2]>,
    capability: (usize, usize),
}

impl Code {
    fn operation(&self, i: usize) -> u64 {
        self.words[i][0] & OPERATION
    }

    /// Where a branch goes.
    fn target(&self, i: usize) -> Option<usize> {
        let [low, high] = self.words[i];
        if self.operation(i) != BRANCH {
            return None;
        }
        // The distance from the next instruction, in units of four bytes. From 9.0 on, its lowest byte stands apart.
        let upper = ((low >> 34 | (high & 0x3ffff) << 30) as i64) << 16 >> 16;
        let distance = if self.capability < (9, 0) { upper } else { upper << 8 | (low >> 16 & 0xff) as i64 };
        usize::try_from(i as i64 + 1 + distance * 4 / INSTRUCTION as i64).ok()
    }

    /// Whether it is the branch for a warp whose threads have diverged.
    fn is_for_diverged(&self, i: usize) -> bool {
        self.words[i][1] & 1 << 27 != 0
    }

    /// Whether the instruction behind it may be next: not behind a branch or an exit without a condition.
    fn falls_through(&self, i: usize) -> bool {
        let [low, high] = self.words[i];
        let branch = self.operation(i) == BRANCH && high >> 23 & 0x1f == 7;
        !((branch || self.operation(i) == EXIT) && low >> 12 & 0xf == 7)
    }

    /// The best way through a loop, which goes forward. None where its end cannot be reached.
    fn way(&self, code: &Range<usize>) -> Option<Way> {
        // Most products, then most multiply-adds, then fewest instructions, before each instruction.
        let mut best: Vec<Option<(usize, usize, isize)>> = vec![None; code.len()];
        best[0] = Some((0, 0, 0));
        for i in code.clone() {
            let Some((products, multiply_adds, less)) = best[i - code.start] else { continue };
            let products = products + usize::from(TENSOR.contains(&self.operation(i)));
            let multiply_adds = multiply_adds + usize::from(self.operation(i) == MULTIPLY_ADD);
            let here = (products, multiply_adds, less - 1);
            if i + 1 == code.end {
                return Some(Way { products, multiply_adds, instructions: here.2.unsigned_abs() });
            }
            let branch = self.target(i).filter(|to| !self.is_for_diverged(i) && (i + 1..code.end).contains(to));
            for next in self.falls_through(i).then_some(i + 1).into_iter().chain(branch) {
                let there = &mut best[next - code.start];
                *there = (*there).max(Some(here));
            }
        }
        None
    }
}

/// The loops of every function in an image for a compute capability.
pub fn loops(image: &[u8], capability: (usize, usize)) -> Vec<Loop> {
    let elf = Elf::new(image);
    let mut found = Vec::new();
    for section in &elf.sections {
        let Some(function) = elf.name(section).strip_prefix(".text.") else { continue };
        let words = |i: usize| [0, 8].map(|half| elf.long(section.at + i * INSTRUCTION + half) as u64);
        let code = Code { words: (0..section.bytes / INSTRUCTION).map(words).collect(), capability };
        for i in 0..code.words.len() {
            // The last instruction of a function branches to itself.
            let Some(to) = code.target(i).filter(|to| *to < i) else { continue };
            let its = to..i + 1;
            let multiply_adds = its.clone().filter(|i| code.operation(*i) == MULTIPLY_ADD).count();
            let way = code.way(&its).unwrap_or_default();
            found.push(Loop { function: function.to_string(), code: its, multiply_adds, way });
        }
    }
    found
}

/// The innermost of the loops that multiply on tensor cores.
pub fn tensor_loops(loops: &[Loop]) -> Vec<&Loop> {
    let mut all: Vec<&Loop> = loops.iter().filter(|l| l.way.products > 0).collect();
    all.sort_by_key(|l| l.code.len());
    let mut inner: Vec<&Loop> = Vec::new();
    for l in all {
        let apart = |other: &&Loop| {
            l.function != other.function || l.code.end <= other.code.start || other.code.end <= l.code.start
        };
        if inner.iter().all(apart) {
            inner.push(l);
        }
    }
    inner
}
