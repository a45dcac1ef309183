//! The crates that corpus `rust` is made of: widely used, written by hand, of many fields.

use super::named::{Origin, Pinned};

/// Their archives, in reading order. Each crate may be used under MIT or Apache-2.0 or either, as its
/// manifest says (nalgebra under Apache-2.0 alone; h2, hyper, nom, tokio and tracing-subscriber under
/// MIT alone); the licence texts lie in the archives, which stay whole in the cache.
pub(crate) const PINS: [Pinned; 20] = [
    pin(
        "chrono",
        "0.4.45",
        "1aa79e62e7697b8e29b513a68abacf485adcd1fe8284a4316c5ae868e6633327",
    ),
    pin(
        "clap_builder",
        "4.6.7",
        "ec0797fb7aeb1406c84efac526901f7ec3ead2124f946b494e72879d4b54704d",
    ),
    pin(
        "futures-util",
        "0.3.34",
        "0d50a92467f8ba5dd6e3ee5d4bd04d73ab2e4e1c44474a0674821dfce14b79bc",
    ),
    pin(
        "h2",
        "0.4.20",
        "7d29020232d6aa3fb1daca64c1127cf662cf97f254ae16c18c05b8ab635fc118",
    ),
    pin(
        "hashbrown",
        "0.17.1",
        "ed5909b6e89a2db4456e54cd5f673791d7eca6732202bbf2a9cc504fe2f9b84a",
    ),
    pin(
        "hyper",
        "1.12.0",
        "2c3e324da4c95177d6291d4c8730197c0d1822f8a9766814a4a44fa5ab797c9c",
    ),
    pin(
        "image",
        "0.25.10",
        "85ab80394333c02fe689eaf900ab500fbd0c2213da414687ebf995a65d5a6104",
    ),
    pin(
        "itertools",
        "0.15.0",
        "8b4baf93f58d4425749ca49a51c50ebab072c5df6994d08fed93541c331481dc",
    ),
    pin(
        "nalgebra",
        "0.35.0",
        "adc43a60c217b0c6ff46e47f26911015ad8d2e5a8be1af668c67e370d99a4346",
    ),
    pin(
        "nom",
        "8.0.0",
        "df9761775871bdef83bee530e60050f7e54b1105350d6884eb0fb4f46c2f9405",
    ),
    pin(
        "petgraph",
        "0.8.3",
        "8701b58ea97060d5e5b155d383a69952a60943f0e6dfe30b04c287beb0b27455",
    ),
    pin(
        "rayon",
        "1.12.0",
        "fb39b166781f92d482534ef4b4b1b2568f42613b53e5b6c160e24cfbfa30926d",
    ),
    pin(
        "regex-automata",
        "0.4.19",
        "41d60ef07df457506a0a1a2073112eb4aae5733dbd2813c3da77d1b0fd441158",
    ),
    pin(
        "rustls",
        "0.23.46",
        "48e13bd8c0e9365c43cfa5c9e8f9ad49d3c8444926c9aac819e0e4dc503c8fdf",
    ),
    pin(
        "serde_json",
        "1.0.154",
        "e7e9cc8b1b85264074fbcc02a88680c4096b1e47df8f739dceb03bf482f04bd6",
    ),
    pin(
        "syn",
        "2.0.119",
        "872831b642d1a07999a962a351ed35b955ea2cfc8f3862091e2a240a84f17297",
    ),
    pin(
        "time",
        "0.3.55",
        "cdb87b95ec50ddfa440816d227a17b2ccbdda963a316a727fda0fc4334f7d134",
    ),
    pin(
        "tokio",
        "1.54.1",
        "b52fd3255258d26fac7264ab5a76b53c13367136dc011d3d6ad4f8ed070396a3",
    ),
    pin(
        "tracing-subscriber",
        "0.3.23",
        "cb7f578e5945fb242538965c2d0b04418d38ec25c79d160cd279bf0731c8d319",
    ),
    pin(
        "wgpu-core",
        "30.0.1",
        "14c018fce9b6270aa203c2fdd56f3cce996713534bd757e4ea58c8560b121f14",
    ),
];

const fn pin(name: &'static str, version: &'static str, sha256: &'static str) -> Pinned {
    Pinned {
        corpus: "rust",
        origin: Origin::CrateArchive { name, version },
        sha256,
        extension: "crate",
    }
}
