#!/usr/bin/env bash
# Gets the kernel that tests boot in a virtual machine, once per version and content of this folder, and prints the folder
# it lies in: `vmlinuz`, and `base.cpio` with busybox, the network's modules and `init`.
#
#   dev/vm/build.sh          downloads and unpacks what is missing: some seconds, once
#   dev/vm/build.sh --find   makes nothing: fails when it is not there
#
# The folder is .cache/vm/<kernel>-<content>/. Nothing is installed: the package is unpacked there. Two runs at once are safe.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)

# The kernel: the newest of this series in Debian 12, whose archive keeps no older one for long. It has what the kernel
# that tests run on may lack: a list of netfilter's hooks, ipip, wireguard, flow tables, modules. Debian's 6.1 has no such list.
series=linux-image-6.12-cloud-amd64
# What is taken of its modules: folders and files below kernel/.
modules=(
  net/{802,8021q,bridge,core,ipv4,ipv6,llc,netfilter,sched,xfrm}
  drivers/net/{dummy,geneve,ifb,macvlan,tun,veth,vrf}.ko.xz drivers/net/{ipvlan,vxlan,wireguard}
  crypto lib arch/x86/crypto
)

tmp=
fail() { echo "dev/vm/build.sh: $*" >&2; exit 1; }

# The name of the package that `series` stands for now.
package() {
  apt-cache depends "$series" 2>/dev/null | sed -n 's/^ *Depends: \(linux-image-.*\)$/\1/p'
}

# fetch FOLDER: the package, unpacked in FOLDER. Lists of packages may be missing, or older than what the archive has.
fetch() {
  local name try
  for try in lists update; do
    [ "$try" = lists ] || apt-get update -q >&2 || fail "apt-get update failed"
    name=$(package)
    if [ -n "$name" ] && (cd "$1" && apt-get download -qq -o APT::Sandbox::User=root "$name" >&2); then
      dpkg-deb -x "$1"/*.deb "$1/package"
      return
    fi
  done
  fail "no package $series: a Debian 12 with its security updates is needed"
}

# build FOLDER: makes FOLDER, which appears only when it is complete.
build() {
  local version tree tool
  for tool in apt-get dpkg-deb busybox xz; do
    command -v "$tool" >/dev/null || fail "no $tool; run: make vm"
  done
  tmp=$(mktemp -d "$1.XXXXXX")
  trap 'rm -rf "$tmp"' EXIT
  fetch "$tmp"
  cp "$tmp"/package/boot/vmlinuz-* "$tmp/vmlinuz"
  version=$(basename "$tmp"/package/lib/modules/*)
  tree=$tmp/tree/lib/modules/$version
  mkdir -p "$tree/kernel" "$tmp/tree/bin"
  (cd "$tmp/package/lib/modules/$version" && cp modules.* "$tree" \
    && cd kernel && cp -r --parents "${modules[@]}" "$tree/kernel")
  find "$tree" -name '*.xz' -exec xz -d {} +
  busybox depmod -b "$tmp/tree" "$version"
  cp "$(command -v busybox)" "$tmp/tree/bin/busybox"
  cp "$here/init" "$tmp/tree/init"
  (cd "$tmp/tree" && find . | sort | busybox cpio -o -H newc 2>/dev/null) >"$tmp/base.cpio"
  rm -rf "$tmp/tree" "$tmp/package" "$tmp"/*.deb
  mv "$tmp" "$1"
  trap - EXIT
}

folder=$root/.cache/vm/${series#linux-image-}-$(cat "$here/build.sh" "$here/init" | sha256sum | cut -c 1-12)
if [ ! -d "$folder" ]; then
  [ "${1:-}" != --find ] || fail "$folder is not there; run: make vm"
  mkdir -p "${folder%/*}"
  exec 9>"$folder.lock"
  flock 9
  [ -d "$folder" ] || build "$folder"
fi
echo "$folder"
