//! What a kernel needs, read from the machine code that NVRTC makes: an ELF file.

/// Tags of the attributes in `.nv.info`, each of a function: a symbol and a value.
const REGISTERS: u8 = 0x2f;
const STACK: u8 = 0x11;
/// The form of an attribute with a size and a payload.
const SIZED: u8 = 4;
const SYMBOL_TABLE: u32 = 2;
const SYMBOL_BYTES: usize = 24;

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

/// Reads the needs of every function in an image.
pub fn needs(image: &[u8]) -> Vec<Needs> {
    let word = |at: usize| u32::from_le_bytes(image[at..at + 4].try_into().unwrap());
    let half = |at: usize| usize::from(u16::from_le_bytes(image[at..at + 2].try_into().unwrap()));
    let long = |at: usize| u64::from_le_bytes(image[at..at + 8].try_into().unwrap()) as usize;
    let text = |at: usize| {
        let end = image[at..].iter().position(|b| *b == 0).unwrap();
        String::from_utf8(image[at..at + end].to_vec()).unwrap()
    };
    let section = |i: usize| {
        let at = long(0x28) + i * half(0x3a);
        Section {
            name: word(at) as usize,
            kind: word(at + 4),
            at: long(at + 24),
            bytes: long(at + 32),
            link: word(at + 40) as usize,
        }
    };
    let sections: Vec<Section> = (0..half(0x3c)).map(section).collect();
    let names = sections[half(0x3e)].at;
    let symbols = sections.iter().find(|s| s.kind == SYMBOL_TABLE).unwrap();
    let info = sections.iter().find(|s| text(names + s.name) == ".nv.info").unwrap();
    let mut found: Vec<Needs> = Vec::new();
    let mut at = info.at;
    while at < info.at + info.bytes {
        let (form, tag, size) = (image[at], image[at + 1], half(at + 2));
        at += 4;
        if form != SIZED {
            continue;
        }
        if [REGISTERS, STACK].contains(&tag) {
            let name = text(sections[symbols.link].at + word(symbols.at + SYMBOL_BYTES * word(at) as usize) as usize);
            let i = found.iter().position(|f| f.name == name).unwrap_or_else(|| {
                found.push(Needs { name, ..Needs::default() });
                found.len() - 1
            });
            let value = if tag == REGISTERS { &mut found[i].registers } else { &mut found[i].stack };
            *value = word(at + 4);
        }
        at += size;
    }
    found
}
