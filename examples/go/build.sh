#!/bin/sh
# Builds the component: build.sh [FILE] (default go.wasm). Needs Go, and Rust, which has the tool for components.
set -eu
cd "$(dirname "$0")"
module=$(mktemp)
trap 'rm -f "$module"' EXIT
# c-shared is a module without a main that runs: its exports are called
GOOS=wasip1 GOARCH=wasm go build -buildmode=c-shared -trimpath -o "$module" .
../component.sh "$module" "${1:-go.wasm}"
