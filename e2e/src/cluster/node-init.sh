#!/bin/sh
# First process of a node: it has its own mount, process, host name and IPC namespaces, and the network namespace of
# its node. It binds folders of the node to the default paths of the Kubernetes programs, then starts the programs.
# The harness sets NODE (its name), NODE_IP, NODE_DIR (its folder), PROGRAMS (the search path in which it found every
# program), PAUSE_IMAGE and SNAPSHOTTER (how containerd stores layers).
set -eu
PATH=$PROGRAMS
export PATH
hostname "$NODE"

own() { # own FOLDER PATH: binds FOLDER of this node to PATH
  mkdir -p "$NODE_DIR/$1" "$2"
  mount --bind "$NODE_DIR/$1" "$2"
}
own kubelet /var/lib/kubelet
# volumes that kubelet mounts must be visible in containers that start later
mount --make-rshared /var/lib/kubelet
own containerd /var/lib/containerd
own pods /var/log/pods
own containers /var/log/containers
own cni /etc/cni/net.d
# state directory of the node-shims
own selvage /var/lib/selvage
mount -t tmpfs tmpfs /run
mkdir -p /run/containerd /run/netns /run/lock

echo 1 > /proc/sys/net/ipv4/ip_forward
# absent if the kernel has no bridge filter; then there is nothing to enable
[ ! -e /proc/sys/net/bridge/bridge-nf-call-iptables ] || echo 1 > /proc/sys/net/bridge/bridge-nf-call-iptables

# kubelet sets these for the whole machine unless they have the required values already: provide those here
mkdir -p /run/sysctl
for setting in vm/overcommit_memory=1 vm/panic_on_oom=0 kernel/panic=10 kernel/panic_on_oops=1; do
  name=${setting%=*}
  echo "${setting#*=}" > "/run/sysctl/${name#*/}"
  mount --bind "/run/sysctl/${name#*/}" "/proc/sys/$name"
done

containerd -c "$NODE_DIR/containerd.toml" > "$NODE_DIR/containerd.log" 2>&1 &
tries=0
until ctr version > /dev/null 2>&1; do
  tries=$((tries + 1))
  if [ $tries -gt 900 ]; then
    echo "containerd did not answer within 90 s" >&2
    exit 1
  fi
  sleep 0.1
done
ctr -n k8s.io images import --snapshotter "$SNAPSHOTTER" "$PAUSE_IMAGE" > /dev/null

kubelet --config="$NODE_DIR/kubelet.yaml" --kubeconfig="$NODE_DIR/kubelet.kubeconfig" --hostname-override="$NODE" \
  --node-ip="$NODE_IP" --root-dir=/var/lib/kubelet --v=2 > "$NODE_DIR/kubelet.log" 2>&1 &
kube-proxy --config="$NODE_DIR/kube-proxy.yaml" > "$NODE_DIR/kube-proxy.log" 2>&1 &
wait
