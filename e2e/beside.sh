#!/usr/bin/env bash
# Runs the tests on clusters, which mostly wait, and compiles everything else beside them:
#   e2e/beside.sh COMMAND... -- CARGO-TEST...
# COMMAND gets only the processor time that nothing else wants. Fails if one of the two fails.
set -euo pipefail

beside=()
while [ "$1" != -- ]; do
  beside+=("$1")
  shift
done
shift

log=$(mktemp)
trap 'rm -f "$log"' EXIT

"$@" &
tests=$!
# cargo locks the build directory until everything is built; its first child is then the first test
while kill -0 "$tests" 2>/dev/null && ! pgrep -P "$tests" >/dev/null; do
  sleep 0.2
done

# Linux divides the processors between sessions first, and `nice` acts within one: the session needs a low priority too
setsid -w bash -c 'echo 19 >/proc/self/autogroup 2>/dev/null || true; exec nice -n 19 "$@"' beside "${beside[@]}" >"$log" 2>&1 &
other=$!

failed=0
wait "$tests" || failed=$?
if wait "$other"; then
  tail -n 1 "$log"
else
  failed=$?
  cat "$log"
fi
exit "$failed"
