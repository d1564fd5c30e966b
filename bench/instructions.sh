#!/usr/bin/env bash
# Counts the instructions of single-threaded benchmarks: a figure that a busy machine does not change.
#
# Each benchmark runs once under valgrind's callgrind, which counts inside Criterion's loop only: the
# first round after the set-up, our program's instructions and not the kernel's.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

command -v valgrind >/dev/null || { echo "instructions: valgrind is missing: apt-get install valgrind" >&2; exit 1; }

# program PACKAGE BENCH: builds it and prints where it is.
program() {
  cargo bench --locked -p "$1" --bench "$2" --no-run 2>&1 | sed -n 's/^ *Executable .* (\(.*\))$/\1/p'
}

# count PACKAGE BENCH: a line for each benchmark in it. (Criterion starts gnuplot when it finds one: a
# process that counts nothing, hence the largest.)
count() {
  local run name counted
  run=$(program "$1" "$2")
  [ -x "$run" ] || { echo "instructions: no program for bench $2 of $1" >&2; exit 1; }
  "$run" --bench --list | sed -n 's/: benchmark$//p' | while read -r name; do
    counted=$(valgrind --tool=callgrind --callgrind-out-file=/dev/null '--toggle-collect=*Bencher*iter*' \
      "$run" --bench --test --exact "$name" 2>&1 | sed -n 's/^==.*Collected : //p' | sort -n | tail -n 1)
    [ "${counted:-0}" -gt 0 ] || { echo "instructions: nothing counted for $name" >&2; exit 1; }
    echo "| $name | $(sed ':a; s/\([0-9]\)\([0-9]\{3\}\)\($\|,\)/\1,\2\3/; ta' <<<"$counted") |"
  done
}

echo '| what | instructions |'
echo '|---|---|'
count selector selector
count calc calc
count nft one_member
