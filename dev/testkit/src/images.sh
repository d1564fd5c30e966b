# images.sh FOLDER: container images made by hand, test.local/pause:1 and test.local/busybox:1, from Debian's
# busybox-static: no engine, no registry.
set -eu
folder=$1
if ldd /bin/busybox >/dev/null 2>&1; then
  echo "/bin/busybox needs libraries; install Debian's package busybox-static" >&2
  exit 1
fi
mkdir -p "$folder"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# image NAME ROOT ENTRYPOINT-AS-JSON
image() {
  pack() { tar --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner -C "$1" -cf "$2" .; }
  digest() { sha256sum "$1" | cut -d ' ' -f 1; }
  machine=$(uname -m)
  case $machine in x86_64) machine=amd64 ;; aarch64) machine=arm64 ;; esac
  out=$work/out
  rm -rf "$out"
  mkdir "$out"
  pack "$2" "$out/layer.tar"
  printf '{"architecture":"%s","os":"linux","config":{"Entrypoint":%s,"Env":["PATH=/bin"]},"rootfs":{"type":"layers","diff_ids":["sha256:%s"]},"history":[]}' \
    "$machine" "$3" "$(digest "$out/layer.tar")" >"$out/config.json"
  printf '[{"Config":"config.json","RepoTags":["test.local/%s:1"],"Layers":["layer.tar"]}]' "$1" >"$out/manifest.json"
  pack "$out" "$folder/$1.tar"
}

mkdir -p "$work/pause/bin" "$work/busybox"/bin "$work/busybox"/tmp "$work/busybox"/etc "$work/busybox"/proc \
  "$work/busybox"/sys "$work/busybox"/dev "$work/busybox"/www
cp /bin/busybox "$work/pause/bin/"
cp /bin/busybox "$work/busybox/bin/"
for applet in $(/bin/busybox --list); do
  [ "$applet" = busybox ] || ln -s busybox "$work/busybox/bin/$applet"
done
echo 'root:x:0:0::/:/bin/sh' >"$work/busybox/etc/passwd"
image pause "$work/pause" '["/bin/busybox","sleep","2147483647"]'
image busybox "$work/busybox" null
