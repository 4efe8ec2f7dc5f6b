//! The documentation of the provider and its resources, written from their schemas. `infra/terraform/docs` is what this
//! writes; a test holds it to that.

use std::fmt::Write as _;
use std::path::Path;
use std::{fs, io};

use serde_json::Value as Json;

use crate::field::{Field, Kind as Type, Mode};
use crate::kinds::{self, Kind};
use crate::provider;

const WRITTEN: &str =
    "<!-- Written by `terraform-provider-bigpeer docs`; what it says is in the provider's source. -->";

/// Writes all of it into a folder.
pub(crate) fn write(folder: &Path) -> io::Result<()> {
    for (name, text) in pages() {
        let file = folder.join(name);
        if let Some(parent) = file.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::write(file, text)?;
    }
    Ok(())
}

/// Every page: its file, and its text.
pub(crate) fn pages() -> Vec<(String, String)> {
    let mut pages = vec![("index.md".to_owned(), index())];
    for kind in kinds::all() {
        pages.push((format!("resources/{}.md", kind.name), resource(&kind)));
        if kind.is_data_source {
            pages.push((format!("data-sources/{}.md", kind.name), data_source(&kind)));
        }
    }
    pages
}

fn index() -> String {
    let example = include_str!("../../examples/provider/provider.tf");
    let mut out =
        format!("{WRITTEN}\n# The provider bigpeer\n\n{}\n\n```hcl\n{}\n```\n", provider::DOC, example.trim());
    table(&mut out, "Arguments", &provider::fields(), false);
    out.push_str("\n## Resources\n\n");
    for kind in kinds::all() {
        let _fits = writeln!(out, "- [bigpeer_{0}](resources/{0}.md)", kind.name);
    }
    out.push_str("\n## Data sources\n\n");
    for kind in kinds::all().iter().filter(|kind| kind.is_data_source) {
        let _fits = writeln!(out, "- [bigpeer_{0}](data-sources/{0}.md)", kind.name);
    }
    out
}

fn resource(kind: &Kind) -> String {
    let (name, doc, example) = (kind.name, kind.doc, kind.example.trim());
    let mut out = format!("{WRITTEN}\n# bigpeer_{name}\n\n{doc}\n\n```hcl\n{example}\n```\n");
    table(&mut out, "Arguments", &kind.fields, false);
    blocks(&mut out, &kind.fields, "");
    let answers: Vec<Field> = kind.fields.iter().filter(|field| field.mode == Mode::Answer).cloned().collect();
    if !answers.is_empty() {
        table(&mut out, "Attributes of the server", &answers, true);
    }
    let format = kind.import_format();
    let _fits = write!(out, "\n## Import\n\n```sh\nterraform import bigpeer_{name}.NAME '{format}'\n```\n");
    out
}

fn data_source(kind: &Kind) -> String {
    let place = |field: &&Field| field.is_place;
    let arguments: Vec<Field> = kind.fields.iter().filter(place).cloned().collect();
    let answers: Vec<Field> = kind.fields.iter().filter(|field| !field.is_place).cloned().collect();
    let mut out = format!("{WRITTEN}\n# bigpeer_{} (data source)\n\n{}\n\n", kind.name, kind.doc);
    let _fits = writeln!(out, "```hcl\ndata \"bigpeer_{}\" \"this\" {{", kind.name);
    for field in &arguments {
        let _fits = writeln!(out, "  {} = \"…\"", field.name);
    }
    out.push_str("}\n```\n");
    table(&mut out, "Arguments", &arguments, false);
    table(&mut out, "Attributes", &answers, true);
    out
}

/// One table: of what is to be said, or of what the server says.
fn table(out: &mut String, title: &str, fields: &[Field], are_answers: bool) {
    let _fits = write!(out, "\n## {title}\n\n| name | type | |\n| --- | --- | --- |\n");
    for field in fields.iter().filter(|field| are_answers || field.mode != Mode::Answer) {
        row(out, field, are_answers);
    }
}

fn row(out: &mut String, field: &Field, is_answer: bool) {
    let mut notes = Vec::new();
    if !is_answer {
        match &field.mode {
            Mode::Required => notes.push("**required**".to_owned()),
            Mode::Default(Json::Null) | Mode::Optional | Mode::Answer => {}
            Mode::Default(default) => notes.push(format!("default `{default}`")),
        }
    }
    if field.is_secret {
        notes.push("sensitive".to_owned());
    }
    let notes = if notes.is_empty() { String::new() } else { format!(" ({})", notes.join(", ")) };
    let _fits = writeln!(out, "| `{}` | {} | {}{notes} |", field.name, type_of(field), field.doc);
}

/// What is in the blocks of a resource, each by its path.
fn blocks(out: &mut String, fields: &[Field], above: &str) {
    for field in fields {
        let (Type::Group(inner) | Type::Optional(inner) | Type::Blocks(inner)) = &field.kind else { continue };
        let path = format!("{above}{}", field.name);
        let _fits = write!(out, "\n## Block `{path}`\n\n| name | type | |\n| --- | --- | --- |\n");
        inner.iter().for_each(|field| row(out, field, field.mode == Mode::Answer));
        blocks(out, inner, &format!("{path}."));
    }
}

const fn type_of(field: &Field) -> &'static str {
    match field.kind {
        Type::Text => "string",
        Type::Time => "string, RFC 3339",
        Type::Whole => "number",
        Type::Flag => "bool",
        Type::Texts => "list of string",
        Type::TextSet => "set of string",
        Type::TextMap => "map of string",
        Type::TextsMap => "map of list of string",
        Type::Group(_) => "block",
        Type::Optional(_) => "block, or none",
        Type::Blocks(_) => "blocks, any number",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_written_documentation_is_what_the_schemas_say() {
        let folder = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs"));
        for (name, text) in pages() {
            let written = fs::read_to_string(folder.join(&name)).unwrap_or_default();
            assert_eq!(written, text, "{name}: run `make terraform-docs`");
        }
    }

    #[test]
    fn every_field_says_what_it_is() {
        fn look(fields: &[Field]) {
            for field in fields {
                assert!(field.doc.ends_with('.'), "{}: {:?}", field.name, field.doc);
                if let Type::Group(inner) | Type::Optional(inner) | Type::Blocks(inner) = &field.kind {
                    look(inner);
                }
            }
        }
        kinds::all().iter().for_each(|kind| look(&kind.fields));
        look(&provider::fields());
    }
}
