//! Manifests as bytes. The decoder trusts nothing: any bytes give a manifest or a reason, never a panic.

use std::collections::BTreeMap;
use std::sync::Arc;

use bigpeer_types::{AppId, CollectionName, Lsn};
use roaring::RoaringBitmap;
use serde::{Deserialize, Serialize};
use ulid::Ulid;

use super::{Collection, CollectionSettings, Manifest, Moments, SegmentMeta};
use crate::columns::Columns;
use crate::written::Written;

const MAGIC: &[u8; 7] = b"bpmanif";
/// What is written; two bits away from every other, so that one that has changed is noticed. Format 2 lacks sums of what was
/// written, format 1 also moments, settings and what was forgotten; they are read as if there were none.
const FORMAT: u8 = 4;
const FORMER: std::ops::RangeInclusive<u8> = 1..=2;
const HEADER_BYTES: usize = 16;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Body {
    number: u64,
    epoch: u64,
    writer: u64,
    lsn: Lsn,
    #[serde(default, skip_serializing_if = "Written::is_zero")]
    written: Written,
    committed_ms: u64,
    #[serde(default, skip_serializing_if = "Moments::is_empty")]
    moments: Moments,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    origins: Vec<AppId>,
    collections: Vec<CollectionBody>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct CollectionBody {
    name: CollectionName,
    columns: Columns,
    segments: Vec<SegmentBody>,
    #[serde(default, skip_serializing_if = "CollectionSettings::is_default")]
    settings: CollectionSettings,
    #[serde(default, skip_serializing_if = "is_zero")]
    forgotten: Lsn,
}

fn is_zero(lsn: &Lsn) -> bool {
    *lsn == Lsn::ZERO
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SegmentBody {
    ulid: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    home: Option<AppId>,
    size: u64,
    crc32c: u32,
    tail_bytes: u64,
    tail_crc32c: u32,
    rows: u32,
    state_bytes: u64,
    run: bool,
    min_key: String,
    max_key: String,
    min_lsn: Lsn,
    max_lsn: Lsn,
    columns: Columns,
    /// Lengths of the two bitmaps among the blobs; 0 stands for an empty one.
    superseded_bytes: usize,
    tombstone_bytes: usize,
}

/// The manifest as bytes.
///
/// # Errors
/// When it is too large for its format (4 GiB), which no app reaches.
pub fn encode(manifest: &Manifest) -> Result<Vec<u8>, String> {
    let mut blobs = Vec::new();
    let mut collections = Vec::with_capacity(manifest.collections.len());
    for (name, collection) in &manifest.collections {
        let mut segments = Vec::with_capacity(collection.segments.len());
        for segment in &collection.segments {
            segments.push(SegmentBody {
                ulid: segment.ulid.to_string(),
                home: segment.home.clone(),
                size: segment.size,
                crc32c: segment.crc32c,
                tail_bytes: segment.tail_bytes,
                tail_crc32c: segment.tail_crc32c,
                rows: segment.rows,
                state_bytes: segment.state_bytes,
                run: segment.run,
                min_key: to_hex(&segment.min_key),
                max_key: to_hex(&segment.max_key),
                min_lsn: segment.min_lsn,
                max_lsn: segment.max_lsn,
                columns: Columns::clone(&segment.columns),
                superseded_bytes: append_bitmap(&segment.superseded, &mut blobs)?,
                tombstone_bytes: append_bitmap(&segment.tombstones, &mut blobs)?,
            });
        }
        collections.push(CollectionBody {
            name: name.clone(),
            columns: collection.columns.clone(),
            segments,
            settings: collection.settings,
            forgotten: collection.forgotten,
        });
    }
    let body = Body {
        number: manifest.number,
        epoch: manifest.epoch,
        writer: manifest.writer,
        lsn: manifest.lsn,
        written: manifest.written,
        committed_ms: manifest.committed_ms,
        moments: manifest.moments.clone(),
        origins: manifest.origins.clone(),
        collections,
    };
    let body = serde_json::to_vec(&body).map_err(|error| error.to_string())?;
    let length = u32::try_from(body.len()).map_err(|_| "the body is longer than 4 GiB".to_owned())?;
    let mut out = Vec::with_capacity(HEADER_BYTES + body.len() + blobs.len());
    out.extend_from_slice(MAGIC);
    out.push(FORMAT);
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(&body);
    out.extend_from_slice(&blobs);
    let crc = crc32c::crc32c(&out[12..]);
    out[8..12].copy_from_slice(&crc.to_le_bytes());
    Ok(out)
}

/// Reads a manifest.
///
/// # Errors
/// What is wrong with the bytes.
pub fn decode(bytes: &[u8]) -> Result<Manifest, String> {
    let (head, rest) = bytes.split_at_checked(12).ok_or("too short for a manifest")?;
    let (magic, crc) = head.split_at(8);
    match magic.split_last() {
        Some((format, name)) if name == MAGIC && (*format == FORMAT || FORMER.contains(format)) => {}
        Some((format, name)) if name == MAGIC => {
            let former = FORMER.start();
            return Err(format!("format {format} is not known (this is {FORMAT}, and reads those from {former} on)"));
        }
        Some(_) | None => return Err("not a manifest".to_owned()),
    }
    let found = crc32c::crc32c(rest).to_le_bytes();
    if crc != found {
        return Err(format!("checksum {crc:02x?} expected, {found:02x?} found"));
    }
    let (length, rest) = rest.split_first_chunk::<4>().ok_or("too short for a manifest")?;
    let length = usize::try_from(u32::from_le_bytes(*length)).map_err(|error| error.to_string())?;
    let (body, mut blobs) = rest.split_at_checked(length).ok_or("the body ends too early")?;
    let body: Body = serde_json::from_slice(body).map_err(|error| format!("the body: {error}"))?;
    let mut collections = BTreeMap::new();
    for collection in body.collections {
        let CollectionBody { name, columns, segments, settings, forgotten } = collection;
        let segments = segments.into_iter().map(|segment| read_segment(segment, &mut blobs));
        let segments = segments.collect::<Result<Vec<_>, _>>()?;
        if collections.insert(name.clone(), Collection { columns, segments, settings, forgotten }).is_some() {
            return Err(format!("collection '{name}' is there twice"));
        }
    }
    if !blobs.is_empty() {
        return Err(format!("{} bytes after the end", blobs.len()));
    }
    Ok(Manifest {
        number: body.number,
        epoch: body.epoch,
        writer: body.writer,
        lsn: body.lsn,
        written: body.written,
        committed_ms: body.committed_ms,
        moments: body.moments,
        origins: body.origins,
        collections,
    })
}

fn read_segment(body: SegmentBody, blobs: &mut &[u8]) -> Result<SegmentMeta, String> {
    let rows = body.rows;
    let segment = SegmentMeta {
        ulid: Ulid::from_string(&body.ulid).map_err(|error| format!("segment '{}': {error}", body.ulid))?,
        home: body.home,
        size: body.size,
        crc32c: body.crc32c,
        tail_bytes: body.tail_bytes,
        tail_crc32c: body.tail_crc32c,
        rows,
        state_bytes: body.state_bytes,
        run: body.run,
        min_key: from_hex(&body.min_key)?,
        max_key: from_hex(&body.max_key)?,
        min_lsn: body.min_lsn,
        max_lsn: body.max_lsn,
        columns: Arc::new(body.columns),
        superseded: Arc::new(read_bitmap(body.superseded_bytes, rows, blobs)?),
        tombstones: Arc::new(read_bitmap(body.tombstone_bytes, rows, blobs)?),
    };
    if segment.tail_bytes > segment.size {
        return Err(format!("segment {}: its end is longer than the file", segment.ulid));
    }
    if segment.min_key > segment.max_key || segment.min_lsn > segment.max_lsn {
        return Err(format!("segment {}: a range that ends before it starts", segment.ulid));
    }
    Ok(segment)
}

fn append_bitmap(bitmap: &RoaringBitmap, blobs: &mut Vec<u8>) -> Result<usize, String> {
    if bitmap.is_empty() {
        return Ok(0);
    }
    let before = blobs.len();
    bitmap.serialize_into(&mut *blobs).map_err(|error| error.to_string())?;
    Ok(blobs.len() - before)
}

fn read_bitmap(bytes: usize, rows: u32, blobs: &mut &[u8]) -> Result<RoaringBitmap, String> {
    if bytes == 0 {
        return Ok(RoaringBitmap::new());
    }
    let (blob, rest) = blobs.split_at_checked(bytes).ok_or("the bitmaps end too early")?;
    *blobs = rest;
    let bitmap = RoaringBitmap::deserialize_from(blob).map_err(|error| format!("a bitmap: {error}"))?;
    if bitmap.max().is_some_and(|row| row >= rows) {
        return Err("a bitmap names rows that are not there".to_owned());
    }
    Ok(bitmap)
}

fn to_hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}

fn from_hex(text: &str) -> Result<Vec<u8>, String> {
    let digits: Option<Vec<u8>> =
        text.chars().map(|digit| digit.to_digit(16).and_then(|digit| u8::try_from(digit).ok())).collect();
    match digits {
        Some(digits) if digits.len() % 2 == 0 => {
            Ok(digits.chunks_exact(2).map(|pair| pair.iter().fold(0, |byte, digit| byte << 4 | digit)).collect())
        }
        Some(_) | None => Err("a key is not hexadecimal".to_owned()),
    }
}
