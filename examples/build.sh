#!/bin/sh
# Builds the example components into DIR (default target/examples): hello-v1.wasm … hello-v4.wasm.
# With rustup's wasm32-wasip2 target that is used; else Debian's rustc with the standard library's
# source (packages rustc-web, rust-web-src), which needs no download beside the registries.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
out=${1:-$here/../target/examples}
mkdir -p "$out"
out=$(cd "$out" && pwd)
export CARGO_TARGET_DIR="${SELVAGE_GUEST_TARGET:-$out/build}"

if rustup target list --installed 2>/dev/null | grep -qx wasm32-wasip2; then
  target=wasm32-wasip2
  set --
else
  if ! { [ -x /usr/bin/rustc ] && [ -d /usr/lib/rustlib/src ]; }; then
    [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null || {
      echo "examples: neither rustup's target wasm32-wasip2 nor Debian's rustc-web and rust-web-src are here" >&2
      exit 1
    }
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends rustc-web rust-web-src >/dev/null
  fi
  # the linker that writes components comes with rustup's toolchain, compiler and source with Debian's
  tools=$(rustc --print sysroot)/lib/rustlib/$(rustc -vV | sed -n 's/^host: //p')/bin
  export CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER="$tools/wasm-component-ld"
  export RUSTC=/usr/bin/rustc RUSTC_BOOTSTRAP=1 PATH="$tools:$tools/gcc-ld:$PATH"
  unset RUSTFLAGS CARGO_ENCODED_RUSTFLAGS RUSTUP_TOOLCHAIN
  target=wasm32-unknown-unknown
  set -- -Zbuild-std=std,panic_abort
fi

for version in v1 v2 v3 v4; do
  (cd "$here/hello" && cargo build --quiet --locked --release --target "$target" --features "$version" "$@")
  cp "$CARGO_TARGET_DIR/$target/release/hello.wasm" "$out/hello-$version.wasm"
done
