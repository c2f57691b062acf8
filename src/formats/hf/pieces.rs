//! `tokenizer.model` of SentencePiece (Kudo and Richardson 2018): a message of protocol buffers. Its field 1, repeated, is a piece: 1 its
//! text, 2 its score, 3 its kind. Field 3 is how texts are prepared, of which 3 says whether they begin with a blank.

use super::super::cursor::Cursor;
use super::super::gguf::foreign_text::Pieces;

/// The value of a field.
enum Value<'a> {
    Number(u64),
    Fixed(u32),
    Bytes(&'a [u8]),
}

/// The `tokenizer.json` of the same tokenizer. The error says what is wrong.
pub(super) fn to_json(bytes: &[u8]) -> Result<String, String> {
    let (mut tokens, mut scores, mut kinds) = (Vec::new(), Vec::new(), Vec::new());
    let mut prefix = true;
    fields(bytes, |field, value| {
        match (field, value) {
            (1, Value::Bytes(piece)) => {
                let (mut text, mut score, mut kind) = ("", 0.0, 1);
                fields(piece, |field, value| {
                    match (field, value) {
                        (1, Value::Bytes(bytes)) => {
                            text = std::str::from_utf8(bytes)
                                .map_err(|_| format!("piece {} is not UTF-8", tokens.len()))?;
                        }
                        (2, Value::Fixed(bits)) => score = f32::from_bits(bits),
                        (3, Value::Number(n)) => kind = n,
                        _ => {}
                    }
                    Ok(())
                })?;
                tokens.push(text);
                scores.push(score);
                kinds.push(kind);
            }
            (3, Value::Bytes(prepared)) => fields(prepared, |field, value| {
                if let (3, Value::Number(n)) = (field, value) {
                    prefix = n != 0;
                }
                Ok(())
            })?,
            _ => {}
        }
        Ok(())
    })?;
    if tokens.is_empty() {
        return Err("it has no pieces".into());
    }
    Pieces { tokens: &tokens, scores: &scores, kind: &|id| kinds[id], unknown: None, prefix }.to_json()
}

/// Calls `each` for every field of a message.
fn fields<'a>(bytes: &'a [u8], mut each: impl FnMut(u64, Value<'a>) -> Result<(), String>) -> Result<(), String> {
    let mut c = Cursor::new(bytes, "");
    while c.remaining() > 0 {
        let tag = varint(&mut c)?;
        let value = match tag & 7 {
            0 => Value::Number(varint(&mut c)?),
            1 => Value::Bytes(c.take(8, "a field")?),
            2 => {
                let length = varint(&mut c)?;
                Value::Bytes(c.take(length, "a field")?)
            }
            5 => Value::Fixed(c.u32("a field")?),
            other => return Err(format!("field {} has the unknown type {other}", tag >> 3)),
        };
        each(tag >> 3, value)?;
    }
    Ok(())
}

/// A number of seven bits in each byte, the lowest first.
fn varint(c: &mut Cursor<'_>) -> Result<u64, String> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let [byte] = c.array::<1>("a number")?;
        number |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Ok(number);
        }
    }
    Err("a number has more than ten bytes".into())
}
