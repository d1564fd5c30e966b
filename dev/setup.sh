#!/usr/bin/env bash
# Makes a machine ready to build, demonstrate and test: Debian packages, compilers (checked, not installed), kubectl.
#
# Quick when nothing is missing. As root on Debian it installs what is; elsewhere it lists it and fails.
# Arguments name further packages, as the lines of `needed` do.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# command or file that shows it is there : Debian package that brings it
needed=(
  cc:build-essential    # SQLite is compiled in
  git:git
  protoc:protobuf-compiler # etcd's messages, of which code is made when we are built
  /usr/include/google/protobuf/descriptor.proto:libprotobuf-dev # likewise
  ip:iproute2           # tests look at the kernel with other eyes than ours
  nft:nftables          # likewise
  iptables-legacy:iptables # other programs' rules, which are reported
  conntrack:conntrack   # the kernel's flows, seen with other eyes than ours
  sysctl:procps         # switches of test namespaces
  "$@"
)
rust_wanted=1.95
go_wanted=1.25

fail() { echo "setup: $*" >&2; exit 1; }

# at_least HAVE WANT: whether version HAVE is WANT or newer.
at_least() { [ "$(printf '%s\n%s\n' "$2" "$1" | sort -V | head -n 1)" = "$2" ]; }

packages() {
  local entry shown missing=()
  for entry in "${needed[@]}"; do
    shown=${entry%%:*}
    case $shown in
      /*) [ -e "$shown" ] ;;
      *) PATH=$PATH:/usr/sbin:/sbin command -v "$shown" >/dev/null ;;
    esac || missing+=("${entry#*:}")
  done
  [ ${#missing[@]} -gt 0 ] || return 0
  [ -f /etc/debian_version ] || fail "missing, by Debian's package names: ${missing[*]}; install them with this system's package manager"
  [ "$(id -u)" = 0 ] || fail "missing Debian packages: ${missing[*]}; run again as root, or: sudo apt-get install ${missing[*]}"
  echo "setup: installing ${missing[*]}" >&2
  apt-get update -q >&2 || fail "apt-get update failed; missing packages: ${missing[*]}"
  DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "${missing[@]}" >&2 \
    || fail "apt-get install failed; missing packages: ${missing[*]}"
}

compilers() {
  local rust go
  command -v "${CARGO:-cargo}" >/dev/null || fail "no cargo; install Rust $rust_wanted or newer: https://rustup.rs"
  rust=$(rustc --version | cut -d' ' -f2)
  at_least "$rust" "$rust_wanted" || fail "Rust is $rust; $rust_wanted or newer is needed: rustup update"
  command -v go >/dev/null || fail "no go (kubectl is built with it); install Go $go_wanted or newer: https://go.dev/dl"
  go=$(GOTOOLCHAIN=local go env GOVERSION)
  at_least "${go#go}" "$go_wanted" || fail "Go is ${go#go}; $go_wanted or newer is needed: https://go.dev/dl"
}

packages
compilers
dev/kube/build.sh kubectl >/dev/null
