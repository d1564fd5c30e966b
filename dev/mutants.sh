#!/usr/bin/env bash
# Mutation tests: breaks core/policy, core/selector and core/calc in one place at a time, in a copy of the
# tree, and says which breaks no test of that crate notices (target/mutants.out/missed.txt). Builds
# cargo-mutants once a version. What is left out, and why: .cargo/mutants.toml.
#
# Hours for all of it. Arguments, which go to cargo-mutants, ask for less:
#   --package selector    --file core/policy/src/rule.rs    --shard 0/8    --iterate (what was missed before)
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
case " $* " in
*" --package "* | *" -p "* | *" --file "* | *" -f "*) ;;
*) set -- --package policy --package selector --package calc "$@" ;;
esac
# One seed, so that a mutant's fate is not a throw of the dice; a failure is enough, its smallest form is not
# needed. Nothing is remembered from one mutant to the next.
export PROPTEST_RNG_SEED=1 PROPTEST_MAX_SHRINK_ITERS=0 PROPTEST_DISABLE_FAILURE_PERSISTENCE=true
exec nice -n 19 "$home/bin/cargo-mutants" mutants --output target "$@"
