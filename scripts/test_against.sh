#!/usr/bin/env bash
# The contract tests against another LLaMA-Factory, in an environment of its own (.venvs/, 6 GB):
#   bash scripts/test_against.sh VERSION_OR_PATH [TRANSFORMERS_VERSION] [pytest arguments]
#   bash scripts/test_against.sh 0.9.4
#   bash scripts/test_against.sh ../LLaMA-Factory 5.8.0 -m "not cli"
# PYTHON names the interpreter to use (default: python3). Prints how its sources are known, too.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
unset PYTHONDONTWRITEBYTECODE
# Older hub clients retry for minutes where a test names a model that does not exist.
export HF_HUB_OFFLINE=1

say() { printf 'test_against: %s\n' "$*" >&2; }
if [ $# -eq 0 ]; then
  say "usage: bash scripts/test_against.sh VERSION_OR_PATH [TRANSFORMERS_VERSION] [pytest arguments]"
  exit 2
fi
bash scripts/setup.sh
llamafactory=$1
shift
transformers=
if [[ "${1:-}" =~ ^[0-9]+\.[0-9] ]]; then
  transformers=$1
  shift
fi
if [ -d "$llamafactory" ]; then
  requirement="llamafactory @ file://$(cd "$llamafactory" && pwd)"
else
  requirement="llamafactory==$llamafactory"
fi
python=${PYTHON:-python3}
version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
environment=.venvs/$(basename "$llamafactory")-$version${transformers:+-transformers-$transformers}
uv=.venv/bin/uv
"$uv" venv --quiet --allow-existing --python "$python" "$environment"
# Pinned as in .venv, except for what another LLaMA-Factory or transformers brings with it.
free='accelerate|datasets|deepspeed|hf-xet|huggingface-hub|llamafactory|peft|sentence-transformers|tokenizers|transformers|trl'
overrides=$(mktemp)
trap 'rm -f "$overrides"' EXIT
# LLaMA-Factory 0.9.5 allows transformers up to 5.6.0; DISABLE_VERSION_CHECK is its own switch.
if [ -n "$transformers" ]; then
  echo "transformers==$transformers" >"$overrides"
  export DISABLE_VERSION_CHECK=1
fi
say "installing $requirement${transformers:+ and transformers $transformers} into $environment"
"$uv" pip install --quiet --python "$environment/bin/python" --override "$overrides" \
  --constraint <(grep -vE "^($free)==" constraints.txt) \
  --editable '.[train,code,vl,deepspeed,gguf,experiments,lm-eval,dev]' "$(grep '^uv==' constraints.txt)" "$requirement"
source "$environment/bin/activate"
python -m dft_factory.patch.contract "$(python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')"
python -c 'import importlib.metadata as m; print(*(f"{n} {m.version(n)}" for n in ("llamafactory", "transformers", "torch", "accelerate", "peft", "trl")), sep=", ")'
pytest tests/contract --ignore tests/contract/test_vlmevalkit.py "$@"
