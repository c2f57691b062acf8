//! Files that arrive in pieces.

use super::{model, small, tiniest, trained_tokenizer};
use nanotern::formats::gguf::{Layout, Stream};
use nanotern::formats::{Format, ModelFile, Tensor};

/// Feeds a file in pieces; what came of it.
fn arrive(bytes: &[u8], total: Option<u64>, piece: usize) -> Result<(Stream, Vec<Tensor>), String> {
    let (mut stream, mut tensors) = (Stream::new(total), Vec::new());
    for chunk in bytes.chunks(piece) {
        stream.push(chunk)?;
        tensors.extend(std::iter::from_fn(|| stream.next_tensor().transpose()).collect::<Result<Vec<_>, _>>()?);
    }
    stream.end()?;
    tensors.extend(std::iter::from_fn(|| stream.next_tensor().transpose()).collect::<Result<Vec<_>, _>>()?);
    stream.finish()?;
    Ok((stream, tensors))
}

fn file() -> (ModelFile, Vec<u8>) {
    let model = model(&tiniest(), 300, Some(&trained_tokenizer(300)));
    let bytes = Layout::new(&model, Format::Q1_58).unwrap().to_vec();
    (model, bytes)
}

#[test]
fn a_file_in_pieces_is_the_whole_file() {
    let (model, bytes) = file();
    for piece in [1, 7, 1000, 1 << 16, bytes.len()] {
        for total in [Some(bytes.len() as u64), None] {
            let (stream, tensors) = arrive(&bytes, total, piece).unwrap();
            let head = stream.head().unwrap();
            assert_eq!((&head.config, head.vocab, &head.text), (&model.config, model.vocab, &model.text));
            assert_eq!(head.param_count(), model.param_count());
            assert_eq!(tensors, model.tensors, "pieces of {piece}");
        }
    }
}

#[test]
fn the_head_is_there_before_the_weights() {
    let model = model(&small(), 4096, None);
    let bytes = Layout::new(&model, Format::Tq2_0).unwrap().to_vec();
    let mut stream = Stream::new(Some(bytes.len() as u64));
    stream.push(&bytes[..1 << 16]).unwrap();
    assert_eq!(stream.head().unwrap().vocab, 4096);
    assert_eq!(stream.next_tensor().unwrap(), None, "the embedding takes 2 MiB");
}

#[test]
fn a_cut_file_says_so() {
    let (_, bytes) = file();
    let total = bytes.len() as u64;
    for have in [0, 10, 5000, bytes.len() - 1] {
        let error = arrive(&bytes[..have], Some(total), 4096).err().unwrap();
        assert!(error.contains(&format!("{have} of its {total} bytes")), "{error}");
        assert!(arrive(&bytes[..have], None, 4096).is_err(), "{have} bytes of an unknown number");
    }
    let error = arrive(&bytes, Some(total - 1), 4096).err().unwrap();
    assert!(error.contains("more than"), "{error}");
}

#[test]
fn a_wrong_file_fails_as_soon_as_it_can() {
    let total = 1u64 << 40;
    let page = b"<!doctype html>".repeat(5000);
    let error = arrive(&page, Some(total), 1 << 16).err().unwrap();
    assert!(error.contains("not a GGUF file"), "{error}");
    // A head whose tensors would lie beyond the end of the file.
    let (_, bytes) = file();
    let head = bytes.len() as u64 - 64;
    let error = arrive(&bytes[..head as usize], Some(head), 1 << 16).err().unwrap();
    assert!(error.contains("out of range"), "{error}");
}
