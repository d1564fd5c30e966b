#!/usr/bin/env bash
# Runs a program on the kernel of build.sh, in a virtual machine of its own, as root; prints what it prints and ends with
# its exit code. Nothing of this machine is seen or touched from inside.
#
#   dev/vm/run.sh [-m MODULE]... [-f PATH]... [-e NAME=VALUE]... [-t SECONDS] PROGRAM [ARGUMENT...]
#
#   -m   a module that is loaded before; what the kernel itself asks for is loaded as on any machine
#   -f   a program, file or folder that is to be there too, at the same path; programs with the libraries they need
#   -e   a variable of its environment
#   -t   after so long the machine is switched off: 300
#
# Exit code 124: it took too long; 125: the machine could not be made, or ended by itself: its last words are printed.
# The machine ends with this script, however that ends.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
modules=() paths=(/bin/sh) variables=() seconds=300

usage() { sed -n '5s/^# *//p' "${BASH_SOURCE[0]}" >&2; exit 125; }
fail() { echo "dev/vm/run.sh: $*" >&2; exit 125; }

while getopts m:f:e:t: option; do
  case $option in
    m) modules+=("$OPTARG") ;;
    f) paths+=("$OPTARG") ;;
    e) variables+=("$OPTARG") ;;
    t) seconds=$OPTARG ;;
    *) usage ;;
  esac
done
shift $((OPTIND - 1))
[ $# -gt 0 ] || usage
command -v qemu-system-x86_64 >/dev/null || fail "no qemu-system-x86_64; run: make vm"
base=$("$here/build.sh" --find) || exit 125
program=$(command -v "$1") || fail "no program $1"
program=$(realpath -s "$program")
shift

at=$(mktemp -d)
qemu=
finish() {
  [ -z "$qemu" ] || { kill -TERM "$qemu" && wait "$qemu"; } 2>/dev/null || true
  rm -rf "$at"
}
trap finish EXIT
trap 'exit 130' INT TERM HUP

# put PATH: PATH, and the libraries it needs, below $at/tree.
put() {
  local library
  [ -e "$1" ] || fail "no $1"
  mkdir -p "$at/tree$(dirname "$1")"
  cp -rL "$1" "$at/tree$1"
  # Fails for what is no program, or needs none.
  for library in $(ldd "$1" 2>/dev/null | grep -o '/[^ ]*' || true); do
    [ -e "$at/tree$library" ] || { mkdir -p "$at/tree$(dirname "$library")" && cp -L "$library" "$at/tree$library"; }
  done
}
mkdir -p "$at/tree/vm"
for path in "${paths[@]}" "$program"; do put "$path"; done
echo "${modules[@]}" >"$at/tree/vm/modules"
{
  [ ${#variables[@]} = 0 ] || printf 'export %q\n' "${variables[@]}"
  printf '%q ' "$program" "$@"
} >"$at/tree/vm/command"
{
  cat "$base/base.cpio"
  cd "$at/tree" && find . | busybox cpio -o -H newc 2>/dev/null
} >"$at/initrd"

# Emulation: the same on every machine, also on one that is virtual itself. Whatever ends this script ends it too.
machine=(
  qemu-system-x86_64 -machine q35 -accel tcg -cpu max -smp 1 -m 1024 -nodefaults -display none -no-reboot
  -kernel "$base/vmlinuz" -initrd "$at/initrd" -append "console=ttyS0 quiet panic=-1"
)
for port in console out err code; do machine+=(-serial "file:$at/$port"); done
setpriv --pdeathsig TERM timeout --foreground -k 5 "$seconds" setpriv --pdeathsig KILL "${machine[@]}" \
  </dev/null >"$at/qemu" 2>&1 &
qemu=$!
ended=0
wait "$qemu" || ended=$?
qemu=
cat "$at/out"
cat "$at/err" >&2
[ "$ended" != 124 ] || { tail -n 30 "$at/console" >&2; echo "dev/vm/run.sh: not done after $seconds s" >&2; exit 124; }
code=$(cat "$at/code" 2>/dev/null || true)
[ -n "$code" ] || { tail -n 30 "$at/console" "$at/qemu" >&2; fail "the machine ended by itself"; }
exit "$code"
