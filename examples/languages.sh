#!/bin/sh
# Builds the examples in other languages than Rust into DIR: languages.sh DIR [LANGUAGE...]
# (javascript, hono, python, c, go; default: all). Each README shows the commands that a user runs.
#
# A component is kept in the cache (SELVAGE_CACHE, otherwise ~/.cache/selvage) under a name that follows from the
# files it is made of, so that an unchanged example is built once on a machine. The toolchains come from the npm
# registry and PyPI in the versions that the examples name; Go and Rust are those of this machine.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
cache=${SELVAGE_CACHE:-${HOME:-/root}/.cache/selvage}
mkdir -p "$1" "$cache/examples"
out=$(cd "$1" && pwd)
shift
[ $# -gt 0 ] || set -- javascript hono python c go

key() { # key LANGUAGE: what the component is made of
  (cd "$here" && find "$1" wit component.sh languages.sh -name node_modules -prune -o -name __pycache__ -prune -o \
    -name '*.wasm' -prune -o -type f -print |
    LC_ALL=C sort | xargs sha256sum | sha256sum | cut -c 1-16)
}

debian() { # debian LANGUAGE PACKAGE...: installs packages
  language=$1
  shift
  [ "$(id -u)" = 0 ] && command -v apt-get > /dev/null || {
    echo "examples: $language needs the Debian packages $*; install them, or run this as root" >&2
    exit 1
  }
  echo "examples: installing the Debian packages $*"
  apt-get -o DPkg::Lock::Timeout=300 update -qq
  DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=300 install -y -qq --no-install-recommends "$@" > /dev/null
}

# JavaScript: the engine and all packages in the versions of package-lock.json
build_javascript() {
  npm ci --ignore-scripts --no-audit --no-fund --loglevel error
  node build.js "$1"
}

build_hono() {
  build_javascript "$1"
}

requirements() { # requirements LANGUAGE: installs the packages of requirements.txt in the folder tools
  python3 -m pip --version > /dev/null 2>&1 || debian "$1" python3 python3-pip
  python3 -m pip install --quiet --disable-pip-version-check --root-user-action ignore \
    --target tools --require-hashes --no-deps --only-binary :all: -r requirements.txt
}

build_python() {
  requirements Python
  PYTHONPATH=tools tools/bin/componentize-py --quiet --wit-path ../wit --world function \
    componentize --python-path . app --output "$1"
}

build_c() {
  requirements C
  PYTHONPATH=$PWD/tools ZIG_GLOBAL_CACHE_DIR=$PWD/cache ./build.sh "$1"
}

build_go() {
  ./build.sh "$1"
}

# a copy of the examples is not in the repository, which selects the version of Rust: look for its tools here
PATH=$PATH:$(cd "$here" && rustc --print sysroot)/lib/rustlib/$(cd "$here" && rustc -vV | sed -n 's/^host: //p')/bin

work=
trap 'rm -rf "$work"' EXIT
for language; do
  kept=$cache/examples/$language-$(key "$language").wasm
  if [ ! -f "$kept" ]; then
    echo "examples: building $language"
    work=$(mktemp -d)
    cp -r "$here/$language" "$here/wit" "$here/component.sh" "$work"
    (
      cd "$work/$language"
      rm -rf node_modules
      "build_$language" "$work/component.wasm"
    )
    mv "$work/component.wasm" "$kept.$$"
    mv "$kept.$$" "$kept"
    rm -rf "$work"
  fi
  cp "$kept" "$out/$language.wasm"
done
