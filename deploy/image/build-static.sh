#!/bin/sh
# Builds the static binary of the image and prints its path. PROFILE is a cargo profile, by default `release`.
# The binary contains no paths of this machine, so that the same sources and toolchain give the same bytes
# anywhere.
set -eu
cd "$(dirname "$0")/../.."
profile=${PROFILE:-release}
target=x86_64-unknown-linux-gnu
cargo_home=${CARGO_HOME:-$HOME/.cargo}
# Shares the target folder with other builds, so that macros and build scripts are not built again.
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-target}"
export RUSTFLAGS="-C target-feature=+crt-static -C strip=symbols --remap-path-prefix=$PWD=/source --remap-path-prefix=$cargo_home=/cargo"
cargo build --locked --profile "$profile" --target "$target" -p corecached --bin corecached >&2
folder=$profile
[ "$profile" != dev ] || folder=debug
echo "$CARGO_TARGET_DIR/$target/$folder/corecached"
