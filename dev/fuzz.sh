#!/usr/bin/env bash
# Builds the fuzz targets with the stable toolchain and runs each for SECONDS_EACH (30) seconds.
# What is found is kept in fuzz/corpus and used by the next run.
set -euo pipefail
cd "$(dirname "$0")/../fuzz"
target=$(rustc -vV | sed -n 's/^host: //p')
# Coverage, as cargo-fuzz would ask for it; for the targets only, not for build scripts.
coverage=(-Cpasses=sancov-module -Ccodegen-units=1 --cfg fuzzing)
for option in level=4 inline-8bit-counters pc-table trace-compares; do
    coverage+=("-Cllvm-args=-sanitizer-coverage-$option")
done
RUSTFLAGS="${coverage[*]}" "${CARGO:-cargo}" build --release --target "$target"
folder=${CARGO_TARGET_DIR:-target}/$target/release
for source in fuzz_targets/*.rs; do
    name=$(basename "$source" .rs)
    mkdir -p "corpus/$name"
    "$folder/$name" -max_total_time="${SECONDS_EACH:-30}" "corpus/$name"
done
