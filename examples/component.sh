#!/bin/sh
# Makes a component of a linked module for WASI preview 1: component.sh MODULE COMPONENT. It exports the handler of the world in `wit`.
#
# The tool is wasm-component-ld, which comes with Rust; it contains the adapter that implements preview 1 with the interfaces of
# WASI 0.2. `wasm-tools component embed` and `wasm-tools component new --adapt` do the same.
set -eu

# wasm-component-ld runs a linker first, as `LINKER MODULE -o FILE`. The module is linked already: this script is the linker, and copies it.
if [ "${2:-}" = -o ]; then
  exec cp "$1" "$3"
fi

here=$(cd "$(dirname "$0")" && pwd)
tool=$(command -v wasm-component-ld) ||
  tool=$(rustc --print sysroot)/lib/rustlib/$(rustc -vV | sed -n 's/^host: //p')/bin/wasm-component-ld
"$tool" --wasm-ld-path "$here/component.sh" --component-type "$here/wit" --wasi-adapter reactor "$1" -o "$2"
