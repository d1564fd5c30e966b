#!/usr/bin/env bash
# Checks licences, bans and sources of everything that is linked in. Builds cargo-deny once a version.
set -euo pipefail
cd "$(dirname "$0")/.."
version=0.20.2
home=${CALICO_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/calico-rs}/cargo-deny-$version
if [ ! -x "$home/bin/cargo-deny" ]; then
    echo "building cargo-deny $version (once)"
    # A target folder of its own: its features must not unsettle the project's compiled dependencies.
    CARGO_TARGET_DIR=$home/target cargo install cargo-deny --version "$version" --locked \
        --no-default-features --root "$home" --quiet
    rm -rf "$home/target"
fi
# A build fetches only what this machine's target needs; the graph that is checked names every target's crates.
cargo fetch --locked --quiet
# Advisories need a database from the network; the other checks are complete without one.
"$home/bin/cargo-deny" --offline check --hide-inclusion-graph licenses bans sources
