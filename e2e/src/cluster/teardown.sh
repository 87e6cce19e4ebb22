#!/bin/sh
# teardown.sh RUN-DIR: ends one run of a local cluster and removes everything that has its id in its name. The owner
# calls this at its end, a watchdog if the owner was killed, and the next start if both were. Every step may already
# be done, and two of these scripts may work on one run at the same time.
dir=$1
id=${dir##*/}
[ -n "$id" ] || exit 2

# Every process of a run, and what it starts, has the run's id in its environment. SIGKILL to the parent of a
# node's first process takes the whole node with it.
marked() {
  grep -lsz "^SELVAGE_RUN=$id\$" /proc/[0-9]*/environ | sed 's|/proc/\([0-9]*\)/environ|\1|'
}
tries=0
while pids=$(marked) && [ -n "$pids" ] && [ $tries -lt 50 ]; do
  kill -9 $pids 2>/dev/null
  tries=$((tries + 1))
  sleep 0.1
done

for net in /run/netns/selvage-"$id"-*; do
  [ -e "$net" ] || continue
  for pid in $(ip netns pids "${net##*/}" 2>/dev/null); do kill -9 "$pid" 2>/dev/null; done
done
ip link del "slv$id" 2>/dev/null
for net in /run/netns/selvage-"$id"-*; do
  [ -e "$net" ] && ip netns del "${net##*/}" 2>/dev/null
done

# The kernel empties the cgroups of killed processes a little later.
tries=0
while [ $tries -lt 50 ]; do
  left=
  for group in /sys/fs/cgroup/selvage-"$id" /sys/fs/cgroup/*/selvage-"$id"; do
    [ -d "$group" ] || continue
    find "$group" -depth -type d -exec rmdir {} + 2>/dev/null
    [ -d "$group" ] && left=1
  done
  [ -z "$left" ] && break
  tries=$((tries + 1))
  sleep 0.1
done

# Nodes mount in their own namespaces. This is for a node that died before it had one.
grep -s " $dir/" /proc/self/mounts | cut -d' ' -f2 | sort -r | while read -r point; do
  umount -l "$point" 2>/dev/null
done
rm -rf --one-file-system "$dir"
