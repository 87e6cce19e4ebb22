#!/bin/sh
# Checks the prerequisites of a build, and names everything that is missing in one sentence. It runs before cargo, so
# that it also works where Rust is missing.
#   prerequisites.sh programs    Rust and a C compiler
#   prerequisites.sh cluster     what a local cluster needs as well: Go, Node.js, root, memory and disk space
#   prerequisites.sh languages   what the examples in other languages need as well: Go, a newer Node.js, pip
#   prerequisites.sh projects    what a new project in Rust needs as well: rustup
#   prerequisites.sh release     what `make release` needs as well for each of $ARCHS: a C compiler, Rust's library
#   prerequisites.sh docs        only what the site of the documentation needs: Python with venv
set -u
here=$(cd "$(dirname "$0")/.." && pwd)

# Go's caches and the programs of the cluster; all builds of Rust below the target folder
CACHE_GIB=8
TARGET_GIB=8
MEMORY_GIB=6

missing=
lacks() { # lacks TEXT: adds a missing item to the sentence
  missing=${missing:+$missing; }$1
}

at_least() { # at_least FOUND WANTED: compares versions such as 1.26.8 and 1.26
  [ "$(printf '%s\n%s\n' "$2" "$1" | sort -V | head -n 1)" = "$2" ]
}

tool() { # tool PROGRAM WANTED NAME HELP FOLDER ARGUMENT: PROGRAM, run in FOLDER, has at least this version
  if ! command -v "$1" > /dev/null 2>&1; then
    lacks "$3 $2 or newer ($4)"
    return
  fi
  # standard error stays visible, because rustup and go may download the right version first
  found=$(cd "$5" && "$1" "$6" | sed -n 's/^[^0-9]*\([0-9][0-9]*\(\.[0-9][0-9]*\)*\).*/\1/p' | head -n 1)
  if [ -z "$found" ]; then
    lacks "$3 $2 or newer (\`$1 $6\` prints no version)"
  elif ! at_least "$found" "$2"; then
    lacks "$3 $2 or newer (found $found; $4)"
  fi
}

docs() {
  tool python3 3.10 Python "Debian package python3" "$here" --version
  python3 -c 'import ensurepip, venv' > /dev/null 2>&1 || lacks "the module venv of Python (Debian package python3-venv)"
}

programs() {
  rust=$(sed -n 's/^channel = "\([0-9]*\.[0-9]*\).*/\1/p' "$here/rust-toolchain.toml")
  tool cargo "$rust" Rust "https://rustup.rs" "$here" --version
  command -v cc > /dev/null 2>&1 || lacks "a C compiler (Debian packages gcc and libc6-dev)"
}

# free FOLDER: mount point and free GiB of the file system where FOLDER is or will be
free() {
  folder=$1
  while [ ! -d "$folder" ]; do folder=$(dirname "$folder"); done
  df -Pk "$folder" | awk 'NR == 2 { print $6, int($4 / 1048576) }'
}

space() { # space GIB FREE FOLDERS: FREE is what `free` printed
  [ "${2##* }" -ge "$1" ] || lacks "$1 GiB of free disk for $3 (found ${2##* } GiB)"
}

golang() {
  go=$(sed -n 's/^go \([0-9]*\.[0-9]*\).*/\1/p' "$here"/e2e/*/go.mod "$here"/examples/*/go.mod | sort -V | tail -n 1)
  tool go "$go" Go "https://go.dev/dl" "$here/e2e/cluster" version
}

cluster() {
  if [ -z "${KUBECONFIG:-}" ]; then
    [ "$(id -u)" = 0 ] || lacks "root (Debian packages are installed, and nodes have mounts and networks of their own)"
    command -v apt-get > /dev/null 2>&1 || lacks "apt-get (the cluster runs programs of Debian packages)"
  fi
  memory=$(awk '/^MemTotal:/ { print int($2 / 1048576 + 0.5) }' /proc/meminfo)
  [ "$memory" -ge "$MEMORY_GIB" ] || lacks "$MEMORY_GIB GiB of memory (found $memory GiB)"
  # a machine that has built everything once needs no additional space
  cache=${SELVAGE_CACHE:-${HOME:-/root}/.cache/selvage}
  target=${CARGO_TARGET_DIR:-$here/target}
  if [ -d "$cache" ] && [ -d "$target/dist" ]; then
    return
  fi
  in_cache=$(free "$cache") in_target=$(free "$target")
  if [ "${in_cache% *}" = "${in_target% *}" ]; then
    space $((CACHE_GIB + TARGET_GIB)) "$in_cache" "$cache and $target"
  else
    space "$CACHE_GIB" "$in_cache" "$cache"
    space "$TARGET_GIB" "$in_target" "$target"
  fi
}

nodejs() { # nodejs WANTED
  tool node "$1" Node.js "https://nodejs.org, or the Debian package nodejs" "$here" --version
  command -v npm > /dev/null 2>&1 || lacks "npm (comes with Node.js; Debian package npm)"
}

languages() {
  # root gets the Debian package when it is missing
  [ "$(id -u)" = 0 ] || python3 -m pip --version > /dev/null 2>&1 || lacks "Python with pip (Debian package python3-pip)"
}

projects() {
  command -v rustup > /dev/null 2>&1 || lacks "rustup, which installs Rust's library for WASI (https://rustup.rs)"
}

release() {
  command -v git > /dev/null 2>&1 || lacks "git"
  for arch in $ARCHS; do
    case $arch in
      amd64) machine=x86_64 package=gcc-x86-64-linux-gnu ;;
      arm64) machine=aarch64 package=gcc-aarch64-linux-gnu ;;
      *)
        lacks "an architecture of amd64 and arm64 instead of $arch in ARCHS"
        continue
        ;;
    esac
    if [ "$machine" = "$(uname -m)" ]; then
      package=gcc
    else
      library=$(cd "$here" && rustc --print target-libdir --target "$machine-unknown-linux-gnu" 2> /dev/null)
      [ -d "$library" ] || lacks "Rust's library for $arch (\`rustup target add $machine-unknown-linux-gnu\`)"
      package="$package and libc6-dev-$arch-cross"
    fi
    command -v "$machine-linux-gnu-gcc" > /dev/null 2>&1 || lacks "a C compiler for $arch (Debian packages $package)"
  done
}

case "$*" in
  docs) docs ;;
  *) programs ;;
esac
case "$*" in
  *languages*) nodejs 20 ;;
  *cluster* | *release*) nodejs 18 ;;
esac
case "$*" in
  *cluster* | *languages*) golang ;;
esac
for part; do
  case $part in
    cluster) cluster ;;
    languages) languages ;;
    projects) projects ;;
    release) release ;;
  esac
done
if [ -n "$missing" ]; then
  echo "This machine lacks: $missing." >&2
  exit 1
fi
