#!/bin/sh
# Builds the examples in other languages than Rust into DIR: languages.sh DIR [LANGUAGE...]
# (javascript, hono, python; default: all). Each README shows the commands that a user runs.
#
# A component is kept in the cache (SELVAGE_CACHE, otherwise ~/.cache/selvage) under a name that follows from the
# files it is made of, so that an unchanged example is built once on a machine. The toolchains come from the npm
# registry and PyPI in the versions that the examples name.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
cache=${SELVAGE_CACHE:-${HOME:-/root}/.cache/selvage}
mkdir -p "$1" "$cache/examples"
out=$(cd "$1" && pwd)
shift
[ $# -gt 0 ] || set -- javascript hono python

key() { # key LANGUAGE: what the component is made of
  (cd "$here" && find "$1" wit languages.sh -name node_modules -prune -o -name __pycache__ -prune -o -type f -print |
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
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" > /dev/null
}

# JavaScript: the engine and all packages in the versions of package-lock.json
build_javascript() {
  npm ci --ignore-scripts --no-audit --no-fund --loglevel error
  node build.js "$1"
}

build_hono() {
  build_javascript "$1"
}

build_python() {
  python3 -m pip --version > /dev/null 2>&1 || debian Python python3 python3-pip
  python3 -m pip install --quiet --disable-pip-version-check --root-user-action ignore \
    --target tools --require-hashes --no-deps --only-binary :all: -r requirements.txt
  PYTHONPATH=tools tools/bin/componentize-py --quiet --wit-path ../wit --world function \
    componentize --python-path . app --output "$1"
}

work=
trap 'rm -rf "$work"' EXIT
for language; do
  kept=$cache/examples/$language-$(key "$language").wasm
  if [ ! -f "$kept" ]; then
    echo "examples: building $language"
    work=$(mktemp -d)
    cp -r "$here/$language" "$here/wit" "$work"
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
