#!/usr/bin/env bash
# Builds kubectl from its published Go modules, once per version, and prints where it is.
#
#   dev/kube/build-kubectl.sh     prints .cache/kube/<version>/kubectl (absolute), building it when it is missing
#
# The version is the one that kubectl/go.mod requires: k8s.io/kubectl v0.Y.Z is Kubernetes v1.Y.Z. It needs Go and the
# Go module proxy. Cold, it takes some minutes of CPU; when the file exists it takes no time. Two runs at once are safe.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)

# Prints the Kubernetes version that go.mod asks for.
version() {
  local module
  module=$(sed -n 's/^[[:space:]]*k8s\.io\/kubectl v0\.\([0-9.]*\)$/\1/p' "$here/kubectl/go.mod")
  [ -n "$module" ] || { echo "kubectl/go.mod: no line 'k8s.io/kubectl v0.Y.Z'" >&2; exit 1; }
  echo "v1.$module"
}

# build VERSION FILE: compiles into FILE, which appears only when it is complete.
build() {
  local version=$1 file=$2 minor tmp flags="-s -w" package
  command -v go >/dev/null || { echo "building kubectl needs Go: https://go.dev/dl, or Debian's package golang-go" >&2; exit 1; }
  minor=${version#v1.}; minor=${minor%%.*}
  for package in k8s.io/component-base/version k8s.io/client-go/pkg/version; do
    flags+=" -X $package.gitVersion=$version -X $package.gitMajor=1 -X $package.gitMinor=$minor"
    flags+=" -X $package.gitTreeState=clean -X $package.buildDate=1970-01-01T00:00:00Z"
  done
  tmp=$(mktemp "$file.XXXXXX")
  trap 'rm -f "$tmp"' EXIT
  echo "building kubectl $version (once; some minutes)" >&2
  (cd "$here/kubectl" && CGO_ENABLED=0 GOFLAGS=-mod=readonly GOTOOLCHAIN=local GOWORK=off \
    nice -n 10 go build -trimpath -buildvcs=false -ldflags "$flags" -o "$tmp" .)
  chmod 755 "$tmp"
  mv -f "$tmp" "$file"
  trap - EXIT
}

version=$(version)
folder=$root/.cache/kube/$version
if [ ! -x "$folder/kubectl" ]; then
  mkdir -p "$folder"
  exec 9>"$folder/.lock"
  flock 9
  [ -x "$folder/kubectl" ] || build "$version" "$folder/kubectl"
fi
echo "$folder/kubectl"
