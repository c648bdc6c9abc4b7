# Sourced by scripts/test and scripts/quickstart, from bash:
#     source "$(dirname "${BASH_SOURCE[0]}")/_venv.sh"
#     ensure_venv test dev        # the extras of pyproject.toml that are needed; none is fine
# Afterwards `python` is that of the environment, with the checkout installed (editable) and the kernels built.
#
# OPTIMUM_INT8_VENV    folder of the environment; default .venv in the checkout
# PYTHON               interpreter that makes it; default python3

OPTIMUM_INT8_ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
# Named exactly: an unpinned torch may bring several GB of CUDA libraries.
OPTIMUM_INT8_TORCH="torch==2.13.0"

ensure_venv() {
    local venv="${OPTIMUM_INT8_VENV:-$OPTIMUM_INT8_ROOT/.venv}" python="${PYTHON:-python3}"
    if [ ! -x "$venv/bin/python" ]; then
        "$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))' || {
            echo "$python is missing or older than 3.10: set PYTHON to a Python >= 3.10" >&2
            return 1
        }
        echo "Making the environment $venv" >&2
        "$python" -m venv "$venv" || {
            echo "$python -m venv failed; on Debian and Ubuntu: apt install python3-venv" >&2
            return 1
        }
    fi
    export VIRTUAL_ENV="$venv" PATH="$venv/bin:$PATH" PIP_DISABLE_PIP_VERSION_CHECK=1
    unset PYTHONHOME
    _install_extras "$venv" "$@" || return 1
    "$OPTIMUM_INT8_ROOT/scripts/build_kernels" --quiet || {
        echo "The kernels were not built (see above): going on with the slow PyTorch definition." >&2
    }
}

# Installs what the environment lacks. The stamp lists the extras that are in it, and its name carries a hash of what
# decides their content, so that a second run costs nothing.
_install_extras() {
    local venv="$1" extra missing="" hash stamp extras
    shift
    hash="$( (echo "$OPTIMUM_INT8_TORCH $OPTIMUM_INT8_ROOT"; cat "$OPTIMUM_INT8_ROOT/pyproject.toml") | cksum | tr ' ' -)"
    stamp="$venv/.optimum_int8-$hash"
    for extra in core "$@"; do
        grep -qsx "$extra" "$stamp" || missing=1
    done
    [ -n "$missing" ] || return 0

    extras="$( (echo core; printf '%s\n' "$@"; cat "$stamp" 2>/dev/null) | sed '/^$/d' | sort -u)"
    echo "Installing $OPTIMUM_INT8_TORCH, then optimum-int8 ($(echo $extras)); the first time takes minutes" >&2
    python -m pip install --quiet "$OPTIMUM_INT8_TORCH" || return 1
    local tools=() target="$OPTIMUM_INT8_ROOT"
    cmake --version >/dev/null 2>&1 || tools+=(cmake)
    [ "$extras" = core ] || target+="[$(echo "$extras" | grep -vx core | paste -sd, -)]"
    # --use-pep517: seqeval comes as source, which pip before 23.1 builds with build requirements that lack their own.
    python -m pip install --quiet --use-pep517 "$OPTIMUM_INT8_TORCH" ${tools[@]+"${tools[@]}"} -e "$target" || return 1
    rm -f "$venv"/.optimum_int8-*
    echo "$extras" >"$stamp"
}
