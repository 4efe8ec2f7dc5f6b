//! Every object path of bigpeer is built and parsed here, and nowhere else.
//!
//! ```text
//! apps/{app}/manifests/{number:020}
//! apps/{app}/pins/{until_ms:020}-{name}
//! apps/{app}/tables/{collection}/segments/{ulid}.parquet
//! apps/{app}/tables/{collection}/_delta_log/{version:020}.json
//! apps/{app}/tables/{collection}/_delta_log/{version:020}.checkpoint.parquet
//! apps/{app}/tables/{collection}/_delta_log/_last_checkpoint        a hint that is overwritten
//! apps/{app}/tables/{collection}/deletion_vector_{uuid}.bin
//! apps/{app}/attachments/{sha256}[.{generation}]        generation 0 without a number
//! apps/{app}/condemned/{sha256}[.{generation}]          nothing is stored there any more: see `attachments`
//! apps/{app}/garbage/{ulid}                             attachments that nothing referred to at that time
//! apps/{app}/uploads/{ulid}/upload
//! apps/{app}/uploads/{ulid}/{offset:020}
//! probe/{random}                                        there for a moment, while a store is tried
//! ```
//! A collection's name is escaped: `A-Z a-z 0-9 - _` stand for themselves, every other byte is `!` and two hexadecimal
//! digits. Where that would be longer than [`LONGEST_ESCAPED`] bytes (file systems end at 255), the whole name is
//! `!!` and its base64 (URL alphabet, no padding). One name has one form.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bigpeer_types::{AppId, CollectionName};
use object_store::path::{Path, PathPart};
use ulid::Ulid;

/// Longest collection name in its readable escaped form, in bytes.
const LONGEST_ESCAPED: usize = 200;

/// One object of an app.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ObjectPath {
    /// An immutable list of the segments that are the app at one LSN.
    Manifest(AppId, u64),
    /// A copy of a manifest whose files are kept until then, in milliseconds since the epoch.
    Pin(AppId, u64, PinName),
    /// An immutable file of document states.
    Segment(AppId, CollectionName, Ulid),
    /// A commit of the Delta Lake log that publishes a collection.
    DeltaCommit(AppId, CollectionName, u64),
    /// What all commits up to this one make of a published table.
    DeltaCheckpoint(AppId, CollectionName, u64),
    /// Where outside readers look for the last checkpoint. Not immutable, and nothing here relies on it.
    DeltaLastCheckpoint(AppId, CollectionName),
    /// Deletion vectors of a published table, by the number behind their UUID.
    DeletionVectors(AppId, CollectionName, u128),
    /// A blob, by the SHA-256 of its content and its generation: how many of it were condemned before.
    Attachment(AppId, [u8; 32], u32),
    /// Says that the blob of this generation is not stored again. Stays for ever.
    Condemned(AppId, [u8; 32], u32),
    /// Attachments that nothing referred to when this was written, and that go if it stays so.
    Garbage(AppId, Ulid),
    /// What is known of an upload that has begun.
    Upload(AppId, Ulid),
    /// A piece of an upload, by where in the content it begins. Immutable.
    UploadPart(AppId, Ulid, u64),
}

impl ObjectPath {
    /// The path in the object store.
    #[must_use]
    pub fn to_path(&self) -> Path {
        match self {
            Self::Manifest(app, number) => manifests(app).join(PathPart::from(format!("{number:020}"))),
            Self::Pin(app, until, name) => pins(app).join(PathPart::from(format!("{until:020}-{}", name.0))),
            Self::Segment(app, collection, ulid) => {
                segments(app, collection).join(PathPart::from(format!("{ulid}.parquet")))
            }
            Self::DeltaCommit(app, collection, version) => {
                delta_log(app, collection).join(PathPart::from(format!("{version:020}.json")))
            }
            Self::DeltaCheckpoint(app, collection, version) => {
                delta_log(app, collection).join(PathPart::from(format!("{version:020}.checkpoint.parquet")))
            }
            Self::DeltaLastCheckpoint(app, collection) => delta_log(app, collection).join("_last_checkpoint"),
            Self::DeletionVectors(app, collection, uuid) => {
                table(app, collection).join(PathPart::from(format!("deletion_vector_{}.bin", uuid_text(*uuid))))
            }
            Self::Attachment(app, sha256, generation) => {
                attachments(app).join(PathPart::from(blob_name(*sha256, *generation)))
            }
            Self::Condemned(app, sha256, generation) => {
                app_root(app).join("condemned").join(PathPart::from(blob_name(*sha256, *generation)))
            }
            Self::Garbage(app, ulid) => garbage(app).join(PathPart::from(ulid.to_string())),
            Self::Upload(app, upload) => self::upload(app, *upload).join("upload"),
            Self::UploadPart(app, upload, offset) => {
                self::upload(app, *upload).join(PathPart::from(format!("{offset:020}")))
            }
        }
    }

    /// Reads a path that [`Self::to_path`] made; nothing for any other.
    #[must_use]
    pub fn parse(path: &Path) -> Option<Self> {
        let parts: Vec<&str> = path.as_ref().split('/').collect();
        let parsed = match parts.as_slice() {
            ["apps", app, "manifests", number] => Self::Manifest(AppId::new(app).ok()?, number.parse().ok()?),
            ["apps", app, "pins", pin] => {
                let (until, name) = pin.split_once('-')?;
                Self::Pin(AppId::new(app).ok()?, until.parse().ok()?, PinName::new(name)?)
            }
            ["apps", app, "tables", collection, "segments", file] => {
                let ulid = Ulid::from_string(file.strip_suffix(".parquet")?).ok()?;
                Self::Segment(AppId::new(app).ok()?, unescape(collection)?, ulid)
            }
            ["apps", app, "tables", collection, "_delta_log", file] => {
                let (app, collection) = (AppId::new(app).ok()?, unescape(collection)?);
                match file.split_once('.') {
                    None if *file == "_last_checkpoint" => Self::DeltaLastCheckpoint(app, collection),
                    Some((version, "json")) => Self::DeltaCommit(app, collection, version.parse().ok()?),
                    Some((version, "checkpoint.parquet")) => {
                        Self::DeltaCheckpoint(app, collection, version.parse().ok()?)
                    }
                    Some(_) | None => return None,
                }
            }
            ["apps", app, "tables", collection, file] => {
                let digits = file.strip_prefix("deletion_vector_")?.strip_suffix(".bin")?.replace('-', "");
                let uuid = u128::from_str_radix(&digits, 16).ok()?;
                Self::DeletionVectors(AppId::new(app).ok()?, unescape(collection)?, uuid)
            }
            ["apps", app, "attachments", name] => {
                let (sha256, generation) = parse_blob_name(name)?;
                Self::Attachment(AppId::new(app).ok()?, sha256, generation)
            }
            ["apps", app, "condemned", name] => {
                let (sha256, generation) = parse_blob_name(name)?;
                Self::Condemned(AppId::new(app).ok()?, sha256, generation)
            }
            ["apps", app, "garbage", ulid] => Self::Garbage(AppId::new(app).ok()?, Ulid::from_string(ulid).ok()?),
            ["apps", app, "uploads", ulid, "upload"] => {
                Self::Upload(AppId::new(app).ok()?, Ulid::from_string(ulid).ok()?)
            }
            ["apps", app, "uploads", ulid, offset] => {
                Self::UploadPart(AppId::new(app).ok()?, Ulid::from_string(ulid).ok()?, offset.parse().ok()?)
            }
            _ => return None,
        };
        // One object has one path: other spellings of numbers, digits and names are not ours.
        (parsed.to_path() == *path).then_some(parsed)
    }
}

/// What a pin is called: 1 to 80 of `a-z 0-9 - _`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PinName(String);

impl PinName {
    /// Checks a name.
    #[must_use]
    pub fn new(name: &str) -> Option<Self> {
        let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_".contains(&byte);
        ((1..=80).contains(&name.len()) && name.bytes().all(fits)).then(|| Self(name.to_owned()))
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Everything of an app.
#[must_use]
pub fn app_root(app: &AppId) -> Path {
    Path::from("apps").join(app.as_str())
}

/// An object that is created and deleted to see what the store can do; no app's.
#[must_use]
pub(crate) fn probe(number: u64) -> Path {
    Path::from("probe").join(PathPart::from(format!("{number:016x}")))
}

/// The prefix of an app's manifests.
#[must_use]
pub fn manifests(app: &AppId) -> Path {
    app_root(app).join("manifests")
}

/// The prefix of an app's pins.
#[must_use]
pub fn pins(app: &AppId) -> Path {
    app_root(app).join("pins")
}

/// The prefix of an app's tables.
#[must_use]
pub fn tables(app: &AppId) -> Path {
    app_root(app).join("tables")
}

/// The prefix of an app's attachments.
#[must_use]
pub fn attachments(app: &AppId) -> Path {
    app_root(app).join("attachments")
}

/// The prefix of what is marked as garbage.
#[must_use]
pub fn garbage(app: &AppId) -> Path {
    app_root(app).join("garbage")
}

/// The prefix of an app's uploads under way.
#[must_use]
pub fn uploads(app: &AppId) -> Path {
    app_root(app).join("uploads")
}

/// The prefix of everything of one upload.
#[must_use]
pub fn upload(app: &AppId, upload: Ulid) -> Path {
    uploads(app).join(PathPart::from(upload.to_string()))
}

/// The root of a collection's table.
#[must_use]
pub fn table(app: &AppId, collection: &CollectionName) -> Path {
    tables(app).join(PathPart::from(escape(collection)))
}

/// The prefix of a collection's segments.
#[must_use]
pub fn segments(app: &AppId, collection: &CollectionName) -> Path {
    table(app, collection).join("segments")
}

/// The prefix of the log that publishes a collection.
#[must_use]
pub fn delta_log(app: &AppId, collection: &CollectionName) -> Path {
    table(app, collection).join("_delta_log")
}

/// What a blob is called within its app.
pub(crate) fn blob_name(sha256: [u8; 32], generation: u32) -> String {
    let mut name = sha256.iter().fold(String::new(), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}");
        hex
    });
    if generation > 0 {
        let _ = write!(name, ".{generation}");
    }
    name
}

/// Reads what [`blob_name`] made.
pub(crate) fn parse_blob_name(name: &str) -> Option<([u8; 32], u32)> {
    match name.split_once('.') {
        None => Some((sha256(name)?, 0)),
        Some((hex, generation)) => Some((sha256(hex)?, generation.parse().ok()?)),
    }
}

/// A number as a UUID is written.
fn uuid_text(uuid: u128) -> String {
    let hex = format!("{uuid:032x}");
    let mut out = String::with_capacity(36);
    for (at, digit) in hex.chars().enumerate() {
        if matches!(at, 8 | 12 | 16 | 20) {
            out.push('-');
        }
        out.push(digit);
    }
    out
}

fn escape(name: &CollectionName) -> String {
    let mut out = String::with_capacity(name.as_str().len());
    for byte in name.as_str().bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_') {
            out.push(char::from(byte));
        } else {
            let _ = write!(out, "!{byte:02x}");
        }
    }
    if out.len() <= LONGEST_ESCAPED { out } else { format!("!!{}", URL_SAFE_NO_PAD.encode(name.as_str())) }
}

fn unescape(text: &str) -> Option<CollectionName> {
    let bytes = if let Some(base64) = text.strip_prefix("!!") {
        URL_SAFE_NO_PAD.decode(base64).ok()?
    } else {
        let mut bytes = Vec::with_capacity(text.len());
        let mut rest = text.bytes();
        while let Some(byte) = rest.next() {
            bytes.push(if byte == b'!' { hex_byte(rest.next()?, rest.next()?)? } else { byte });
        }
        bytes
    };
    CollectionName::new(std::str::from_utf8(&bytes).ok()?).ok()
}

fn hex_byte(high: u8, low: u8) -> Option<u8> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    Some(digit(high)? << 4 | digit(low)?)
}

fn sha256(hex: &str) -> Option<[u8; 32]> {
    let digits = hex.as_bytes();
    let bytes: Option<Vec<u8>> = digits
        .chunks(2)
        .map(|pair| match pair {
            [high, low] => hex_byte(*high, *low),
            _ => None,
        })
        .collect();
    bytes?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn app() -> AppId {
        AppId::new("flights-2013").unwrap()
    }

    fn name() -> impl Strategy<Value = CollectionName> {
        prop_oneof!["[a-z_]{1,20}", "[^\\x00-\\x1f\\x7f-\\u{9f}]{1,40}", "[/!.%~ a-c]{1,80}"]
            .prop_filter_map("a name", |text| CollectionName::new(&text).ok())
    }

    proptest! {
        #[test]
        fn paths_round_trip(name in name(), number: u64, ulid: u128, sha: [u8; 32], generation: u32) {
            for path in [
                ObjectPath::Manifest(app(), number),
                ObjectPath::Segment(app(), name.clone(), Ulid(ulid)),
                ObjectPath::DeltaCommit(app(), name.clone(), number),
                ObjectPath::DeltaCheckpoint(app(), name.clone(), number),
                ObjectPath::DeltaLastCheckpoint(app(), name.clone()),
                ObjectPath::DeletionVectors(app(), name, ulid),
                ObjectPath::Attachment(app(), sha, 0),
                ObjectPath::Attachment(app(), sha, generation),
                ObjectPath::Condemned(app(), sha, generation),
                ObjectPath::Garbage(app(), Ulid(ulid)),
                ObjectPath::Upload(app(), Ulid(ulid)),
                ObjectPath::UploadPart(app(), Ulid(ulid), number),
            ] {
                let text = path.to_path();
                prop_assert_eq!(ObjectPath::parse(&Path::parse(text.as_ref()).unwrap()), Some(path));
                prop_assert!(text.as_ref().split('/').all(|part| part.len() <= 255), "{}", text);
                prop_assert!(text.as_ref().is_ascii());
            }
        }

        #[test]
        fn any_text_is_read_without_panic_and_only_in_its_one_form(text in "apps/[a-c]/(manifests|tables|attachments|uploads)/[!.a-f0-9]{0,30}(/segments/[0-9A-Z]{0,30}.parquet)?") {
            if let Ok(path) = Path::parse(&text)
                && let Some(parsed) = ObjectPath::parse(&path)
            {
                prop_assert_eq!(parsed.to_path(), path);
            }
        }
    }

    #[test]
    fn paths_are_those_of_the_architecture() {
        let flights = CollectionName::new("flights").unwrap();
        assert_eq!(
            ObjectPath::Manifest(app(), 7).to_path().as_ref(),
            "apps/flights-2013/manifests/00000000000000000007"
        );
        assert_eq!(
            ObjectPath::Segment(app(), flights.clone(), Ulid(1)).to_path().as_ref(),
            "apps/flights-2013/tables/flights/segments/00000000000000000000000001.parquet"
        );
        assert_eq!(
            ObjectPath::DeltaCommit(app(), flights, 3).to_path().as_ref(),
            "apps/flights-2013/tables/flights/_delta_log/00000000000000000003.json"
        );
        let odd = CollectionName::new("a/../b c").unwrap();
        assert_eq!(table(&app(), &odd).as_ref(), "apps/flights-2013/tables/a!2f!2e!2e!2fb!20c");
    }

    #[test]
    fn attachments_and_uploads_are_the_apps_own() {
        assert_eq!(
            ObjectPath::Attachment(app(), [0xab; 32], 0).to_path().as_ref(),
            format!("apps/flights-2013/attachments/{}", "ab".repeat(32))
        );
        assert_eq!(
            ObjectPath::Attachment(app(), [0xab; 32], 2).to_path().as_ref(),
            format!("apps/flights-2013/attachments/{}.2", "ab".repeat(32))
        );
        let part = ObjectPath::UploadPart(app(), Ulid(1), 5);
        let path = "apps/flights-2013/uploads/00000000000000000000000001/00000000000000000005";
        assert_eq!(part.to_path().as_ref(), path);
        assert!(part.to_path().prefix_matches(&uploads(&app())));
    }

    #[test]
    fn the_longest_name_fits_into_a_file_name() {
        let longest = CollectionName::new(&"ü".repeat(64)).unwrap();
        let path = table(&app(), &longest);
        assert!(path.filename().unwrap().len() <= 255);
        assert_eq!(unescape(path.filename().unwrap()), Some(longest));
    }

    #[test]
    fn other_spellings_are_not_ours() {
        for text in [
            "apps/a/manifests/7",
            "apps/a/tables/flights/segments/x.parquet",
            "apps/a/tables/!66lights/segments/00000000000000000000000001.parquet",
            "apps/a/tables/flights/segments/00000000000000000000000001.txt",
            "apps/A/manifests/00000000000000000007",
            "apps/a/attachments/abababababababababababababababababababababababababababababababab.0",
            "apps/a/attachments/abababababababababababababababababababababababababababababababab.01",
            "manifests/00000000000000000007",
        ] {
            assert_eq!(ObjectPath::parse(&Path::parse(text).unwrap()), None, "{text}");
        }
    }
}
