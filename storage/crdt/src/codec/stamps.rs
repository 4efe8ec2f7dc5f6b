//! The table of stamps at the head of an encoded state: each stamp once, in order; nodes name them by index.
//!
//! With exactly one stamp (every delta of one change) the head's flags hold the length of its site, then come the site
//! (little-endian, without leading zeros) and its time, and nodes name nothing. Otherwise: the number of sites, the sites
//! ascending (length, bytes), the number of stamps, and the stamps ascending: time, then the index of the site if
//! there is more than one.
//!
//! A time is the difference to the time before it (the first: to zero): a varint of the milliseconds, doubled, plus one
//! if a varint of the counter follows. The counter is told from zero, or from the counter before if the milliseconds
//! are the same; it follows if it differs from that.

use bigpeer_types::{Hlc, SiteId, Stamp};
use smallvec::SmallVec;

use super::{ONE_STAMP, SITE_LEN_SHIFT};
use crate::error::{DecodeError, DecodeErrorKind};
use crate::wire::{BitSet, Reader, put_len, put_varint};

/// The stamps of one state, ascending.
#[derive(Debug)]
pub(super) struct Stamps(SmallVec<[Stamp; 4]>);

impl Stamps {
    /// The table of these stamps, in any order, with repetition.
    pub(super) fn collect(mut all: SmallVec<[Stamp; 4]>) -> Self {
        all.sort_unstable();
        all.dedup();
        Self(all)
    }

    pub(super) fn as_slice(&self) -> &[Stamp] {
        &self.0
    }

    /// Appends the index of `stamp`, which is in the table; nothing if it is the only one.
    pub(super) fn put_index(&self, out: &mut Vec<u8>, stamp: Stamp) {
        if self.0.len() > 1 {
            let index = self.0.binary_search(&stamp);
            debug_assert!(index.is_ok(), "every stamp was collected");
            put_len(out, index.unwrap_or_default());
        }
    }

    /// Reads an index.
    #[inline]
    pub(super) fn index(&self, reader: &mut Reader<'_>) -> Result<usize, DecodeError> {
        let index = if self.0.len() == 1 { 0 } else { reader.varint()? };
        match usize::try_from(index) {
            Ok(index) if index < self.0.len() => Ok(index),
            Ok(_) | Err(_) => Err(reader.error(DecodeErrorKind::OutOfRange)),
        }
    }

    /// Reads an index; answers the stamp.
    #[inline]
    pub(super) fn stamp(&self, reader: &mut Reader<'_>) -> Result<Stamp, DecodeError> {
        let index = self.index(reader)?;
        self.0.get(index).copied().ok_or_else(|| reader.error(DecodeErrorKind::OutOfRange))
    }

    /// The flags of the head that tell about the table.
    pub(super) fn flags(&self) -> u8 {
        match self.0.as_slice() {
            [one] => ONE_STAMP | (site_len(one.site) << SITE_LEN_SHIFT),
            _ => 0,
        }
    }

    /// Appends the table.
    pub(super) fn put(&self, out: &mut Vec<u8>) {
        if let [one] = self.0.as_slice() {
            put_site(out, one.site);
            put_time(out, Hlc::ZERO, one.hlc);
            return;
        }
        let mut sites: SmallVec<[SiteId; 8]> = self.0.iter().map(|stamp| stamp.site).collect();
        sites.sort_unstable();
        sites.dedup();
        put_len(out, sites.len());
        for site in &sites {
            out.push(site_len(*site));
            put_site(out, *site);
        }
        put_len(out, self.0.len());
        let mut last = Hlc::ZERO;
        for stamp in &self.0 {
            put_time(out, last, stamp.hlc);
            last = stamp.hlc;
            if sites.len() > 1 {
                put_len(out, sites.binary_search(&stamp.site).unwrap_or_default());
            }
        }
    }

    /// Reads and checks a table, of which the head's `flags` tell.
    #[inline]
    pub(super) fn read(reader: &mut Reader<'_>, flags: u8) -> Result<Self, DecodeError> {
        let len = flags >> SITE_LEN_SHIFT;
        if flags & ONE_STAMP != 0 {
            let site = site(reader, len)?;
            let hlc = time(reader, Hlc::ZERO)?;
            return Ok(Self(smallvec::smallvec![Stamp::new(hlc, site)]));
        }
        if len != 0 {
            return Err(reader.error(DecodeErrorKind::BadTag(flags)));
        }
        let sites = sites(reader)?;
        let count = reader.count(1)?;
        if count == 1 {
            return reader.not_canonical("a single stamp is in a table");
        }
        let mut used = BitSet::new(sites.len());
        let mut stamps: SmallVec<[Stamp; 4]> = SmallVec::with_capacity(count);
        let mut last: Option<Stamp> = None;
        for _ in 0..count {
            let hlc = time(reader, last.map_or(Hlc::ZERO, |stamp| stamp.hlc))?;
            let index = if sites.len() > 1 { reader.varint()? } else { 0 };
            let index = usize::try_from(index).unwrap_or(usize::MAX);
            let site = *sites.get(index).ok_or_else(|| reader.error(DecodeErrorKind::OutOfRange))?;
            used.insert(index);
            let stamp = Stamp::new(hlc, site);
            if last >= Some(stamp) {
                return reader.not_canonical("the stamps do not ascend");
            }
            last = Some(stamp);
            stamps.push(stamp);
        }
        if !used.is_full() {
            return reader.not_canonical("a site is not used");
        }
        Ok(Self(stamps))
    }
}

fn sites(reader: &mut Reader<'_>) -> Result<SmallVec<[SiteId; 8]>, DecodeError> {
    let count = reader.count(1)?;
    let mut sites: SmallVec<[SiteId; 8]> = SmallVec::with_capacity(count);
    for _ in 0..count {
        let len = reader.byte()?;
        let site = site(reader, len)?;
        if sites.last() >= Some(&site) {
            return reader.not_canonical("the sites do not ascend");
        }
        sites.push(site);
    }
    Ok(sites)
}

/// How many bytes a site takes: at most eight.
fn site_len(site: SiteId) -> u8 {
    let bits = u64::BITS - site.get().leading_zeros();
    bits.div_ceil(8).to_le_bytes()[0]
}

fn put_site(out: &mut Vec<u8>, site: SiteId) {
    out.extend(site.get().to_le_bytes().iter().take(usize::from(site_len(site))));
}

#[inline]
fn site(reader: &mut Reader<'_>, len: u8) -> Result<SiteId, DecodeError> {
    let bytes = reader.take(usize::from(len))?;
    let mut full = [0; 8];
    let part = full.get_mut(..bytes.len()).ok_or_else(|| reader.error(DecodeErrorKind::OutOfRange))?;
    part.copy_from_slice(bytes);
    if bytes.last() == Some(&0) {
        return reader.not_canonical("a site has leading zeros");
    }
    Ok(SiteId::new(u64::from_le_bytes(full)))
}

fn put_time(out: &mut Vec<u8>, last: Hlc, hlc: Hlc) {
    let millis = hlc.millis() - last.millis();
    let base = if millis == 0 { last.counter() } else { 0 };
    let counter = hlc.counter() - base;
    put_varint(out, (millis << 1) | u64::from(counter != 0));
    if counter != 0 {
        put_varint(out, u64::from(counter));
    }
}

#[inline]
fn time(reader: &mut Reader<'_>, last: Hlc) -> Result<Hlc, DecodeError> {
    let first = reader.varint()?;
    let more_millis = first >> 1;
    let base = if more_millis == 0 { last.counter() } else { 0 };
    let more = if first & 1 == 0 { 0 } else { reader.varint()? };
    if first & 1 == 1 && more == 0 {
        return reader.not_canonical("a counter that is the same follows");
    }
    let millis = last.millis() + more_millis;
    let counter = u16::try_from(u64::from(base).saturating_add(more));
    match counter {
        Ok(counter) if millis <= Hlc::MAX_MILLIS => Ok(Hlc::new(millis, counter)),
        Ok(_) | Err(_) => Err(reader.error(DecodeErrorKind::OutOfRange)),
    }
}
