#!/bin/sh
# Creates the root folder of the image: rootfs.sh BINARY FOLDER. It has only the static binary, links with its
# other names, and a user. The Dockerfile and build.py both use this script.
set -eu
binary=$1
root=$2
mkdir -p "$root/usr/local/bin" "$root/etc"
cp "$binary" "$root/usr/local/bin/corecached"
chmod 755 "$root/usr/local/bin/corecached"
# Existing manifests use these names; the binary takes its role from the name.
ln -sf corecached "$root/usr/local/bin/memcached"
ln -sf corecached "$root/usr/local/bin/mcrouter"
echo 'corecached:x:65532:65532:corecached:/:/sbin/nologin' >"$root/etc/passwd"
echo 'corecached:x:65532:' >"$root/etc/group"
# Only the sources that are built into static glibc: for any other it would load a plug-in and crash.
printf 'passwd: files\ngroup: files\nhosts: files dns\n' >"$root/etc/nsswitch.conf"
