#!/bin/sh
# Builds the component: build.sh [FILE] (default c.wasm). Needs the Python package ziglang, which has clang and a C library
# for WASI, and Rust, which has the tool for components.
set -eu
cd "$(dirname "$0")"
module=$(mktemp)
trap 'rm -f "$module"' EXIT
# a reactor has no main: its exports are called. The stack of 16 MiB that zig gives to programs is too much for each request.
python3 -m ziglang cc -target wasm32-wasi -mexec-model=reactor -Wl,-z,stack-size=65536 -Os -Wall -Wextra -o "$module" function.c
../component.sh "$module" "${1:-c.wasm}"
