//! Tables as one Parquet file each, a row group per segment: memory in use is one segment's.
use std::io::Write;
use std::sync::Arc;

use parquet::file::writer::SerializedFileWriter;

use super::ExportError;
use crate::format::Manifest;
use crate::index::IndexRow;
use crate::rates::{self, RateSeries};
use crate::reader::History;
use crate::segment::{KEY_GUEST, PAGES, WWS};
use crate::table::{Column, Kind, Packing, Table, Values, properties, schema, write_group};
use crate::windows::Window;

/// As in a segment, with the number of the window beside its times.
const WINDOWS: Table = Table {
    name: "windows",
    columns: &[
        Column::new("window", Kind::U32, Packing::Delta),
        Column::new("start", Kind::Time, Packing::Delta),
        Column::new("end", Kind::Time, Packing::Delta),
        Column::new("state", Kind::Word, Packing::Dictionary),
        Column::new("written_pages", Kind::U32, Packing::Delta),
        Column::new("zero_pages", Kind::U32, Packing::Delta),
        Column::new("cost_us", Kind::U32, Packing::Delta),
    ],
};

const RATES: Table = Table {
    name: "rates",
    columns: &[
        Column::new("start", Kind::Time, Packing::Delta),
        Column::new("end", Kind::Time, Packing::Delta),
        Column::new("written_pages", Kind::U64, Packing::Delta),
        Column::new("span_ns", Kind::U64, Packing::Delta),
    ],
};

/// Writes one row per window, with the columns of [`super::windows_csv`]; times are timestamps in nanoseconds, UTC.
pub fn windows_parquet(history: &History, out: &mut (dyn Write + Send)) -> Result<(), ExportError> {
    let mut file = Export::begin(&WINDOWS, history.manifest(), out)?;
    for segment in history.segments() {
        let windows = history.windows(segment)?;
        let numbers = Values::U32(segment.windows().map(u32::cast_signed).collect());
        file.group(&std::iter::once(numbers).chain(Window::columns(&windows)).collect::<Vec<_>>())?;
    }
    file.end()
}

/// Writes one row per page written in a window, with the columns of [`super::pages_csv`].
pub fn pages_parquet(history: &History, out: &mut (dyn Write + Send)) -> Result<(), ExportError> {
    let mut file = Export::begin(&PAGES, history.manifest(), out)?;
    for segment in history.segments() {
        let mut stream = history.stream(segment.windows());
        let (mut windows, mut pages) = (Vec::new(), Vec::new());
        while let Some(view) = stream.next_window()? {
            windows.extend(std::iter::repeat_n(view.index.cast_signed(), view.written.len()));
            pages.extend(view.written.iter().map(|rank| history.tracked().page_of_rank(*rank).cast_signed()));
        }
        file.group(&[Values::U32(windows), Values::U64(pages)])?;
    }
    file.end()
}

/// Writes one row per row of the WWS index, with the columns of [`super::wws_csv`].
pub fn wws_parquet(history: &History, out: &mut (dyn Write + Send)) -> Result<(), ExportError> {
    let mut file = Export::begin(&WWS, history.manifest(), out)?;
    for segment in history.segments() {
        file.group(&IndexRow::columns(&history.index(segment)?))?;
    }
    file.end()
}

/// Writes one row per rate, with the columns of [`super::rates_csv`]; times are timestamps in nanoseconds, UTC.
pub fn rates_parquet(series: &RateSeries, out: &mut (dyn Write + Send)) -> Result<(), ExportError> {
    let mut file = Export::begin(&RATES, series.manifest(), out)?;
    file.group(&rates::columns(series.rates()))?;
    file.end()
}

/// A file that is being written.
struct Export<'a>(SerializedFileWriter<&'a mut (dyn Write + Send)>);

impl<'a> Export<'a> {
    fn begin(table: &Table, manifest: &Manifest, out: &'a mut (dyn Write + Send)) -> Result<Export<'a>, ExportError> {
        let metadata = vec![(KEY_GUEST.to_owned(), manifest.guest_id.to_string())];
        let properties = Arc::new(properties(table, metadata)?);
        Ok(Export(SerializedFileWriter::new(out, schema(table)?, properties)?))
    }

    fn group(&mut self, values: &[Values]) -> Result<(), ExportError> {
        // As in a segment: a group without rows has columns without pages.
        if values.iter().any(|values| !values.is_empty()) {
            write_group(&mut self.0, values)?;
        }
        Ok(())
    }

    fn end(self) -> Result<(), ExportError> {
        Ok(self.0.close().map(drop)?)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use parquet::data_type::{ByteArrayType, DataType, Int32Type, Int64Type};

    use super::super::{pages_csv, rates_csv, windows_csv, wws_csv};
    use super::*;
    use crate::table::Encoded;

    fn kept() -> History {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/format/v1/history");
        History::open(&dir).unwrap()
    }

    fn column<T: DataType>(table: &Encoded, index: usize) -> Vec<T::T> {
        table.column::<T>(index).read_all().unwrap()
    }

    /// A column as CSV shows it.
    fn shown(table: &Encoded, index: usize, kind: Kind) -> Vec<String> {
        let time = |ns: i64| format!("{:.9}", crate::reader::timestamp(ns));
        match kind {
            Kind::Time => column::<Int64Type>(table, index).into_iter().map(time).collect(),
            Kind::U64 => column::<Int64Type>(table, index).into_iter().map(|value| value.to_string()).collect(),
            Kind::Word => {
                let words = column::<ByteArrayType>(table, index);
                words.iter().map(|word| String::from_utf8(word.data().to_vec()).unwrap()).collect()
            }
            _ => column::<Int32Type>(table, index).into_iter().map(|value| value.to_string()).collect(),
        }
    }

    /// A Parquet file as the CSV it must be equal to.
    fn as_csv(table: &Table, bytes: Vec<u8>) -> String {
        let file = Encoded::open(table, bytes.into(), u64::MAX).unwrap();
        let columns: Vec<Vec<String>> =
            table.columns.iter().enumerate().map(|(index, column)| shown(&file, index, column.kind)).collect();
        let names: Vec<&str> = table.columns.iter().map(|column| column.name).collect();
        let row = |row: usize| columns.iter().map(|column| column[row].as_str()).collect::<Vec<_>>().join(",");
        let rows = (0..columns[0].len()).map(row);
        std::iter::once(names.join(",")).chain(rows).map(|line| line + "\n").collect()
    }

    #[test]
    fn both_forms_of_each_table_say_the_same() {
        let history = kept();
        type ToCsv = fn(&History, &mut dyn Write) -> Result<(), ExportError>;
        type ToParquet = fn(&History, &mut (dyn Write + Send)) -> Result<(), ExportError>;
        let tables: [(&Table, ToCsv, ToParquet); 3] = [
            (&WINDOWS, windows_csv, windows_parquet),
            (&PAGES, pages_csv, pages_parquet),
            (&WWS, wws_csv, wws_parquet),
        ];
        for (table, to_csv, to_parquet) in tables {
            let (mut text, mut bytes) = (Vec::new(), Vec::new());
            to_csv(&history, &mut text).unwrap();
            to_parquet(&history, &mut bytes).unwrap();
            let text = String::from_utf8(text).unwrap();
            assert!(text.lines().count() > 40, "{}", table.name);
            assert_eq!(as_csv(table, bytes), text);
        }
    }

    #[test]
    fn rates_come_back_from_both_forms() {
        let dir = tempfile::tempdir().unwrap();
        let rate = |index: i64| crate::rates::Rate {
            start_unix_ns: index * 30_000_000_001,
            end_unix_ns: index * 30_000_000_001 + 1_500_000_000,
            written: index.unsigned_abs() * 7,
            span: std::time::Duration::from_millis(900),
        };
        let mut manifest = kept().manifest().clone();
        manifest.format = Manifest::format_of_rates();
        manifest.written_means = crate::format::WrittenMeans::Rate;
        let series = RateSeries::create(dir.path(), manifest, (0..50).map(rate).collect()).unwrap();
        let (mut text, mut bytes) = (Vec::new(), Vec::new());
        rates_csv(&series, &mut text).unwrap();
        rates_parquet(&series, &mut bytes).unwrap();
        let text = String::from_utf8(text).unwrap();
        assert_eq!(
            text.lines().nth(2),
            Some("1970-01-01T00:00:30.000000001Z,1970-01-01T00:00:31.500000001Z,7,900000000")
        );
        assert_eq!(as_csv(&RATES, bytes), text);
    }

    #[test]
    fn exported_csv_holds_every_window_and_page() {
        let history = kept();
        let mut text = Vec::new();
        pages_csv(&history, &mut text).unwrap();
        let text = String::from_utf8(text).unwrap();
        let mut rows = text.lines().skip(1).map(|line| {
            let (window, page) = line.split_once(',').unwrap();
            (window.parse::<u32>().unwrap(), page.parse::<u64>().unwrap())
        });
        let mut stream = history.stream(0..u32::MAX);
        while let Some(view) = stream.next_window().unwrap() {
            for rank in view.written {
                assert_eq!(rows.next(), Some((view.index, history.tracked().page_of_rank(*rank))));
            }
        }
        assert_eq!(rows.next(), None);
    }
}
