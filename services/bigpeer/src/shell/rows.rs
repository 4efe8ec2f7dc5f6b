//! Rows as the server sends them: the order of their columns is kept, which a JSON object forgets.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde::ser::{Serialize, SerializeMap, Serializer};
use serde_json::Value;

/// One row.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Row(pub(super) Vec<(String, Value)>);

impl Row {
    pub(super) fn get(&self, column: &str) -> Option<&Value> {
        self.0.iter().find(|(name, _)| name == column).map(|(_, value)| value)
    }
}

impl<'de> Deserialize<'de> for Row {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Fields;
        impl<'de> Visitor<'de> for Fields {
            type Value = Row;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a row")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Row, A::Error> {
                let mut row = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    row.push(entry);
                }
                Ok(Row(row))
            }
        }
        from.deserialize_map(Fields)
    }
}

impl Serialize for Row {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut map = to.serialize_map(Some(self.0.len()))?;
        for (name, value) in &self.0 {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

/// The columns of all rows, in the order in which they come first.
pub(super) fn columns(rows: &[Row]) -> Vec<&str> {
    let mut columns: Vec<&str> = Vec::new();
    let mut known = std::collections::BTreeSet::new();
    for (name, _) in rows.iter().flat_map(|row| &row.0) {
        if known.insert(name.as_str()) {
            columns.push(name);
        }
    }
    columns
}

/// A value as text: strings as they are, the rest as JSON.
pub(super) fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// Rows as comma-separated values with a header line.
pub(super) fn csv(rows: &[Row]) -> Result<Vec<u8>, csv::Error> {
    let columns = columns(rows);
    let mut writer = csv::Writer::from_writer(Vec::new());
    writer.write_record(&columns)?;
    for row in rows {
        let cell = |column: &&str| row.get(column).filter(|value| !value.is_null()).map(text).unwrap_or_default();
        writer.write_record(columns.iter().map(cell))?;
    }
    writer.into_inner().map_err(|error| error.into_error().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(text: &str) -> Vec<Row> {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn columns_keep_their_order_and_rows_may_lack_some() {
        let rows = rows(r#"[{"z": 1, "a": "x"}, {"m": null, "z": 2}]"#);
        assert_eq!(columns(&rows), ["z", "a", "m"]);
        assert_eq!(serde_json::to_string(&rows).unwrap(), r#"[{"z":1,"a":"x"},{"m":null,"z":2}]"#);
    }

    #[test]
    fn csv_quotes_what_needs_it() {
        let rows = rows(r#"[{"a": "x,y", "b": [1, 2]}, {"b": {"c": "\"d\""}}, {"a": null}]"#);
        let text = String::from_utf8(csv(&rows).unwrap()).unwrap();
        assert_eq!(text, "a,b\n\"x,y\",\"[1,2]\"\n,\"{\"\"c\"\":\"\"\\\"\"d\\\"\"\"\"}\"\n,\n");
    }
}
