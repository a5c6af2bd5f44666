#!/bin/sh
# usage: unshare --net --mount --pid --fork --kill-child --mount-proc apart.sh COMMAND...: an engine's own namespaces.
# Whatever it has started ends with the command: Podman keeps who watched an `exec` for five minutes more.
set -e
ip link set lo up
# A bridge has the lowest hardware address of its ports, so a container that comes or goes may change it. Netavark before
# 1.9 leaves it so (containers/netavark#833); the others then ask Podman's name server where nobody is, for seconds.
echo 1 >/proc/sys/net/ipv4/conf/all/arp_notify
# crun knows control groups of one version, and refuses both. They stay as they are for everybody else.
! mountpoint -q /sys/fs/cgroup/unified || umount /sys/fs/cgroup/unified
exec "$@"
