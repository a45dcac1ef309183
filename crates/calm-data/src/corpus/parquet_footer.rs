//! The schema in a footer, looked at before the library builds it.
//!
//! It does so by recursion, as deep as the footer says, and reserves room for as many children as
//! the footer says: neither a stack that overflows nor memory that isn't there can be caught.

/// Deeper schemas are not believed; those of data sets have a few levels.
const DEEPEST: usize = 100;
/// Structures in structures; a right footer has fewer than ten.
const DEEPEST_VALUE: usize = 32;

/// Types of Thrift's compact form.
const STOP: u8 = 0;
const TRUE: u8 = 1;
const FALSE: u8 = 2;
const BYTE: u8 = 3;
const INTEGERS: [u8; 3] = [4, 5, 6];
const DOUBLE: u8 = 7;
const BINARY: u8 = 8;
const LISTS: [u8; 2] = [9, 10];
const MAP: u8 = 11;
const STRUCT: u8 = 12;
const UUID: u8 = 13;

/// Fields of the footer and of an element of its schema.
const SCHEMA: i16 = 2;
const CHILDREN: i16 = 5;

/// Whether a footer can be read to its end and its schema is one that can be built.
pub(super) fn is_sane(footer: &[u8]) -> bool {
    let mut bytes = Bytes(footer);
    bytes.footer().is_some()
}

/// What is left of a footer.
struct Bytes<'a>(&'a [u8]);

impl Bytes<'_> {
    fn footer(&mut self) -> Option<()> {
        let mut id = 0;
        while let Some(kind) = self.field(&mut id)? {
            match id {
                SCHEMA if !LISTS.contains(&kind) => return None,
                SCHEMA => self.schema()?,
                _ => self.skip(kind, 0)?,
            }
        }
        Some(())
    }

    /// A list of elements, each before its children.
    fn schema(&mut self) -> Option<()> {
        let (kind, size) = self.list()?;
        if size > 0 && kind != STRUCT {
            return None;
        }
        // Of every group that is open, how many of its children are still to come.
        let mut open: Vec<u64> = Vec::new();
        for _ in 0..size {
            let children = self.element()?;
            while let Some(left) = open.last_mut() {
                if *left > 0 {
                    *left -= 1;
                    break;
                }
                open.pop();
            }
            if children > size || open.len() > DEEPEST {
                return None;
            }
            if children > 0 {
                open.push(children);
            }
        }
        Some(())
    }

    /// How many children an element of the schema says it has.
    fn element(&mut self) -> Option<u64> {
        let (mut id, mut children) = (0, 0);
        while let Some(kind) = self.field(&mut id)? {
            if id == CHILDREN {
                if !INTEGERS.contains(&kind) {
                    return None;
                }
                let signed = self.number()?;
                // Zigzag: a negative number is an odd one.
                if signed % 2 == 1 {
                    return None;
                }
                children = signed / 2;
            } else {
                self.skip(kind, 0)?;
            }
        }
        Some(children)
    }

    /// The type of a structure's next field, whose number goes into `id`; `None` inside at its end.
    fn field(&mut self, id: &mut i16) -> Option<Option<u8>> {
        let header = self.byte()?;
        if header == STOP {
            return Some(None);
        }
        *id = match header >> 4 {
            0 => {
                let zigzag = self.number()?;
                i16::try_from((zigzag >> 1) as i64 ^ -((zigzag & 1) as i64)).ok()?
            }
            delta => id.checked_add(i16::from(delta))?,
        };
        Some(Some(header & 15))
    }

    /// The type and number of a list's values.
    fn list(&mut self) -> Option<(u8, u64)> {
        let header = self.byte()?;
        let size = match header >> 4 {
            15 => self.number()?,
            size => u64::from(size),
        };
        Some((header & 15, size))
    }

    fn skip(&mut self, kind: u8, depth: usize) -> Option<()> {
        if depth > DEEPEST_VALUE {
            return None;
        }
        match kind {
            // Of a field the type is the value.
            TRUE | FALSE => Some(()),
            BYTE => self.take(1),
            _ if INTEGERS.contains(&kind) => self.number().map(|_| ()),
            DOUBLE => self.take(8),
            BINARY => {
                let length = self.number()?;
                self.take(length)
            }
            _ if LISTS.contains(&kind) => {
                let (kind, size) = self.list()?;
                self.values(&[kind], size, depth)
            }
            MAP => match self.number()? {
                0 => Some(()),
                size => {
                    let kinds = self.byte()?;
                    self.values(&[kinds >> 4, kinds & 15], size, depth)
                }
            },
            STRUCT => {
                let mut id = 0;
                while let Some(kind) = self.field(&mut id)? {
                    self.skip(kind, depth + 1)?;
                }
                Some(())
            }
            UUID => self.take(16),
            _ => None,
        }
    }

    fn values(&mut self, kinds: &[u8], size: u64, depth: usize) -> Option<()> {
        for _ in 0..size {
            for &kind in kinds {
                match kind {
                    TRUE | FALSE => self.take(1)?,
                    _ => self.skip(kind, depth + 1)?,
                }
            }
        }
        Some(())
    }

    fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    fn take(&mut self, length: u64) -> Option<()> {
        self.0 = self.0.get(usize::try_from(length).ok()?..)?;
        Some(())
    }

    fn number(&mut self) -> Option<u64> {
        let mut at = 0;
        let number = super::parquet_pages::number(self.0, &mut at)?;
        self.0 = &self.0[at..];
        Some(number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A footer whose schema has these numbers of children.
    fn footer(children: &[u32]) -> Vec<u8> {
        let number = |mut n: u32| {
            let mut bytes = Vec::new();
            while n >= 0x80 {
                bytes.push(n as u8 | 0x80);
                n >>= 7;
            }
            bytes.push(n as u8);
            bytes
        };
        let mut bytes = vec![0x15, 2, 0x19, 0xfc];
        bytes.extend(number(children.len() as u32));
        for &children in children {
            // A name and a number of children.
            bytes.extend([0x48, 1, b'a', 0x15]);
            bytes.extend(number(children << 1));
            bytes.push(0);
        }
        bytes.extend([0x16, 0, 0x19, 0x0c, 0]);
        bytes
    }

    #[test]
    fn schemas_are_as_deep_and_wide_as_can_be() {
        let chain = |depth: usize| footer(&[vec![1; depth], vec![0]].concat());
        assert!(is_sane(&chain(1)) && is_sane(&chain(DEEPEST)));
        assert!(!is_sane(&chain(DEEPEST + 1)) && !is_sane(&chain(100_000)));
        assert!(!is_sane(&footer(&[4, 0, 0])));
        assert!(!is_sane(&footer(&[1 << 29, 0])));
        // Many groups beside each other are not deep.
        let pairs = [1, 0].repeat(1000);
        assert!(is_sane(&footer(&[vec![1000], pairs].concat())));
    }

    #[test]
    fn cut_footers_and_deep_values_are_not_sane() {
        let whole = footer(&[2, 0, 0]);
        assert!(is_sane(&whole));
        assert!((0..whole.len()).all(|length| !is_sane(&whole[..length])));
        // Field 9 is a list of a list of a list, and so on.
        assert!(!is_sane(&[[0x99].as_slice(), &[0x19; 100_000]].concat()));
    }
}
