#!/usr/bin/env bash
# Docker Compose from its source, by Go's module proxy: `go install` refuses it, for its go.mod excludes a module.
# usage: plugin.sh PROGRAM
set -euo pipefail
version=v2.40.3 # the last of Compose 2; it speaks every engine's API since 1.24
program=$(realpath -m "$1")
source=$(mktemp -d)
trap 'chmod -R u+w "$source"; rm -rf "$source"' EXIT
cd "$source"
go mod download -json "github.com/docker/compose/v2@$version" >module.json
cp -r "$(sed -n 's/.*"Dir": "\(.*\)".*/\1/p' module.json)" compose
chmod -R u+w compose
cd compose
mkdir -p "$(dirname "$program")"
go build -trimpath -ldflags "-s -w -X github.com/docker/compose/v2/internal.Version=$version" -o "$program" ./cmd
