#!/usr/bin/env bash
# The images of docker-compose.yml without a registry, as archives for `docker load`: DIRECTORY/{countersign,...}.tar.
# Ours is the one in the store of `make image`. Those of others get their names, a base of Debian packages, and the
# program that is at hand, behind an entry point like theirs.
# usage: images.sh DIRECTORY STORE ENVOY PROMETHEUS
set -euo pipefail
directory=$(realpath -m "$1")
ours=$(realpath "$2")
envoy=$3
prometheus=$4
mkdir -p "$directory"
store=(--storage-driver vfs --root "$directory/storage" --runroot "$directory/run")

rm -f "$directory/countersign.tar"
buildah --storage-driver vfs --root "$ours/storage" --runroot "$ours/run" push --quiet \
  countersign:local "docker-archive:$directory/countersign.tar:docker.io/library/countersign:local"

if [ ! -f "$directory/base.tar" ]; then
  # bash and grep for the health check of Envoy, wget for that of Prometheus: their images have them.
  mmdebstrap --quiet --variant=extract --include=dash,bash,coreutils,grep,wget,libgcc-s1 bookworm "$directory/base-new.tar"
  mv "$directory/base-new.tar" "$directory/base.tar"
fi

image() { # NAME PROGRAM ENTRYPOINT-SCRIPT TAG
  local container
  container=$(buildah "${store[@]}" from scratch)
  buildah "${store[@]}" add --quiet "$container" "$directory/base.tar" / >/dev/null
  buildah "${store[@]}" copy --quiet --chmod 755 "$container" "$2" "/usr/local/bin/$1" >/dev/null
  printf '%s\n' "$3" >"$directory/entrypoint"
  buildah "${store[@]}" copy --quiet --chmod 755 "$container" "$directory/entrypoint" /entrypoint >/dev/null
  buildah "${store[@]}" config --env PATH=/usr/local/bin:/usr/bin:/bin --entrypoint '["/entrypoint"]' "$container"
  rm -f "$directory/$1.tar"
  buildah "${store[@]}" commit --quiet --rm --format docker "$container" "docker-archive:$directory/$1.tar:$4" >/dev/null
}

# A first argument that is a flag means Envoy, as in envoyproxy/envoy.
image envoy "$envoy" '#!/bin/sh
[ "${1#-}" = "$1" ] || set -- envoy "$@"
exec "$@"' docker.io/envoyproxy/envoy:v1.40.0
image prometheus "$prometheus" '#!/bin/sh
exec prometheus "$@"' docker.io/prom/prometheus:v3.5.0
