//! Reads a column of strings of a Parquet file.
//!
//! The reader holds a page, which by custom is 1 MiB of a part of a column. A part that is larger than the free memory is
//! refused, as its pages may be. The reader unpacks a page of gzip before it compares its length with what the file says, so a
//! file that lies can take up to a thousand times its size.

use super::progress::Meter;
use super::read::Rows;
use super::sources::Source;
use crate::error::{Error, Result, caught};
use crate::files::{self, Links};
use crate::memory;
use parquet::column::reader::ColumnReader;
use parquet::errors::ParquetError;
use parquet::file::reader::{FileReader, SerializedFileReader};
use std::path::Path;

/// Rows read at once.
const ROWS: usize = 64;

/// Hands the strings of the column `rows.field` to `rows`; a null is a row without a text.
pub(super) fn read(source: &Source, meter: &Meter, rows: &mut Rows<'_>) -> Result<()> {
    let path = rows.path;
    let file = files::open(path, Links::Follow)?;
    let reader = call(path, || SerializedFileReader::new(file))?;
    let schema = reader.metadata().file_metadata().schema_descr();
    let column = schema.columns().iter().position(|c| c.path().string() == rows.field);
    let Some(column) = column else {
        let names: Vec<String> = schema.columns().iter().map(|c| c.path().string()).collect();
        let what = format!("has no column `{}`, but {}", rows.field, names.join(", "));
        return Err(Error::invalid(path, what));
    };
    let of = schema.column(column);
    if of.max_rep_level() > 0 {
        return Err(Error::invalid(path, format!("the column `{}` holds lists, not strings", rows.field)));
    }
    let mut number = 0;
    for group in 0..reader.num_row_groups() {
        let size = call(path, || Ok(reader.metadata().row_group(group).column(column).uncompressed_size()))?;
        check_size(path, size, memory::free())?;
        let chunk = call(path, || reader.get_row_group(group)?.get_column_reader(column))?;
        let ColumnReader::ByteArrayColumnReader(mut chunk) = chunk else {
            return Err(Error::invalid(path, format!("the column `{}` does not hold strings", rows.field)));
        };
        loop {
            let (mut present, mut values) = (Vec::new(), Vec::new());
            let read = call(path, || chunk.read_records(ROWS, Some(&mut present), None, &mut values))?.0;
            if read == 0 {
                break;
            }
            let mut values = values.iter();
            for row in 0..read {
                number += 1;
                // A column that must be there has no levels.
                let here = present.get(row).is_none_or(|level| *level == of.max_def_level());
                let text = match if here { values.next() } else { None } {
                    Some(value) => std::str::from_utf8(value.data()).map_err(|_| "is not UTF-8".to_string()),
                    None => Err("is null".to_string()),
                };
                rows.row(number, text)?;
            }
        }
    }
    meter.add(source.size);
    Ok(())
}

/// Checks the bytes of a part of a column.
fn check_size(path: &Path, bytes: i64, free: u64) -> Result<()> {
    let advice = || format!("write {} again with smaller groups of rows", path.display());
    match usize::try_from(bytes) {
        Ok(bytes) => memory::check(bytes, free, &advice()),
        Err(_) => Err(Error::invalid(path, format!("cannot be read as Parquet: a column has {bytes} bytes"))),
    }
}

/// Calls the reader, which panics at some damaged files; panics become errors.
fn call<T>(path: &Path, read: impl FnOnce() -> Result<T, ParquetError>) -> Result<T> {
    let why = match caught(read) {
        Ok(Ok(read)) => return Ok(read),
        Ok(Err(e)) => e.to_string(),
        Err(_) => "it is damaged".to_string(),
    };
    Err(Error::invalid(path, format!("cannot be read as Parquet: {why}")))
}

#[cfg(test)]
mod tests {
    use super::super::documents::{Documents, Format, Side, Split};
    use super::super::read::Chunk;
    use super::super::report::Report;
    use parquet::basic::Compression;
    use parquet::data_type::{ByteArray, ByteArrayType};
    use parquet::file::properties::WriterProperties;
    use parquet::file::writer::SerializedFileWriter;
    use parquet::schema::parser::parse_message_type;
    use std::path::Path;

    /// A file of two equal groups of rows with a column `body`: texts, of which `None` is null.
    fn write(path: &Path, kind: &str, rows: &[Option<&[u8]>], compression: Compression) {
        let schema = parse_message_type(&format!("message m {{ required int32 id; {kind} body; }}")).unwrap();
        let properties = WriterProperties::builder().set_compression(compression).build();
        let file = std::fs::File::create(path).unwrap();
        let mut writer = SerializedFileWriter::new(file, schema.into(), properties.into()).unwrap();
        let optional = kind.starts_with("optional");
        for _ in 0..2 {
            let mut group = writer.next_row_group().unwrap();
            let ids: Vec<i32> = (0..rows.len() as i32).collect();
            let mut column = group.next_column().unwrap().unwrap();
            column.typed::<parquet::data_type::Int32Type>().write_batch(&ids, None, None).unwrap();
            column.close().unwrap();
            let mut column = group.next_column().unwrap().unwrap();
            let values: Vec<ByteArray> = rows.iter().flatten().map(|text| text.to_vec().into()).collect();
            let levels: Vec<i16> = rows.iter().map(|row| row.is_some().into()).collect();
            column.typed::<ByteArrayType>().write_batch(&values, optional.then_some(&levels[..]), None).unwrap();
            column.close().unwrap();
            group.close().unwrap();
        }
        writer.close().unwrap();
    }

    fn read(path: &Path, field: &str) -> crate::Result<(Vec<String>, Report)> {
        let format = Format { field: field.into(), end: None, spellings: vec![] };
        let documents = Documents::open(path, format, 0.1)?;
        let (mut all, mut open, mut report) = (vec![], String::new(), Report::default());
        documents.each("reading", Split::All(Side::Train), &mut |_, chunk| {
            match chunk {
                Chunk::Text(text) => open += text,
                Chunk::End => all.push(std::mem::take(&mut open)),
            }
            Ok(())
        })?;
        documents.report(&mut report);
        Ok((all, report))
    }

    #[test]
    fn strings_are_documents_and_nulls_are_counted() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.parquet");
        let many: Vec<String> = (0..200).map(|i| format!("text {i}")).collect();
        let mut rows: Vec<Option<&[u8]>> = vec![Some(b"one"), None, Some("zwölf".as_bytes()), Some(b""), Some(b"\xff")];
        rows.extend(many.iter().map(|text| Some(text.as_bytes())));
        for compression in [Compression::UNCOMPRESSED, Compression::SNAPPY, Compression::LZ4_RAW] {
            write(&path, "optional binary", &rows, compression);
            let (all, report) = read(&path, "body").unwrap();
            assert_eq!((all.len(), &all[..3]), (404, &["one", "zwölf", "text 0"].map(String::from)[..]));
            assert_eq!(report.skipped.count, 4);
            assert!(report.skipped.first[0].contains("row 2 is null"), "{report}");
            assert!(report.skipped.first[1].contains("row 5 is not UTF-8"), "{report}");
        }
        write(&path, "required binary", &[Some(b"must be")], Compression::SNAPPY);
        assert_eq!(read(&path, "body").unwrap().0, ["must be", "must be"]);
    }

    #[test]
    fn a_part_of_a_column_that_takes_more_than_the_free_memory_is_refused() {
        let check = |bytes, free| super::check_size(Path::new("a.parquet"), bytes, free).map_err(|e| e.to_string());
        assert_eq!(check(1 << 20, 2 << 20), Ok(()));
        assert!(check(3 << 20, 2 << 20).unwrap_err().contains("takes 3 MiB of memory"));
        assert!(check(3 << 20, 2 << 20).unwrap_err().contains("write a.parquet again"));
        assert!(check(-1, 2 << 20).unwrap_err().contains("-1 bytes"));
    }

    #[test]
    fn what_is_not_a_column_of_strings_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.parquet");
        write(&path, "optional binary", &[None], Compression::SNAPPY);
        let refusal = |field: &str| read(&path, field).unwrap_err().to_string();
        assert!(refusal("text").contains("no column `text`, but id, body"), "{}", refusal("text"));
        assert!(refusal("id").contains("does not hold strings"));
        assert!(refusal("body").contains("none of its 2 rows"), "{}", refusal("body"));
        let whole = std::fs::read(&path).unwrap();
        for damaged in [&b"PAR1"[..], &whole[..whole.len() / 2], &[whole.clone(), vec![0; 9]].concat()] {
            std::fs::write(&path, damaged).unwrap();
            assert!(refusal("body").contains("cannot be read as Parquet"), "{}", refusal("body"));
        }
        write(&path, "optional binary", &[Some(b"a text"), None, Some(b"more text")], Compression::SNAPPY);
        let whole = std::fs::read(&path).unwrap();
        for at in 0..whole.len() {
            for bit in [0, 3, 7] {
                let mut damaged = whole.clone();
                damaged[at] ^= 1 << bit;
                std::fs::write(&path, damaged).unwrap();
                let _ = read(&path, "body"); // anything but a panic
            }
        }
    }
}
