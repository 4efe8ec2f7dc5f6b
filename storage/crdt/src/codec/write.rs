//! Writing states.

use bigpeer_types::Stamp;
use smallvec::SmallVec;

use super::stamps::Stamps;
use super::{ATTACHMENT, CLEARED, COUNTER, DELETED, LONE, MAP, REGISTER, VERSION, value};
use crate::attachment::Attachment;
use crate::node::Node;
use crate::wire::{put_bytes, put_len, put_varint};

/// Appends the state of a document.
pub(crate) fn put_state(out: &mut Vec<u8>, deleted: Option<Stamp>, root: &Node) {
    let mut all = SmallVec::new();
    all.extend(deleted);
    root.each_stamp(&mut |stamp| all.push(stamp));
    let stamps = Stamps::collect(all);
    out.push(VERSION);
    out.push(stamps.flags() | if deleted.is_some() { DELETED } else { 0 });
    stamps.put(out);
    if let Some(deleted) = deleted {
        stamps.put_index(out, deleted);
    }
    put_node(out, root, &stamps);
}

fn put_node(out: &mut Vec<u8>, node: &Node, stamps: &Stamps) {
    if let (Some(register), None) = (&node.register, &node.rest) {
        out.push(LONE | value::tag(&register.value));
        stamps.put_index(out, register.stamp);
        value::put_body(out, &register.value);
        return;
    }
    let flag = |present: bool, flag: u8| if present { flag } else { 0 };
    out.push(
        flag(node.cleared().is_some(), CLEARED)
            | flag(node.register.is_some(), REGISTER)
            | flag(!node.map().is_empty(), MAP)
            | flag(!node.counter().is_empty(), COUNTER)
            | flag(node.attached().is_some(), ATTACHMENT),
    );
    if let Some(cleared) = node.cleared() {
        stamps.put_index(out, cleared);
    }
    if let Some(register) = &node.register {
        stamps.put_index(out, register.stamp);
        value::put_value(out, &register.value);
    }
    if !node.map().is_empty() {
        put_len(out, node.map().len());
        for (key, child) in node.map() {
            put_bytes(out, key.as_bytes());
            put_node(out, child, stamps);
        }
    }
    if !node.counter().is_empty() {
        put_len(out, node.counter().len());
        for contribution in node.counter() {
            stamps.put_index(out, contribution.started);
            stamps.put_index(out, contribution.stamp());
            put_varint(out, contribution.increments);
            put_varint(out, contribution.decrements);
        }
    }
    if let Some(attached) = node.attached() {
        stamps.put_index(out, attached.stamp);
        put_attachment(out, &attached.attachment);
    }
}

/// Appends a token.
pub(crate) fn put_attachment(out: &mut Vec<u8>, attachment: &Attachment) {
    out.extend_from_slice(&attachment.sha256);
    put_varint(out, attachment.length);
    value::put_object(out, &attachment.metadata);
}
