#!/usr/bin/env bash
# Builds a program from Kubernetes' published Go modules, once per version and content, and prints where it is.
#
#   dev/kube/build.sh kubectl     the client alone: some minutes, once
#   dev/kube/build.sh cluster     etcd, kube-apiserver, kube-controller-manager, kube-scheduler, kubelet, kube-proxy
#   dev/kube/build.sh --find cluster     builds nothing: fails when the file is not there
#
# The file lies in .cache/kube/<version>-<content>/, where <content> is made from go.mod, go.sum, the program's sources
# and this script. It needs Go and the Go module proxy. When the file exists it takes no time. Two runs at once are safe.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)

# The Kubernetes version that go.mod asks for.
version() {
  local version
  version=$(sed -n 's/^[[:space:]]*k8s\.io\/kubernetes \(v1\.[0-9.]*\)$/\1/p' "$here/go.mod")
  [ -n "$version" ] || { echo "dev/kube/go.mod: no line 'k8s.io/kubernetes v1.Y.Z'" >&2; exit 1; }
  echo "$version"
}

# content PROGRAM: what its file depends on, in twelve digits.
content() {
  (cd "$here" && cat go.mod go.sum build.sh "$1"/*.go) | sha256sum | cut -c 1-12
}

# build PROGRAM VERSION FILE: compiles into FILE, which appears only when it is complete.
build() {
  local program=$1 version=$2 file=$3 minor tmp flags="-s -w" package began=$SECONDS
  command -v go >/dev/null || { echo "building $program needs Go: https://go.dev/dl, or Debian's package golang-go" >&2; exit 1; }
  minor=${version#v1.}; minor=${minor%%.*}
  for package in k8s.io/component-base/version k8s.io/client-go/pkg/version; do
    flags+=" -X $package.gitVersion=$version -X $package.gitMajor=1 -X $package.gitMinor=$minor"
    flags+=" -X $package.gitCommit=0000000000000000000000000000000000000000"
    flags+=" -X $package.gitTreeState=clean -X $package.buildDate=1970-01-01T00:00:00Z"
  done
  tmp=$(mktemp "$file.XXXXXX")
  trap 'rm -f "$tmp"' EXIT
  echo "building $program of Kubernetes $version (once; some minutes)" >&2
  (cd "$here" && CGO_ENABLED=0 GOFLAGS=-mod=readonly GOTOOLCHAIN=local GOWORK=off \
    nice -n 10 go build -trimpath -buildvcs=false -ldflags "$flags" -o "$tmp" "./$program")
  chmod 755 "$tmp"
  mv -f "$tmp" "$file"
  trap - EXIT
  echo "built $program in $((SECONDS - began)) s" >&2
}

find=
[ "${1:-}" != --find ] || { find=1; shift; }
case "${1:-}" in
  kubectl) program=$1 verb=setup ;;
  cluster) program=$1 verb=kube ;;
  *) echo "usage: dev/kube/build.sh [--find] kubectl|cluster" >&2; exit 2 ;;
esac
version=$(version)
folder=$root/.cache/kube/$version-$(content "$program")
if [ ! -x "$folder/$program" ]; then
  [ -z "$find" ] || { echo "$folder/$program is not built; run: make $verb" >&2; exit 1; }
  mkdir -p "$folder"
  exec 9>"$folder/.lock"
  flock 9
  [ -x "$folder/$program" ] || build "$program" "$version" "$folder/$program"
fi
echo "$folder/$program"
