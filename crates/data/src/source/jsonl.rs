//! JSON lines: a document is the text field of each line's object; blank lines and nulls are skipped.

use std::fmt;
use std::path::Path;

use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, Visitor};

use super::Document;
use super::lines::LineReader;
use crate::error::{Error, Result};

/// The documents of a .jsonl file.
pub(crate) struct Lines {
    reader: LineReader,
    column: String,
    done: bool,
}

impl Lines {
    pub(crate) fn open(path: &Path, column: &str) -> Result<Self> {
        Ok(Self { reader: LineReader::open(path)?, column: column.to_owned(), done: false })
    }

    /// The next line's document, with empty text for a blank line or a null.
    fn document(&mut self) -> Result<Option<Document>> {
        let Some(line) = self.reader.next_line()? else {
            return Ok(None);
        };
        let bytes = line.len() as u64;
        if line.trim().is_empty() {
            return Ok(Some(Document { text: String::new(), bytes }));
        }
        let field = parse(line, &self.column);
        let place = || format!("{}, line {}", self.reader.path().display(), self.reader.number());
        match field {
            Ok(Field::Text(text)) => Ok(Some(Document { text, bytes })),
            Ok(Field::Null) => Ok(Some(Document { text: String::new(), bytes })),
            Ok(Field::Other(found)) => Err(Error::ColumnType {
                place: place(),
                column: self.column.clone(),
                found: found.to_owned(),
            }),
            Ok(Field::Absent(keys)) => {
                Err(Error::Column { place: place(), column: self.column.clone(), found: keys.join(", ") })
            }
            Err(e) => Err(Error::Json {
                path: self.reader.path().to_owned(),
                line: self.reader.number(),
                detail: e.to_string(),
            }),
        }
    }
}

impl Iterator for Lines {
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

/// What a line holds under the text column.
enum Field {
    Text(String),
    Null,
    Other(&'static str),
    Absent(Vec<String>),
}

fn parse(line: &str, column: &str) -> serde_json::Result<Field> {
    let mut deserializer = serde_json::Deserializer::from_str(line);
    let field = Pick(column).deserialize(&mut deserializer)?;
    deserializer.end()?;
    Ok(field)
}

/// Reads one field of an object and steps over the others without building them.
struct Pick<'a>(&'a str);

impl<'de> DeserializeSeed<'de> for Pick<'_> {
    type Value = Field;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> std::result::Result<Field, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Pick<'_> {
    type Value = Field;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<Field, A::Error> {
        let (mut keys, mut picked) = (Vec::new(), None);
        while let Some(key) = map.next_key::<String>()? {
            if key == self.0 {
                if picked.is_some() {
                    return Err(A::Error::custom(format!("field `{key}` twice")));
                }
                picked = Some(match map.next_value()? {
                    serde_json::Value::String(text) => Field::Text(text),
                    serde_json::Value::Null => Field::Null,
                    serde_json::Value::Bool(_) => Field::Other("a truth value"),
                    serde_json::Value::Number(_) => Field::Other("a number"),
                    serde_json::Value::Array(_) => Field::Other("a list"),
                    serde_json::Value::Object(_) => Field::Other("an object"),
                });
            } else {
                map.next_value::<IgnoredAny>()?;
                keys.push(key);
            }
        }
        Ok(picked.unwrap_or(Field::Absent(keys)))
    }
}
