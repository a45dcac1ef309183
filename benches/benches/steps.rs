//! The standard jobs, in tokens per second: training steps, generation, evaluation.

use calm_benches::{device, jobs};
use divan::Bencher;
use divan::counter::ItemsCount;

fn main() {
    divan::main();
}

#[divan::bench(args = jobs::all().into_iter().map(|job| job.name), sample_count = 5, sample_size = 1)]
fn job(bencher: Bencher, name: &str) {
    let job = jobs::all()
        .into_iter()
        .find(|job| job.name == name)
        .expect("a standard job");
    let run = job.make(&device());
    bencher
        .counter(ItemsCount::new(job.tokens))
        .bench_local(run);
}
