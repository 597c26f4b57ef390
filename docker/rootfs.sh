#!/bin/sh
# rootfs.sh DESTINATION PACKAGE|LIBRARY...: copies the files of installed Debian packages,
# without documentation, and the shared libraries that their programs need. Libraries that
# other programs need can be given by name (librt.so.1).
set -eu

destination=$1
shift
mkdir -p "$destination"

# Create the links of merged /usr first, because all paths below depend on them.
for link in bin sbin lib lib64; do
  [ ! -L "/$link" ] || cp -a "/$link" "$destination/"
done

unwanted='^/usr/(share/(doc|man|info|locale|lintian|bug|menu|bash-completion|zsh|fish|gitweb|pixmaps|applications|systemd|debianutils)|lib/systemd)(/|$)'

packages=
libraries=
for wanted in "$@"; do
  case $wanted in
    *.so.*) libraries="$libraries $wanted" ;;
    *) packages="$packages $wanted" ;;
  esac
done

# shellcheck disable=SC2086  # lists of names
dpkg -L $packages | sort -u | grep -vE "$unwanted" | while read -r file; do
  # A directory is created with the first file in it.
  if [ -L "$file" ] || [ ! -d "$file" ]; then echo "${file#/}"; fi
done | tar -cf - -C / --no-recursion -T - | tar -xf - -C "$destination"

# Shared libraries, with the names under which programs load them. `ldd` fails on files
# that are not dynamic programs.
{
  find "$destination" -type f \( -perm -u+x -o -name '*.node' -o -name '*.so*' \) \
    -exec ldd {} + 2>/dev/null | grep -o '/[^ ]*\.so[^ ]*' || true
  for library in $libraries; do
    ldconfig -p | grep -m 1 -o "/.*/$library\$"
  done
} | sort -u | while read -r library; do
  case $library in "$destination"*) continue ;; esac
  name=$(readlink -f "$(dirname "$library")")/$(basename "$library")
  for file in "$name" "$(readlink -f "$name")"; do
    mkdir -p "$destination$(dirname "$file")"
    cp -a --remove-destination "$file" "$destination$file"
  done
done

mkdir -p "$destination/etc/ssl/certs" "$destination/usr/lib/locale" \
  "$destination/root" "$destination/proc" "$destination/sys" "$destination/dev" \
  "$destination/run" "$destination/var" "$destination/home"
cp /etc/ssl/certs/ca-certificates.crt "$destination/etc/ssl/certs/"
cp -a /usr/lib/locale/C.utf8 "$destination/usr/lib/locale/"
cp /etc/nsswitch.conf /etc/debian_version "$destination/etc/"
cp /usr/lib/os-release "$destination/usr/lib/"
cp -a /etc/os-release "$destination/etc/"
install -d -m 1777 "$destination/tmp" "$destination/var/tmp"
ln -sfn /run "$destination/var/run"
printf 'root:x:0:0:root:/root:/bin/bash\nnobody:x:65534:65534:nobody:/:/bin/false\n' \
  >"$destination/etc/passwd"
printf 'root:x:0:\nnogroup:x:65534:\n' >"$destination/etc/group"
[ ! -e "$destination/usr/bin/mawk" ] || ln -sf mawk "$destination/usr/bin/awk"
