//! The table.

use std::time::Duration;

/// The machine, and the head of the table.
pub(crate) fn head() {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let cpu = read("/proc/cpuinfo");
    let model = cpu.lines().find_map(|l| l.strip_prefix("model name")?.split_once(": "));
    println!(
        "kernel {}, CPU {}, {} cores, load {}",
        read("/proc/sys/kernel/osrelease").trim(),
        model.map_or("unknown", |(_, m)| m),
        std::thread::available_parallelism().map_or(0, usize::from),
        read("/proc/loadavg").split(' ').next().unwrap_or_default(),
    );
    println!("\n| what | bar | n | p50 | p90 | p99 | max |\n|---|---|---|---|---|---|---|");
}

/// One row of times, in milliseconds.
pub(crate) fn times(what: &str, bar: &str, samples: Vec<Duration>) {
    let millis = samples.iter().map(|d| d.as_secs_f64() * 1e3).collect();
    numbers(what, bar, millis, |v| format!("{v:.3} ms"));
}

/// One row of anything that has an order.
pub(crate) fn numbers(what: &str, bar: &str, mut samples: Vec<f64>, show: impl Fn(f64) -> String) {
    assert!(!samples.is_empty(), "{what}: nothing was measured");
    samples.sort_by(f64::total_cmp);
    let at = |p: f64| {
        let rank = (samples.len() as f64 * p).ceil() as usize;
        show(samples[rank.clamp(1, samples.len()) - 1])
    };
    let [p50, p90, p99, max] = [0.5, 0.9, 0.99, 1.0].map(at);
    println!("| {what} | {bar} | {} | {p50} | {p90} | {p99} | {max} |", samples.len());
}

/// What goes on, for who waits.
pub(crate) fn note(text: &str) {
    eprintln!("    {text}");
}
