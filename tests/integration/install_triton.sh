#!/usr/bin/env bash
# Puts a real Triton server, for the CPU, into a folder of the checkout: install_triton.sh .triton
#
# The package nvidia-pytriton carries the server, its Python backend and that backend's stub for each Python version.
# The stub embeds the distribution's own Python; with another build of the same version it fails.
set -euo pipefail
cd "$(dirname "$0")/../.."
folder=$(mkdir -p "$1" && cd "$1" && pwd)
python=/usr/bin/python3

.ci/debian python3 python3-venv
version=$($python -c 'import sys; print("%d.%d" % sys.version_info[:2])')
.ci/debian "libpython$version"

rm -rf "${folder:?}"/{venv,backends,bin,lib}
$python -m venv "$folder/venv"
pip=("$folder/venv/bin/pip" install --quiet --disable-pip-version-check --constraint constraints.txt)
"${pip[@]}" numpy safetensors torch    # what a teacher's model.py needs
"${pip[@]}" --no-deps nvidia-pytriton  # what it depends on is for its own Python interface

site=$("$folder/venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
mkdir "$folder/backends" "$folder/bin"
cp -r "$site/pytriton/tritonserver/backends/python" "$folder/backends/"
cp "$site/pytriton/tritonserver/python_backend_stubs/$version/triton_python_backend_stub" "$folder/backends/python/"
ln -s "$site/pytriton/tritonserver/bin/tritonserver" "$folder/bin/"
ln -s "$site/nvidia_pytriton.libs" "$folder/lib"
touch "$folder/.installed"
