#!/bin/sh
# Lays out the root folder of the image: rootfs.sh BINARY FOLDER. Nothing but the static binary, the names it is called
# by, and a user. The Dockerfile and build.py both pack what this makes.
set -eu
binary=$1
root=$2
mkdir -p "$root/usr/local/bin" "$root/etc"
cp "$binary" "$root/usr/local/bin/corecached"
chmod 755 "$root/usr/local/bin/corecached"
# Existing manifests call it by these names; it takes the role of the name.
ln -sf corecached "$root/usr/local/bin/memcached"
ln -sf corecached "$root/usr/local/bin/mcrouter"
echo 'corecached:x:65532:65532:corecached:/:/sbin/nologin' >"$root/etc/passwd"
echo 'corecached:x:65532:' >"$root/etc/group"
# Only what is built into a static glibc: anything else it would look for a plug-in, and crash.
printf 'passwd: files\ngroup: files\nhosts: files dns\n' >"$root/etc/nsswitch.conf"
