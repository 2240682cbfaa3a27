//! Tables as Parquet files in memory: columns of integers, booleans and words, none of them nullable.
use std::io::Write;
use std::sync::Arc;

use bytes::Bytes;
use parquet::basic::{Compression, Encoding, LogicalType, Repetition, TimeUnit, Type as Physical, ZstdLevel};
use parquet::column::reader::{ColumnReaderImpl, get_column_reader, get_typed_column_reader};
use parquet::data_type::{BoolType, ByteArray, ByteArrayType, DataType, Int32Type, Int64Type};
use parquet::errors::ParquetError;
use parquet::file::metadata::KeyValue;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::types::{ColumnPath, Type};

use crate::bounded::BoundedPages;
use crate::quote::quoted;
use crate::seal;

/// A table's name and columns.
#[derive(Debug)]
pub(crate) struct Table {
    pub(crate) name: &'static str,
    pub(crate) columns: &'static [Column],
}

/// A column: its name, what it holds and how it is packed.
#[derive(Debug)]
pub(crate) struct Column {
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
    pub(crate) packing: Packing,
}

impl Column {
    pub(crate) const fn new(name: &'static str, kind: Kind, packing: Packing) -> Column {
        Column { name, kind, packing }
    }
}

/// What a column holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    U16,
    U32,
    U64,
    Bool,
    /// Nanoseconds since the Unix epoch, UTC.
    Time,
    Word,
}

/// How a column is packed, before zstd. Chosen by size on recordings; see `docs/history-format.md`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Packing {
    Plain,
    Dictionary,
    Delta,
}

/// A column's values.
#[derive(Debug)]
pub(crate) enum Values {
    U32(Vec<i32>),
    U64(Vec<i64>),
    Bool(Vec<bool>),
    Word(Vec<&'static str>),
}

impl Values {
    pub(crate) fn is_empty(&self) -> bool {
        match self {
            Values::U32(values) => values.is_empty(),
            Values::U64(values) => values.is_empty(),
            Values::Bool(values) => values.is_empty(),
            Values::Word(values) => values.is_empty(),
        }
    }
}

impl Kind {
    fn physical(self) -> Physical {
        match self {
            Kind::U16 | Kind::U32 => Physical::INT32,
            Kind::U64 | Kind::Time => Physical::INT64,
            Kind::Bool => Physical::BOOLEAN,
            Kind::Word => Physical::BYTE_ARRAY,
        }
    }

    fn logical(self) -> Option<LogicalType> {
        match self {
            Kind::U16 => Some(LogicalType::integer(16, false)),
            Kind::U32 => Some(LogicalType::integer(32, false)),
            Kind::U64 => Some(LogicalType::integer(64, false)),
            Kind::Time => Some(LogicalType::timestamp(true, TimeUnit::NANOS)),
            Kind::Word => Some(LogicalType::String),
            Kind::Bool => None,
        }
    }
}

/// Encodes a table with its key-value metadata, and seals it. `values` are as many as the table has columns, all of one length.
pub(crate) fn encode(
    table: &Table,
    values: &[Values],
    metadata: Vec<(String, String)>,
) -> Result<Vec<u8>, ParquetError> {
    assert_eq!(table.columns.len(), values.len(), "a value list per column of {}", table.name);
    let seal = (seal::KEY.to_owned(), seal::OPEN.to_owned());
    let metadata = metadata.into_iter().chain([seal]).collect();
    let mut file = SerializedFileWriter::new(Vec::new(), schema(table)?, Arc::new(properties(table, metadata)?))?;
    // A row group without rows (a guest that wrote nothing has no events) has columns without pages, whose offsets
    // mean nothing; a reader takes them for damage. No rows, no group.
    if values.iter().any(|values| !values.is_empty()) {
        write_group(&mut file, values)?;
    }
    let mut bytes = file.into_inner()?;
    seal::seal(&mut bytes);
    Ok(bytes)
}

/// Appends a row group; `values` as for [`encode`], not empty.
pub(crate) fn write_group<W: Write + Send>(
    file: &mut SerializedFileWriter<W>,
    values: &[Values],
) -> Result<(), ParquetError> {
    let mut group = file.next_row_group()?;
    for values in values {
        let mut column = group.next_column()?.expect("the schema has a column per value list");
        match values {
            Values::U32(v) => column.typed::<Int32Type>().write_batch(v, None, None)?,
            Values::U64(v) => column.typed::<Int64Type>().write_batch(v, None, None)?,
            Values::Bool(v) => column.typed::<BoolType>().write_batch(v, None, None)?,
            Values::Word(v) => {
                let words: Vec<ByteArray> = v.iter().map(|word| ByteArray::from(*word)).collect();
                column.typed::<ByteArrayType>().write_batch(&words, None, None)?
            }
        };
        column.close()?;
    }
    group.close()?;
    Ok(())
}

pub(crate) fn schema(table: &Table) -> Result<Arc<Type>, ParquetError> {
    let fields = table.columns.iter().map(|column| {
        Type::primitive_type_builder(column.name, column.kind.physical())
            .with_repetition(Repetition::REQUIRED)
            .with_logical_type(column.kind.logical())
            .build()
            .map(Arc::new)
    });
    let fields = fields.collect::<Result<Vec<_>, _>>()?;
    Ok(Arc::new(Type::group_type_builder(table.name).with_fields(fields).build()?))
}

pub(crate) fn properties(table: &Table, metadata: Vec<(String, String)>) -> Result<WriterProperties, ParquetError> {
    let metadata = metadata.into_iter().map(|(key, value)| KeyValue::new(key, value)).collect();
    let mut properties = WriterProperties::builder()
        .set_created_by(concat!("migcast-history ", env!("CARGO_PKG_VERSION")).into())
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(ZSTD_LEVEL)?))
        .set_statistics_enabled(EnabledStatistics::Chunk)
        .set_offset_index_disabled(true)
        .set_dictionary_page_size_limit(DICTIONARY_BYTES)
        .set_key_value_metadata(Some(metadata));
    for column in table.columns {
        let path = ColumnPath::from(column.name);
        properties = properties.set_column_dictionary_enabled(path.clone(), column.packing == Packing::Dictionary);
        properties = match column.packing {
            Packing::Dictionary => properties,
            Packing::Plain => properties.set_column_encoding(path, Encoding::PLAIN),
            Packing::Delta => properties.set_column_encoding(path, Encoding::DELTA_BINARY_PACKED),
        };
    }
    Ok(properties.build())
}

/// Higher levels save little and the recorder pays their time: see what `examples/sizes.rs` prints at 9.
const ZSTD_LEVEL: i32 = 3;

/// Dictionaries hold the distinct values of a column; window numbers and buckets stay far below this.
const DICTIONARY_BYTES: usize = 1 << 20;

/// Why a table cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum TableError {
    /// The bytes are not a Parquet file, or a damaged one.
    #[error("not a readable Parquet file ({reason})")]
    Parquet {
        /// What the decoder said, on one line: it may quote the file.
        reason: String,
    },
    /// The decoder gave up on the bytes in a way of its own.
    #[error("not a readable Parquet file (the decoder stopped at an inconsistency)")]
    Decoder,
    /// The columns are not those of the table.
    #[error("its columns are {found}, not {expected}")]
    Columns {
        /// What the file has.
        found: String,
        /// What the table must have.
        expected: String,
    },
    /// A piece of the file lies outside it, or its numbers contradict each other.
    #[error("its footer contradicts itself ({what})")]
    Footer {
        /// Which numbers.
        what: &'static str,
    },
    /// More rows than such a table may have.
    #[error("{rows} rows, allowed: up to {allowed}")]
    Rows {
        /// What the footer says.
        rows: i64,
        /// The most.
        allowed: u64,
    },
}

/// Runs a piece of decoding. The decoder panics on some pages that no writer makes; a seal keeps damage away from it, but
/// a forged file has a seal too.
fn guarded<V>(decode: impl FnOnce() -> Result<V, TableError>) -> Result<V, TableError> {
    // What the closure borrows is a reader that is given up after an error, and a list that is cleared before use.
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(decode)).unwrap_or(Err(TableError::Decoder))
}

impl From<ParquetError> for TableError {
    fn from(error: ParquetError) -> TableError {
        TableError::Parquet { reason: quoted(&error.to_string()) }
    }
}

/// An encoded table that was found to have the right columns and a footer that makes sense.
pub(crate) struct Encoded {
    bytes: Bytes,
    file: Arc<SerializedFileReader<Bytes>>,
    rows: u64,
}

impl Encoded {
    /// Opens an encoded table of at most `rows_max` rows.
    pub(crate) fn open(table: &Table, bytes: Bytes, rows_max: u64) -> Result<Encoded, TableError> {
        let length = bytes.len() as u64;
        let file = guarded(|| Ok(SerializedFileReader::new(bytes.clone())?))?;
        let metadata = file.metadata();
        check_columns(table, &file)?;
        let rows = metadata.file_metadata().num_rows();
        let allowed = u64::try_from(rows).ok().filter(|rows| *rows <= rows_max);
        let allowed = allowed.ok_or(TableError::Rows { rows, allowed: rows_max })?;
        let mut sum = 0i64;
        for group in metadata.row_groups() {
            if group.num_rows() < 0 || group.num_columns() != table.columns.len() {
                return Err(TableError::Footer { what: "row group" });
            }
            sum = sum.checked_add(group.num_rows()).ok_or(TableError::Footer { what: "rows" })?;
            for column in group.columns() {
                let start = column.dictionary_page_offset().unwrap_or_else(|| column.data_page_offset());
                let end = start.checked_add(column.compressed_size());
                let inside = start >= 0
                    && column.compressed_size() >= 0
                    && end.is_some_and(|end| end.unsigned_abs() <= length)
                    && column.data_page_offset() >= start;
                if !inside || column.num_values() != group.num_rows() {
                    return Err(TableError::Footer { what: "column chunk" });
                }
            }
        }
        if sum != rows {
            return Err(TableError::Footer { what: "rows" });
        }
        Ok(Encoded { bytes, file: Arc::new(file), rows: allowed })
    }

    /// How many rows it says it has.
    pub(crate) fn rows(&self) -> u64 {
        self.rows
    }

    /// A value of the file's metadata.
    pub(crate) fn metadata(&self, key: &str) -> Option<&str> {
        let pairs = self.file.metadata().file_metadata().key_value_metadata()?;
        pairs.iter().find(|pair| pair.key == key)?.value.as_deref()
    }

    /// Reads a column from its first row on.
    pub(crate) fn column<T: DataType>(&self, index: usize) -> Cursor<T> {
        let (bytes, file) = (self.bytes.clone(), Arc::clone(&self.file));
        Cursor { bytes, file, index, group: 0, left: self.rows, reader: None }
    }
}

fn check_columns(table: &Table, file: &SerializedFileReader<Bytes>) -> Result<(), TableError> {
    let schema = file.metadata().file_metadata().schema_descr();
    let described = schema.columns().iter().map(|column| {
        let flat = column.max_def_level() == 0 && column.max_rep_level() == 0;
        format!("{} {}{}", column.path().string(), column.physical_type(), if flat { "" } else { " nested" })
    });
    let found = described.collect::<Vec<_>>().join(", ");
    let expected = table.columns.iter().map(|column| format!("{} {}", column.name, column.kind.physical()));
    let expected = expected.collect::<Vec<_>>().join(", ");
    if found == expected { Ok(()) } else { Err(TableError::Columns { found: quoted(&found), expected }) }
}

/// A place in a column.
pub(crate) struct Cursor<T: DataType> {
    bytes: Bytes,
    file: Arc<SerializedFileReader<Bytes>>,
    index: usize,
    group: usize,
    /// Rows the footer promised that have not been read.
    left: u64,
    reader: Option<ColumnReaderImpl<T>>,
}

impl<T: DataType> Cursor<T> {
    /// Replaces `values` by the next up to `max` ones; none are left when it stays empty.
    pub(crate) fn read(&mut self, max: usize, values: &mut Vec<T::T>) -> Result<(), TableError> {
        values.clear();
        guarded(|| self.read_some(max, values))?;
        // Pages state their number of values, too, and a few bytes can stand for billions of equal ones.
        let left = self.left.checked_sub(values.len() as u64);
        self.left = left.ok_or(TableError::Footer { what: "rows" })?;
        Ok(())
    }

    fn read_some(&mut self, max: usize, values: &mut Vec<T::T>) -> Result<(), TableError> {
        loop {
            if self.reader.is_none() {
                if self.group == self.file.num_row_groups() {
                    return Ok(());
                }
                self.reader = Some(self.open_group()?);
                self.group += 1;
            }
            let reader = self.reader.as_mut().expect("it was just made");
            let (records, _, _) = reader.read_records(max, None, None, values)?;
            if records > 0 {
                return Ok(());
            }
            self.reader = None;
        }
    }

    fn open_group(&self) -> Result<ColumnReaderImpl<T>, TableError> {
        let group = self.file.metadata().row_group(self.group);
        let chunk = group.column(self.index);
        let rows = usize::try_from(group.num_rows()).map_err(|_| TableError::Footer { what: "row group" })?;
        let pages = BoundedPages::new(self.bytes.clone(), chunk, rows)?;
        Ok(get_typed_column_reader(get_column_reader(chunk.column_descr_ptr(), Box::new(pages))))
    }

    /// All values that are left. For tables whose rows were limited on opening.
    pub(crate) fn read_all(mut self) -> Result<Vec<T::T>, TableError> {
        let (mut all, mut some) = (Vec::new(), Vec::new());
        loop {
            self.read(1 << 16, &mut some)?;
            if some.is_empty() {
                return Ok(all);
            }
            all.append(&mut some);
        }
    }
}
