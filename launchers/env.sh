# Sourced by the launchers: makes sure of .venv with the pinned requirements, and puts it on PATH.
# Nothing is installed twice: a stamp holds the digest of requirements.txt. The working directory stays the caller's.
root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
stamp="$root/.venv/requirements.sha256"
digest="$(sha256sum "$root/requirements.txt" | cut -d' ' -f1)"
if [ "$(cat "$stamp" 2>/dev/null)" != "$digest" ]; then
    python="$(command -v python3.11 || true)"
    if [ -z "$python" ]; then
        echo "error: found no python3.11 on PATH; expected Python 3.11. Install it, or put it on PATH" >&2
        exit 2
    fi
    echo "installing requirements into .venv (a few minutes, once)"
    "$python" -m venv "$root/.venv"
    "$root/.venv/bin/python" -m pip install --quiet --disable-pip-version-check -r "$root/requirements.txt"
    echo "$digest" > "$stamp"
fi
export PATH="$root/.venv/bin:$PATH"
export PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}"
export HF_HUB_OFFLINE="${HF_HUB_OFFLINE:-1}" TOKENIZERS_PARALLELISM=false
