# Debian from the archive that this machine uses.

# Makes a root file system, in a directory or a tarball, with mmdebstrap.
make_debian() { # make_debian CODENAME TARGET OPTION...
  local mirror conf status=0
  mirror=$(cat /etc/apt/sources.list /etc/apt/sources.list.d/*.list /etc/apt/sources.list.d/*.sources 2>/dev/null |
    sed -nE 's/^(URIs:|deb( \[.*\])?) *([^ ]+).*/\3/p' | head -n 1 || true)
  # What this machine needs to reach its archive.
  conf=$(mktemp)
  {
    echo 'Acquire::Retries "3";' # the archive may fail for a moment
    apt-config dump | grep -E '^Acquire::(Check|(http|https|ftp)::)' || true
  } >"$conf"
  mmdebstrap --quiet --variant=apt --dpkgopt=force-unsafe-io --aptopt="$conf" \
    --keyring=/usr/share/keyrings/debian-archive-keyring.gpg "${@:3}" \
    "$1" "$2" "${mirror:-http://deb.debian.org/debian}" || status=$?
  rm -f "$conf"
  return "$status"
}
