#!/usr/bin/env bash
# Installs the Debian packages that a group needs and this machine lacks.
#
#   tools/install_debian.sh build    compile, test and bench
#   tools/install_debian.sh lint     clang: formatting, clang-tidy, fuzzers
#   tools/install_debian.sh python   headers that the Python module is built with
#
# Touches apt only for what is missing, so that a prepared machine needs neither root nor network.
set -euo pipefail

build=(g++ cmake ninja-build pkg-config git ccache python3 python3-venv
  libfmt-dev libspdlog-dev nlohmann-json3-dev libcli11-dev libutf8proc-dev libxxhash-dev
  libgtest-dev libbenchmark-dev)
lint=(clang-14 clang-format-14 clang-tidy-14 libclang-rt-14-dev)

python=(python3-dev)

case "${1:-build}" in
  build) wanted=("${build[@]}") ;;
  lint) wanted=("${lint[@]}") ;;
  python) wanted=("${python[@]}") ;;
  *) echo "usage: tools/install_debian.sh [build|lint|python]" >&2; exit 2 ;;
esac

if ! command -v dpkg-query >/dev/null; then
  echo "note: no dpkg here; on Debian 12 the packages are: ${wanted[*]}" >&2
  exit 0
fi

# One query for all: a package counts when it is installed, whatever its version.
installed=$(dpkg-query -W -f='${binary:Package} ${Status}\n' "${wanted[@]}" 2>/dev/null |
  awk '$NF == "installed" {sub(/:.*/, "", $1); print $1}' || true)
missing=()
for package in "${wanted[@]}"; do
  grep -qxF -- "$package" <<<"$installed" || missing+=("$package")
done
[ ${#missing[@]} -gt 0 ] || exit 0

if [ -n "${SLUICE_NO_INSTALL:-}" ]; then
  echo "missing Debian packages: ${missing[*]}" >&2
  exit 1
fi
as_root=()
if [ "$(id -u)" -ne 0 ]; then
  if ! command -v sudo >/dev/null; then
    echo "missing Debian packages, and neither root nor sudo to install them: ${missing[*]}" >&2
    exit 1
  fi
  as_root=(sudo)
fi
echo "installing: ${missing[*]}"
"${as_root[@]}" apt-get update -q
"${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
  apt-get install -q -y --no-install-recommends "${missing[@]}"
