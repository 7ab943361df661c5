#!/bin/sh
# Creates the file system of an image: programs, their libraries, and the files for name resolution and TLS.
# No shell, no package manager, only one user. The result is reproducible bit for bit.
#
#   root.sh FOLDER PROGRAM...

set -eu

if [ $# -lt 2 ]; then
  echo "usage: root.sh FOLDER PROGRAM..." >&2
  exit 2
fi
root=$1
shift

USER_ID=65532
CERTIFICATES=/etc/ssl/certs/ca-certificates.crt

mkdir -p "$root/usr/bin" "$root/etc/ssl/certs" "$root/tmp" "$root/var/lib/trunkline"

for program; do
  install -m 755 "$program" "$root/usr/bin/$(basename "$program")"
  # The libraries, and the loader, at the paths where the program looks for them.
  ldd "$program" | awk '$2 == "=>" && $3 ~ /^\// { print $3 } $1 ~ /^\// { print $1 }' | while read -r library; do
    mkdir -p "$root$(dirname "$library")"
    install -m 755 "$library" "$root$library"
  done
done

install -m 644 "$CERTIFICATES" "$root$CERTIFICATES"
echo "trunkline:x:$USER_ID:$USER_ID:Trunkline:/var/lib/trunkline:/nonexistent" >"$root/etc/passwd"
echo "trunkline:x:$USER_ID:" >"$root/etc/group"
echo "hosts: files dns" >"$root/etc/nsswitch.conf"
chmod 644 "$root/etc/passwd" "$root/etc/group" "$root/etc/nsswitch.conf"
chmod 1777 "$root/tmp"
# A volume mounted here belongs to the image's user: it may contain the key of a fleet on one machine.
chmod 700 "$root/var/lib/trunkline"
chown "$USER_ID:$USER_ID" "$root/var/lib/trunkline"

find "$root" -exec touch -h -d "@${SOURCE_DATE_EPOCH:-0}" {} +
