#!/usr/bin/env bash
# Installs the Debian packages that the examples need, and those named, if any is missing: setup.sh [PACKAGE...]
set -euo pipefail
packages=(g++ cmake ninja-build pkg-config libeigen3-dev libthrust-dev libcub-dev nlohmann-json3-dev libcli11-dev libcairo2-dev libpng-dev zlib1g-dev libjpeg-dev libwebp-dev liblcms2-dev libarchive-dev fonts-dejavu-core "$@")
missing=()
for p in "${packages[@]}"; do
  dpkg-query -W -f='${Status}' "$p" 2>/dev/null | grep -q 'install ok installed' || missing+=("$p")
done
if [ "${#missing[@]}" -gt 0 ]; then
  echo "installing ${missing[*]}" >&2
  run() { if [ "$(id -u)" -eq 0 ]; then "$@"; else sudo "$@"; fi; }
  run apt-get update -qq
  DEBIAN_FRONTEND=noninteractive run apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
fi
