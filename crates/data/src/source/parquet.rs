//! Parquet: a document is the text column's value in each row; only that column is read.

use std::fs::File;
use std::path::{Path, PathBuf};

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::{DataType, Schema};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder};

use super::Document;
use crate::error::{Error, Result, io};

/// Rows decoded at a time; FineWeb-Edu's average 5 kB.
const BATCH: usize = 256;

/// The number of rows by the footer, after a check that the text column exists and holds text.
pub(crate) fn rows(path: &Path, column: &str) -> Result<u64> {
    let builder = builder(path)?;
    text_column(path, builder.schema(), column)?;
    Ok(builder.metadata().file_metadata().num_rows().unsigned_abs())
}

/// The documents of a parquet file. Each row stands for an equal share of the file's bytes.
pub(crate) struct Rows {
    path: PathBuf,
    reader: ParquetRecordBatchReader,
    column: ArrayRef,
    /// Next row in `column`.
    next: usize,
    /// Rows given so far and in all, and the bytes of the file.
    given: u64,
    total: u64,
    bytes: u64,
    done: bool,
}

impl Rows {
    pub(crate) fn open(file: &super::File, column: &str) -> Result<Self> {
        let path = &file.path;
        let builder = builder(path)?;
        let index = text_column(path, builder.schema(), column)?;
        let rows = builder.metadata().file_metadata().num_rows().unsigned_abs();
        let mask = ProjectionMask::roots(builder.parquet_schema(), [index]);
        let empty = arrow::array::new_empty_array(builder.schema().field(index).data_type());
        let reader = builder.with_projection(mask).with_batch_size(BATCH).build().map_err(damaged(path))?;
        Ok(Self {
            path: path.clone(),
            reader,
            column: empty,
            next: 0,
            given: 0,
            total: rows,
            bytes: file.bytes,
            done: false,
        })
    }

    fn document(&mut self) -> Result<Option<Document>> {
        while self.next == self.column.len() {
            let batch: RecordBatch = match self.reader.next() {
                Some(batch) => batch.map_err(|e| Error::Parquet {
                    path: self.path.clone(),
                    detail: format!("after row {}: {e}", self.given),
                })?,
                None if self.given < self.total => {
                    let detail = format!("{} rows of {}", self.given, self.total);
                    return Err(Error::Parquet { path: self.path.clone(), detail });
                }
                None => return Ok(None),
            };
            self.column = batch.column(0).clone();
            self.next = 0;
        }
        let text = value(&self.column, self.next).unwrap_or_default().to_owned();
        self.next += 1;
        self.given += 1;
        let share = |row: u64| u128::from(self.bytes) * u128::from(row) / u128::from(self.total.max(1));
        let bytes = (share(self.given) - share(self.given - 1)) as u64;
        Ok(Some(Document { text, bytes }))
    }
}

impl Iterator for Rows {
    type Item = Result<Document>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.done {
            return None;
        }
        let item = self.document().transpose();
        self.done = !matches!(item, Some(Ok(_)));
        item
    }
}

/// The string at `row`, or `None` for a null. `column` is of a type that [`text_column`] accepted.
fn value(column: &ArrayRef, row: usize) -> Option<&str> {
    if column.is_null(row) {
        return None;
    }
    Some(match column.data_type() {
        DataType::Utf8 => column.as_string::<i32>().value(row),
        DataType::LargeUtf8 => column.as_string::<i64>().value(row),
        _ => column.as_string_view().value(row),
    })
}

fn builder(path: &Path) -> Result<ParquetRecordBatchReaderBuilder<File>> {
    let file = File::open(path).map_err(io(path))?;
    ParquetRecordBatchReaderBuilder::try_new(file).map_err(damaged(path))
}

fn damaged(path: &Path) -> impl FnOnce(parquet::errors::ParquetError) -> Error + '_ {
    |e| Error::Parquet { path: path.to_owned(), detail: e.to_string() }
}

/// Index of the text column among the schema's root fields.
fn text_column(path: &Path, schema: &Schema, column: &str) -> Result<usize> {
    let place = || path.display().to_string();
    let Some((index, field)) = schema.column_with_name(column) else {
        let names: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
        return Err(Error::Column { place: place(), column: column.to_owned(), found: names.join(", ") });
    };
    match field.data_type() {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => Ok(index),
        other => {
            Err(Error::ColumnType { place: place(), column: column.to_owned(), found: other.to_string() })
        }
    }
}
