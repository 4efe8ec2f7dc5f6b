//! `Field`: an attribute or block of a resource: its names in Terraform and in the API, its type, and what is said of it.
//! Schemas, plans, requests, states and the documentation are all read off these.

use std::collections::HashMap;

use serde_json::Value as Json;
use tf_provider::schema::{Attribute, AttributeConstraint, AttributeType, Block, Description, NestedBlock, Schema};

/// A rule of the server about one text.
pub(crate) type TextRule = fn(&str) -> Result<(), String>;
/// A rule of the server about a block, as the API has it.
pub(crate) type BlockRule = fn(&Json) -> Result<(), String>;

/// An attribute or block.
#[derive(Clone, Debug)]
pub(crate) struct Field {
    /// What Terraform calls it.
    pub(crate) name: &'static str,
    /// What the API calls it.
    pub(crate) json: &'static str,
    pub(crate) kind: Kind,
    pub(crate) mode: Mode,
    /// Whether it is part of where the resource is, instead of what it is: then another value is another resource.
    pub(crate) is_place: bool,
    pub(crate) is_secret: bool,
    pub(crate) rule: Option<TextRule>,
    pub(crate) block_rule: Option<BlockRule>,
    pub(crate) doc: &'static str,
}

/// What a field holds.
#[derive(Clone, Debug)]
pub(crate) enum Kind {
    Text,
    Whole,
    Flag,
    /// A point in time: RFC 3339 in Terraform, milliseconds since the epoch in the API.
    Time,
    Texts,
    TextSet,
    TextMap,
    /// Lists of texts by name.
    TextsMap,
    /// A block that is always there, but may be left out where nothing in it is required: then its attributes are unset.
    Group(Vec<Field>),
    /// A block, or none.
    Optional(Vec<Field>),
    /// Any number of blocks.
    Blocks(Vec<Field>),
}

/// Who says what a field is.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Mode {
    /// The configuration.
    Required,
    /// The configuration; null otherwise.
    Optional,
    /// The configuration; this otherwise.
    Default(Json),
    /// The server.
    Answer,
}

impl Field {
    fn new(name: &'static str, kind: Kind) -> Self {
        Self {
            name,
            json: name,
            kind,
            mode: Mode::Optional,
            is_place: false,
            is_secret: false,
            rule: None,
            block_rule: None,
            doc: "",
        }
    }

    pub(crate) fn text(name: &'static str) -> Self {
        Self::new(name, Kind::Text)
    }
    pub(crate) fn whole(name: &'static str) -> Self {
        Self::new(name, Kind::Whole)
    }
    pub(crate) fn flag(name: &'static str) -> Self {
        Self::new(name, Kind::Flag)
    }
    pub(crate) fn time(name: &'static str) -> Self {
        Self::new(name, Kind::Time)
    }
    pub(crate) fn texts(name: &'static str) -> Self {
        Self::new(name, Kind::Texts)
    }
    pub(crate) fn text_set(name: &'static str) -> Self {
        Self::new(name, Kind::TextSet)
    }
    pub(crate) fn text_map(name: &'static str) -> Self {
        Self::new(name, Kind::TextMap)
    }
    pub(crate) fn texts_map(name: &'static str) -> Self {
        Self::new(name, Kind::TextsMap)
    }
    pub(crate) fn group(name: &'static str, fields: Vec<Self>) -> Self {
        Self::new(name, Kind::Group(fields))
    }
    pub(crate) fn optional_block(name: &'static str, fields: Vec<Self>) -> Self {
        Self::new(name, Kind::Optional(fields))
    }
    pub(crate) fn blocks(name: &'static str, fields: Vec<Self>) -> Self {
        Self::new(name, Kind::Blocks(fields))
    }

    pub(crate) fn json(mut self, json: &'static str) -> Self {
        self.json = json;
        self
    }
    pub(crate) fn required(mut self) -> Self {
        self.mode = Mode::Required;
        self
    }
    pub(crate) fn or(mut self, default: impl Into<Json>) -> Self {
        self.mode = Mode::Default(default.into());
        self
    }
    pub(crate) fn answer(mut self) -> Self {
        self.mode = Mode::Answer;
        self
    }
    /// It is in the path of the API, and cannot be changed.
    pub(crate) fn place(mut self) -> Self {
        self.mode = Mode::Required;
        self.is_place = true;
        self
    }
    pub(crate) fn secret(mut self) -> Self {
        self.is_secret = true;
        self
    }
    pub(crate) fn rule(mut self, rule: TextRule) -> Self {
        self.rule = Some(rule);
        self
    }
    pub(crate) fn block_rule(mut self, rule: BlockRule) -> Self {
        self.block_rule = Some(rule);
        self
    }
    pub(crate) fn doc(mut self, doc: &'static str) -> Self {
        self.doc = doc;
        self
    }

    /// Whether it is sent in the body of a request.
    pub(crate) fn is_sent(&self) -> bool {
        !self.is_place && self.mode != Mode::Answer
    }

    fn attribute_type(&self) -> Option<AttributeType> {
        let text = || Box::new(AttributeType::String);
        Some(match &self.kind {
            Kind::Text | Kind::Time => AttributeType::String,
            Kind::Whole => AttributeType::Number,
            Kind::Flag => AttributeType::Bool,
            Kind::Texts => AttributeType::List(text()),
            Kind::TextSet => AttributeType::Set(text()),
            Kind::TextMap => AttributeType::Map(text()),
            Kind::TextsMap => AttributeType::Map(Box::new(AttributeType::List(text()))),
            Kind::Group(_) | Kind::Optional(_) | Kind::Blocks(_) => return None,
        })
    }
}

/// The schema of a resource, of the provider, or, with `is_read`, of a data source: there all but the place is the server's.
pub(crate) fn schema(fields: &[Field], doc: &str, is_read: bool) -> Schema {
    Schema { version: 1, block: block(fields, doc, is_read) }
}

fn block(fields: &[Field], doc: &str, is_read: bool) -> Block {
    let mut attributes = HashMap::new();
    let mut blocks = HashMap::new();
    for field in fields {
        let name = field.name.to_owned();
        let nested = |fields: &[Field]| block(fields, field.doc, is_read);
        match &field.kind {
            Kind::Group(fields) if field.mode == Mode::Required => {
                blocks.insert(name, NestedBlock::Single(nested(fields)));
            }
            Kind::Group(fields) => _ = blocks.insert(name, NestedBlock::Group(nested(fields))),
            Kind::Optional(fields) => _ = blocks.insert(name, NestedBlock::Optional(nested(fields))),
            Kind::Blocks(fields) => _ = blocks.insert(name, NestedBlock::List(nested(fields))),
            Kind::Text
            | Kind::Whole
            | Kind::Flag
            | Kind::Time
            | Kind::Texts
            | Kind::TextSet
            | Kind::TextMap
            | Kind::TextsMap => {
                let Some(attr_type) = field.attribute_type() else { continue };
                let constraint = match &field.mode {
                    _ if is_read && !field.is_place => AttributeConstraint::Computed,
                    Mode::Required => AttributeConstraint::Required,
                    Mode::Optional => AttributeConstraint::Optional,
                    Mode::Default(_) => AttributeConstraint::OptionalComputed,
                    Mode::Answer => AttributeConstraint::Computed,
                };
                let description = Description::markdown(field.doc);
                let sensitive = field.is_secret;
                attributes.insert(name, Attribute { attr_type, description, constraint, sensitive, deprecated: false });
            }
        }
    }
    Block { version: 1, attributes, blocks, description: Description::markdown(doc), deprecated: false }
}
