#!/usr/bin/env bash
# Makes the book of docs/ in target/book. Builds mdbook once a version, without its server and its search.
#
# A warning of mdbook fails as an error does: it is about something that a reader would stumble over.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
version=0.5.4
home=$PWD/.cache/mdbook/$version
if [ ! -x "$home/bin/mdbook" ]; then
    echo "building mdbook $version (once)"
    # A target folder of its own: its features must not unsettle the project's compiled dependencies. Not optimised: that
    # takes a third of the time, and the book is small.
    CARGO_TARGET_DIR=$home/target CARGO_PROFILE_RELEASE_OPT_LEVEL=0 ${CARGO:-cargo} install mdbook --version "$version" --locked \
        --no-default-features --root "$home" --quiet
    rm -rf "$home/target"
fi
said=$("$home/bin/mdbook" build docs 2>&1) || { echo "$said" >&2; exit 1; }
if grep -E '(WARN|ERROR)' <<<"$said" >&2; then
    echo "docs: the book has faults" >&2
    exit 1
fi
echo "target/book/index.html"
