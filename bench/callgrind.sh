#!/bin/sh
# Counts the instructions of an operation in each case of benches/cases with valgrind. Other load on the
# machine does not affect the result. Each case runs n and 2n times; the difference excludes its preparation.
# An argument selects cases by substring.
set -eu
cd "$(dirname "$0")"
times=2000
binary=$(cargo bench -q -p corecached-bench --bench instructions --no-run --message-format=json |
    sed -n 's/.*"name":"instructions".*"executable":"\([^"]*\)".*/\1/p' | tail -n 1)
scratch=$(mktemp -d)
trap 'rm -r "$scratch"' EXIT

count() { # case, times
    valgrind --tool=callgrind --callgrind-out-file="$scratch/out" "$binary" "$1" "$2" 2>&1 |
        sed -n 's/.*Collected : \([0-9]*\).*/\1/p'
}

"$binary" | grep -F -- "${1:-}" | while IFS="$(printf '\t')" read -r operations name; do
    once=$(count "$name" "$times")
    twice=$(count "$name" $((2 * times)))
    awk -v a="$once" -v b="$twice" -v n=$((times * operations)) -v name="$name" \
        'BEGIN { printf "%8.1f instructions  %s\n", (b - a) / n, name }'
done
