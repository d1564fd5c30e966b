#!/usr/bin/env bash
# Mutation tests: breaks core/policy, core/selector and core/calc in one place at a time, and says which
# breaks no test of that crate notices. Builds cargo-mutants once a version. What is left out, and why:
# .cargo/mutants.toml. Arguments go to cargo-mutants: `dev/mutants.sh --file core/policy/src/judge.rs`.
set -euo pipefail
cd "$(dirname "$0")/.."
version=27.1.0
home=${CALICO_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/calico-rs}/cargo-mutants-$version
if [ ! -x "$home/bin/cargo-mutants" ]; then
    echo "building cargo-mutants $version (once)"
    # A target folder of its own: its features must not unsettle the project's compiled dependencies.
    CARGO_TARGET_DIR=$home/target cargo install cargo-mutants --version "$version" --locked --root "$home" --quiet
    rm -rf "$home/target"
fi
# One seed, so that a mutant's fate is not a throw of the dice; a failure is enough, its smallest form is not
# needed. Nothing is remembered from one mutant to the next.
export PROPTEST_RNG_SEED=1 PROPTEST_MAX_SHRINK_ITERS=0 PROPTEST_DISABLE_FAILURE_PERSISTENCE=true
exec "$home/bin/cargo-mutants" mutants --package policy --package selector --package calc \
    --output target "$@"
