#!/bin/sh
# Builds the example components in Rust: build.sh [DIR [NAME...]]. They go into DIR (default target/examples): hello-v1.wasm …
# hello-v4.wasm, cart.wasm, gather.wasm, grpc.wasm, and hello-bare.wasm, hello-still.wasm and hello-spin.wasm for measurements. NAME is one of them
# without .wasm (default: all).
# The target is wasm32-unknown-unknown, whose standard library needs nothing from its host, so the component imports
# only what it uses. If rustup's target is not installed, Debian's rustc builds the standard library from source
# (packages rustc-web and rust-web-src).
set -eu
here=$(cd "$(dirname "$0")" && pwd)
out=${1:-$here/../target/examples}
[ $# -eq 0 ] || shift
names=${*:-hello-v1 hello-v2 hello-v3 hello-v4 hello-bare hello-still hello-spin cart gather grpc}
mkdir -p "$out"
out=$(cd "$out" && pwd)
export CARGO_TARGET_DIR="${SELVAGE_GUEST_TARGET:-$out/build}"
target=wasm32-unknown-unknown

# the linker that writes components comes with rustup's toolchain
tools=$(rustc --print sysroot)/lib/rustlib/$(rustc -vV | sed -n 's/^host: //p')/bin
export CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER="$tools/wasm-component-ld" PATH="$tools:$tools/gcc-ld:$PATH"
unset RUSTFLAGS CARGO_ENCODED_RUSTFLAGS

if rustup target list --installed 2>/dev/null | grep -qx "$target"; then
  set --
else
  # check the files that are used below: other packages of Debian have an older compiler without this source
  usable() {
    [ -f /usr/lib/rustlib/src/rust/library/std/Cargo.toml ] &&
      /usr/bin/rustc --edition 2024 --print cfg >/dev/null 2>&1
  }
  if ! usable; then
    [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null || {
      echo "examples: neither rustup's target $target nor Debian's rustc-web and rust-web-src are here" >&2
      exit 1
    }
    echo "examples: installing Debian's rustc-web and rust-web-src"
    apt-get -o DPkg::Lock::Timeout=300 update -qq
    DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=300 install -y -qq --no-install-recommends rustc-web rust-web-src >/dev/null
    usable || {
      echo "examples: Debian's rustc-web and rust-web-src are installed, but /usr/bin/rustc cannot build edition 2024 from" \
        "/usr/lib/rustlib/src/rust/library" >&2
      exit 1
    }
  fi
  # compiler and source must have the same version: Debian's, not rustup's
  unset RUSTUP_TOOLCHAIN
  export RUSTC=/usr/bin/rustc RUSTC_BOOTSTRAP=1
  set -- -Zbuild-std=std,panic_abort
fi

# the first build compiles the standard library: show its progress
quiet=
[ ! -d "$CARGO_TARGET_DIR/$target" ] || quiet=--quiet
for name in $names; do
  crate=${name%%-*} version=${name#"${name%%-*}"}
  (cd "$here/$crate" && cargo build $quiet --locked --release --target "$target" ${version:+--features "${version#-}"} "$@")
  cp "$CARGO_TARGET_DIR/$target/release/$crate.wasm" "$out/$name.wasm"
done
