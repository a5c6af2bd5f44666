#!/usr/bin/env bash
# Build the image without a daemon and without a registry. Needs root, buildah and mmdebstrap (both Debian packages).
# usage: build.sh DIRECTORY [TAG]: the image store, the base and an archive for `docker load` go into DIRECTORY.
# PIP_CERT (a CA bundle) and PIP_INDEX_URL are passed on to the build, if set.
set -euo pipefail
directory=$(realpath -m "$1")
tag=${2:-countersign:local}
cd "$(dirname "$0")/../.."
for tool in buildah mmdebstrap; do
  command -v "$tool" >/dev/null || { echo "make image: no $tool: apt-get install buildah mmdebstrap" >&2; exit 3; }
done
[ "$(id -u)" = 0 ] || { echo "make image: must be root, as mmdebstrap and buildah --isolation chroot are" >&2; exit 3; }

SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct)}
export SOURCE_DATE_EPOCH
base=localhost/countersign-base:bookworm
store=(--storage-driver vfs --root "$directory/storage" --runroot "$directory/run")
mkdir -p "$directory"

if ! buildah "${store[@]}" inspect --type image "$base" >/dev/null 2>&1; then
  # Debian's own Python 3.11; `extract` leaves apt, dpkg's scripts and everything else out.
  mmdebstrap --quiet --variant=extract --include=dash,coreutils,findutils,python3,python3-venv,libstdc++6 bookworm "$directory/base.tar"
  container=$(buildah "${store[@]}" from scratch)
  buildah "${store[@]}" add --quiet "$container" "$directory/base.tar" / >/dev/null
  buildah "${store[@]}" commit --quiet --rm --timestamp "$SOURCE_DATE_EPOCH" "$container" "$base" >/dev/null
  rm "$directory/base.tar"
fi

options=(--build-arg "PYTHON_IMAGE=$base" --build-arg "SOURCE_DATE_EPOCH=$SOURCE_DATE_EPOCH"
  --build-arg "REVISION=$(git rev-parse HEAD)")
[ -z "${PIP_INDEX_URL:-}" ] || options+=(--build-arg "PIP_INDEX_URL=$PIP_INDEX_URL")
# Only the build stage has steps that run, so the mount leaves nothing in the image.
[ -z "${PIP_CERT:-}" ] || options+=(--build-arg PIP_CERT=/tmp/ca.crt --volume "$(realpath "$PIP_CERT"):/tmp/ca.crt:ro")
# The docker format, because OCI's has no health check; chroot, because containers in containers are rarely allowed.
buildah "${store[@]}" bud --quiet --isolation chroot --format docker --pull-never --no-cache --layers=false \
  --timestamp "$SOURCE_DATE_EPOCH" "${options[@]}" --tag "$tag" . >/dev/null
buildah "${store[@]}" inspect --type image --format '{{range .OCIv1.RootFS.DiffIDs}}{{println .}}{{end}}' "$tag" |
  sed '/^$/d'
