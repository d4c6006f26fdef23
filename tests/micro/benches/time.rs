//! By the clock.

use divan::Bencher;
use postroad_micro::Case;

fn main() {
    divan::main();
}

#[divan::bench(args = Case::ALL.map(|case| case.name))]
fn step(bencher: Bencher<'_, '_>, name: &str) {
    let mut step = Case::named(name).and_then(Case::prepare).expect("a case");
    bencher.bench_local(|| step().expect("the step is done"));
}
