# The first process of a node: containerd and kubelet, in mount, process and host name namespaces of their own, in the
# network namespace of a test's node. Everything ends with it.
#
# From the environment: NAME, ADDRESS of the node; FOLDER for what it writes, with cni-bin (plugins), cni-conf (their
# configuration) and etc.sh (what else runs there); PROGRAM with the kubelet in it; KUBECONFIG; IMAGES, a folder of
# archives; CGROUP, the group that its containers are in.
set -eu
mount --make-rprivate /
hostname "$NAME"

# A /sys of this network namespace, with the control groups of the machine.
mkdir -p /run/cgroups-of-the-machine
mount --rbind /sys/fs/cgroup /run/cgroups-of-the-machine
mount -t sysfs sysfs /sys
mount --rbind /run/cgroups-of-the-machine /sys/fs/cgroup
umount -R /run/cgroups-of-the-machine
if [ -f /sys/fs/cgroup/cgroup.controllers ]; then
  mkdir -p "/sys/fs/cgroup/$CGROUP"
else
  for hierarchy in /sys/fs/cgroup/*/; do
    [ "$hierarchy" = /sys/fs/cgroup/unified/ ] || mkdir -p "$hierarchy/$CGROUP"
  done
  # A new group has no processors and no memory nodes until it is told.
  for what in cpus mems; do
    cat "/sys/fs/cgroup/cpuset/cpuset.$what" >"/sys/fs/cgroup/cpuset/$CGROUP/cpuset.$what"
  done
fi

mount -t tmpfs -o mode=755 tmpfs /run
mkdir -p /run/netns /run/lock
for pair in containerd:/var/lib/containerd kubelet:/var/lib/kubelet cni-state:/var/lib/cni calico:/var/lib/calico \
  cni-conf:/etc/cni/net.d cni-bin:/opt/cni/bin pods:/var/log/pods logs:/var/log/containers calico-logs:/var/log/calico; do
  mkdir -p "$FOLDER/${pair%%:*}" "${pair#*:}"
  mount --bind "$FOLDER/${pair%%:*}" "${pair#*:}"
done
mount --make-rshared /

# Layers cannot be put over a file system that is one of layers itself.
snapshotter=overlayfs
[ "$(stat -f -c %T "$FOLDER")" != overlayfs ] || snapshotter=native
cat >"$FOLDER/containerd.toml" <<T
version = 2
disabled_plugins = ["io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs"]
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "test.local/pause:1"
  disable_apparmor = true
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "$snapshotter"
T
cat >"$FOLDER/kubelet.yaml" <<Y
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
address: $ADDRESS
healthzBindAddress: 127.0.0.1
containerRuntimeEndpoint: unix:///run/containerd/containerd.sock
cgroupDriver: cgroupfs
cgroupRoot: /$CGROUP
failCgroupV1: false
failSwapOn: false
authentication: {anonymous: {enabled: true}, webhook: {enabled: false}}
authorization: {mode: AlwaysAllow}
resolvConf: ""
imageGCHighThresholdPercent: 100
imageGCLowThresholdPercent: 99
evictionHard: {memory.available: 50Mi, nodefs.available: 1%, nodefs.inodesFree: 1%, imagefs.available: 1%}
syncFrequency: 10s
nodeStatusUpdateFrequency: 4s
Y
containerd -c "$FOLDER/containerd.toml" >"$FOLDER/containerd.log" 2>&1 &
for _ in $(seq 100); do
  ctr -n k8s.io version >/dev/null 2>&1 && break
  sleep 0.1
done
for archive in "$IMAGES"/*.tar; do ctr -n k8s.io images import --snapshotter "$snapshotter" "$archive"; done
"$PROGRAM" kubelet --config "$FOLDER/kubelet.yaml" --kubeconfig "$KUBECONFIG" --hostname-override "$NAME" \
  --node-ip "$ADDRESS" --cert-dir "$FOLDER/certificates" --root-dir /var/lib/kubelet >"$FOLDER/kubelet.log" 2>&1 &
. "$FOLDER/etc.sh"
# The first process of its namespace takes in those whose parents ended.
while :; do wait || true; sleep 1; done
