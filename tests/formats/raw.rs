//! A GGUF file taken apart, to be changed in one place and put together again. It trusts what it reads and checks nothing
//! that it writes.

#![allow(dead_code, reason = "each test file uses its own part of this")]

#[derive(Clone)]
pub struct Raw {
    pub magic: [u8; 4],
    pub version: u32,
    /// Name, type, value.
    pub keys: Vec<(Vec<u8>, u32, Vec<u8>)>,
    pub tensors: Vec<RawTensor>,
    /// What the header says, where it lies.
    pub key_count: Option<u64>,
    pub tensor_count: Option<u64>,
}

#[derive(Clone)]
pub struct RawTensor {
    pub name: Vec<u8>,
    pub dims: Vec<u64>,
    pub dim_count: Option<u32>,
    pub kind: u32,
    pub data: Vec<u8>,
    /// Where it says it is, where it lies.
    pub offset: Option<u64>,
}

struct Reader<'a>(&'a [u8], usize);

impl<'a> Reader<'a> {
    fn take(&mut self, n: usize) -> &'a [u8] {
        self.1 += n;
        &self.0[self.1 - n..self.1]
    }
    fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.take(4).try_into().unwrap())
    }
    fn u64(&mut self) -> u64 {
        u64::from_le_bytes(self.take(8).try_into().unwrap())
    }
    fn string(&mut self) -> &'a [u8] {
        let n = self.u64() as usize;
        self.take(n)
    }
    fn skip(&mut self, kind: u32) {
        match kind {
            0 | 1 | 7 => drop(self.take(1)),
            2 | 3 => drop(self.take(2)),
            4..=6 => drop(self.take(4)),
            8 => drop(self.string()),
            9 => {
                let (kind, n) = (self.u32(), self.u64());
                (0..n).for_each(|_| self.skip(kind));
            }
            _ => drop(self.take(8)),
        }
    }
}

impl Raw {
    pub fn parse(bytes: &[u8]) -> Raw {
        let mut r = Reader(bytes, 0);
        let magic = r.take(4).try_into().unwrap();
        let (version, tensors, keys) = (r.u32(), r.u64(), r.u64());
        let key = |r: &mut Reader<'_>| {
            let (name, kind, start) = (r.string().to_vec(), r.u32(), r.1);
            r.skip(kind);
            (name, kind, bytes[start..r.1].to_vec())
        };
        let keys = (0..keys).map(|_| key(&mut r)).collect();
        let info = |r: &mut Reader<'_>| {
            let (name, n) = (r.string().to_vec(), r.u32());
            let dims = (0..n).map(|_| r.u64()).collect();
            (name, dims, r.u32(), r.u64() as usize)
        };
        let infos: Vec<(Vec<u8>, Vec<u64>, u32, usize)> = (0..tensors).map(|_| info(&mut r)).collect();
        let start = r.1.next_multiple_of(32);
        let ends = infos.iter().skip(1).map(|i| i.3).chain([bytes.len() - start]);
        let tensors = infos.iter().zip(ends).map(|((name, dims, kind, offset), end)| {
            let data = bytes[start + offset..start + end].to_vec();
            RawTensor { name: name.clone(), dims: dims.clone(), dim_count: None, kind: *kind, data, offset: None }
        });
        Raw { magic, version, keys, tensors: tensors.collect(), key_count: None, tensor_count: None }
    }

    pub fn bytes(&self) -> Vec<u8> {
        let mut out = self.magic.to_vec();
        out.extend(self.version.to_le_bytes());
        out.extend(self.tensor_count.unwrap_or(self.tensors.len() as u64).to_le_bytes());
        out.extend(self.key_count.unwrap_or(self.keys.len() as u64).to_le_bytes());
        for (name, kind, value) in &self.keys {
            out.extend(string(name));
            out.extend(kind.to_le_bytes());
            out.extend(value);
        }
        let mut offset = 0u64;
        for t in &self.tensors {
            out.extend(string(&t.name));
            out.extend(t.dim_count.unwrap_or(t.dims.len() as u32).to_le_bytes());
            out.extend(t.dims.iter().flat_map(|d| d.to_le_bytes()));
            out.extend(t.kind.to_le_bytes());
            out.extend(t.offset.unwrap_or(offset).to_le_bytes());
            offset += (t.data.len() as u64).next_multiple_of(32);
        }
        for t in &self.tensors {
            out.resize(out.len().next_multiple_of(32), 0);
            out.extend(&t.data);
        }
        out
    }

    pub fn key(&mut self, name: &str) -> &mut (Vec<u8>, u32, Vec<u8>) {
        self.keys.iter_mut().find(|k| k.0 == name.as_bytes()).unwrap_or_else(|| panic!("key {name}"))
    }

    pub fn set(&mut self, name: &str, kind: u32, value: &[u8]) {
        self.keys.retain(|k| k.0 != name.as_bytes());
        self.keys.push((name.as_bytes().to_vec(), kind, value.to_vec()));
    }

    pub fn remove(&mut self, name: &str) {
        self.keys.retain(|k| k.0 != name.as_bytes());
    }

    pub fn tensor(&mut self, name: &str) -> &mut RawTensor {
        self.tensors.iter_mut().find(|t| t.name == name.as_bytes()).unwrap_or_else(|| panic!("tensor {name}"))
    }
}

/// A string as GGUF writes it.
pub fn string(s: &[u8]) -> Vec<u8> {
    [&(s.len() as u64).to_le_bytes(), s].concat()
}
