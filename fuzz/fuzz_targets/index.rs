//! Indexes of shards.
#![no_main]

use libfuzzer_sys::fuzz_target;

#[global_allocator]
static ALLOCATOR: calm_fuzz::Limited = calm_fuzz::Limited;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(shards) = calm_weights::parse_index(bytes) {
        for shard in shards.keys() {
            // A plain name leads nowhere else.
            let path = std::path::Path::new(shard);
            assert_eq!(path.file_name(), Some(path.as_os_str()), "{shard:?}");
        }
    }
});
