//! Pages of a column of strings, looked at before they are decoded.
//!
//! The decoders believe what a page says of itself, and allocate by it.

use parquet::basic::Encoding;
use parquet::column::page::{Page, PageMetadata, PageReader};
use parquet::errors::{ParquetError, Result};

/// More values in a page are not believed; pages of writers have thousands.
const MOST_VALUES: u32 = 1 << 24;

/// Passes on the pages that say of themselves what can be.
pub(super) struct CheckedPages<P> {
    pages: P,
    /// Whether a value may be null, so that pages begin with definition levels.
    optional: bool,
    /// Whether the dictionary was seen.
    dictionary: bool,
}

impl<P: PageReader> CheckedPages<P> {
    pub fn new(pages: P, optional: bool) -> Self {
        Self {
            pages,
            optional,
            dictionary: false,
        }
    }

    fn check(&mut self, page: &Page) -> std::result::Result<(), &'static str> {
        if page.num_values() > MOST_VALUES {
            return Err("a page of too many values");
        }
        let values = match page {
            Page::DictionaryPage {
                buf, num_values, ..
            } => {
                if !has_strings(buf, *num_values) {
                    return Err("a dictionary of more values than it has room for");
                }
                self.dictionary = true;
                return Ok(());
            }
            Page::DataPage {
                buf,
                def_level_encoding,
                num_values,
                ..
            } => {
                let levels = match (self.optional, def_level_encoding) {
                    (false, _) => 0,
                    #[allow(deprecated, reason = "old files have it")]
                    (true, Encoding::BIT_PACKED) => (*num_values as usize).div_ceil(8),
                    (true, _) => {
                        let length = buf.first_chunk().map(|bytes| u32::from_le_bytes(*bytes));
                        length.map_or(usize::MAX, |length| (length as usize).saturating_add(4))
                    }
                };
                buf.get(levels..)
            }
            Page::DataPageV2 {
                buf,
                def_levels_byte_len: definition,
                rep_levels_byte_len: repetition,
                ..
            } => buf.get((*definition as usize).saturating_add(*repetition as usize)..),
        };
        let values = values.ok_or("levels that are longer than their page")?;
        match page.encoding() {
            #[allow(deprecated, reason = "old files have it")]
            Encoding::PLAIN_DICTIONARY | Encoding::RLE_DICTIONARY if !self.dictionary => {
                Err("a page without its dictionary")
            }
            Encoding::DELTA_LENGTH_BYTE_ARRAY => lengths_end(values, page.num_values()).map(|_| ()),
            // Lengths of what is shared with the value before, then lengths of what is not.
            Encoding::DELTA_BYTE_ARRAY => {
                let end = lengths_end(values, page.num_values())?;
                lengths_end(&values[end..], page.num_values()).map(|_| ())
            }
            _ => Ok(()),
        }
    }
}

impl<P: PageReader> Iterator for CheckedPages<P> {
    type Item = Result<Page>;

    fn next(&mut self) -> Option<Self::Item> {
        self.get_next_page().transpose()
    }
}

impl<P: PageReader> PageReader for CheckedPages<P> {
    fn get_next_page(&mut self) -> Result<Option<Page>> {
        let page = self.pages.get_next_page()?;
        if let Some(page) = &page {
            self.check(page)
                .map_err(|reason| ParquetError::General(format!("damaged: {reason}")))?;
        }
        Ok(page)
    }

    fn peek_next_page(&mut self) -> Result<Option<PageMetadata>> {
        self.pages.peek_next_page()
    }

    fn skip_next_page(&mut self) -> Result<()> {
        self.pages.skip_next_page()
    }
}

/// Whether there is room for so many strings, each behind the 4 bytes of its length.
fn has_strings(mut bytes: &[u8], count: u32) -> bool {
    let next = |bytes: &mut &[u8]| {
        let (length, rest) = bytes.split_first_chunk()?;
        *bytes = rest.get(u32::from_le_bytes(*length) as usize..)?;
        Some(())
    };
    (0..count).all(|_| next(&mut bytes).is_some())
}

/// Where a list of numbers in delta encoding ends, if it has at most `most` of them.
fn lengths_end(bytes: &[u8], most: u32) -> std::result::Result<usize, &'static str> {
    const SHORT: &str = "lengths that are longer than their page";
    let mut at = 0;
    let block = number(bytes, &mut at).ok_or(SHORT)?;
    let parts = number(bytes, &mut at).ok_or(SHORT)?;
    let mut left = number(bytes, &mut at).ok_or(SHORT)?;
    number(bytes, &mut at).ok_or(SHORT)?;
    if left > u64::from(most) {
        return Err("more lengths than values");
    }
    let each = block.checked_div(parts).unwrap_or(0);
    if each == 0 || each % 32 != 0 || parts > bytes.len() as u64 {
        return Err("lengths in impossible blocks");
    }
    // The first is in the header.
    left = left.saturating_sub(1);
    while left > 0 {
        number(bytes, &mut at).ok_or(SHORT)?;
        let widths = bytes.get(at..at + parts as usize).ok_or(SHORT)?;
        at += parts as usize;
        for width in widths {
            if left == 0 {
                break;
            }
            let size = (each / 8).checked_mul(u64::from(*width));
            let end = size.and_then(|size| size.checked_add(at as u64));
            let end = end.filter(|end| *end <= bytes.len() as u64).ok_or(SHORT)?;
            at = end as usize;
            left = left.saturating_sub(each);
        }
    }
    Ok(at)
}

/// An unsigned number of 7 bits a byte, the low ones first.
pub(super) fn number(bytes: &[u8], at: &mut usize) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let byte = *bytes.get(*at)?;
        *at += 1;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_have_room() {
        let bytes = [1, 0, 0, 0, b'a', 0, 0, 0, 0, 2, 0, 0, 0, b'b'];
        assert!(has_strings(&bytes, 0) && has_strings(&bytes, 2));
        assert!(!has_strings(&bytes, 3) && !has_strings(&bytes[..8], 2));
    }

    #[test]
    fn the_end_of_lengths_is_found() {
        // Blocks of 128 in 4 parts; one value, then a block whose first part has 3 bits.
        assert_eq!(lengths_end(&[0x80, 1, 4, 1, 10], 1), Ok(5));
        let mut page = vec![0x80, 1, 4, 33, 10, 2, 3, 0, 0, 0];
        page.extend([0; 12]);
        assert_eq!(lengths_end(&page, 40), Ok(22));
        assert!(lengths_end(&page, 32).is_err());
        assert!(lengths_end(&page[..21], 40).is_err());
        assert!(lengths_end(&[0x80, 1, 0, 1, 10], 1).is_err());
        let endless = [0x80, 1, 4, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 0];
        assert!(lengths_end(&endless, u32::MAX).is_err());
    }
}
