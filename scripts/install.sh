#!/bin/sh
# Makes .venv what uv.lock says. Needs a Python 3.11 or newer and the package index, nothing else; `make install` calls it.
#
# A uv on the PATH is used; without one, the version that uv.lock pins is installed into .venv. No Python is downloaded.
# The Python can be chosen: make install PYTHON=/opt/python/bin/python3.12
set -eu

cd "$(dirname "$0")/.."
root=$PWD
venv=$root/.venv

fail() {
    echo "install: $1" >&2
    exit 1
}

is_supported() { # is_supported PYTHON: it runs, and is one that pyproject.toml accepts
    "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null
}

find_python() { # prints the first Python that will do
    if [ -n "${PYTHON:-}" ]; then
        is_supported "$PYTHON" || fail "PYTHON=$PYTHON is not a Python 3.11 or newer"
        command -v "$PYTHON"
        return
    fi
    for name in python3.13 python3.12 python3.11 python3; do
        # A shim of a version manager can stand on the PATH and still refuse to run, so each one is tried.
        if is_supported "$name"; then
            command -v "$name"
            return
        fi
    done
    fail "no Python 3.11 or newer found (tried python3.13, python3.12, python3.11, python3).
Install one with your system's packages, or name it: make install PYTHON=/path/to/python3"
}

make_venv() { # a fresh environment, with pip where this Python brings it
    python=$(find_python)
    rm -rf "$venv"
    if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
        command -v uv >/dev/null ||
            fail "$python cannot make a virtual environment: its venv module is missing (Debian, Ubuntu: apt-get install python3-venv)"
        uv venv --quiet --python "$python" "$venv"
        return
    fi
    "$python" -m venv "$venv"
}

# Whatever the caller's shell has active, this environment is meant.
unset VIRTUAL_ENV PYTHONHOME PYTHONPATH CONDA_PREFIX
export UV_PROJECT_ENVIRONMENT="$venv"
export UV_PYTHON_DOWNLOADS=never
export PIP_DISABLE_PIP_VERSION_CHECK=1

# A container may run as a user without a home of its own: the caches go where we can write.
if [ ! -d "${HOME:-/nonexistent}" ] || [ ! -w "$HOME" ]; then
    export UV_CACHE_DIR="${UV_CACHE_DIR:-$venv/.cache/uv}"
    export PIP_CACHE_DIR="${PIP_CACHE_DIR:-$venv/.cache/pip}"
fi
# The machine's own certificates, as curl trusts them: behind a company's proxy uv's built-in list is not enough.
if [ -n "$(ls /etc/ssl/certs 2>/dev/null)" ]; then
    export UV_SYSTEM_CERTS="${UV_SYSTEM_CERTS:-true}"
fi

# An environment that was moved or copied has the old place in all of its scripts.
if ! is_supported "$venv/bin/python" || ! grep -qF "$venv" "$venv/bin/activate"; then
    make_venv
fi

if command -v uv >/dev/null; then
    uv=uv
else
    uv=$venv/bin/uv
    version=$(sed -n '/^name = "uv"$/{n;s/^version = "\(.*\)"$/\1/p;}' uv.lock)
    if ! "$uv" --version >/dev/null 2>&1; then
        "$venv/bin/python" -m pip --version >/dev/null 2>&1 || make_venv # an environment made by a uv that is gone
        "$venv/bin/python" -m pip install --quiet "uv==$version" || fail "could not install uv $version with pip"
    fi
fi

"$uv" sync --quiet --locked --all-packages --python "$venv/bin/python"
