#!/bin/sh
# usage: unshare --net --mount --pid --fork --kill-child --mount-proc apart.sh COMMAND...: an engine's own namespaces.
# Whatever it has started ends with the command: Podman keeps who watched an `exec` for five minutes more.
set -e
ip link set lo up
# crun knows control groups of one version, and refuses both. They stay as they are for everybody else.
! mountpoint -q /sys/fs/cgroup/unified || umount /sys/fs/cgroup/unified
# Podman's name server forwards what it does not know (any name's IPv6 address), and while nobody answers it, it answers
# nobody for seconds.
python3 "$(dirname "$0")/no_names.py" &
resolv=$(mktemp)
echo 'nameserver 127.0.0.1' >"$resolv"
mount --bind "$resolv" /etc/resolv.conf
rm "$resolv"
exec "$@"
