#!/usr/bin/env bash
# Installs the wheel as a user does, without constraints, in a new environment (6 GB, removed at the
# end), trains two steps with DFT and runs doctor:
#   bash scripts/test_install.sh pip|uv          dft-factory[tested] brings LLaMA-Factory and torch;
#                                                runs an experiment of ten lines, too
#   bash scripts/test_install.sh pip|uv PATH     beside an editable LLaMA-Factory checkout: no other
#                                                package may change
#   bash scripts/test_install.sh pip|uv eval     dft-factory[eval] alone, against a server on loopback:
#                                                no LLaMA-Factory, no torch
# PYTHON names the interpreter to use (default: python3).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
unset PYTHONDONTWRITEBYTECODE PYTHONPATH

say() { printf 'test_install: %s\n' "$*" >&2; }
tool=${1:-}
project=$PWD
checkout=
[ -z "${2:-}" ] || [ "$2" = eval ] || checkout=$(cd "$2" && pwd)
if [ "$tool" != pip ] && [ "$tool" != uv ]; then
  say "usage: bash scripts/test_install.sh pip|uv [eval | PATH of a LLaMA-Factory checkout]"
  exit 2
fi
bash scripts/setup.sh
uv=$PWD/.venv/bin/uv
mkdir -p .venvs
folder=$(mktemp -d -p "$PWD/.venvs" install-XXXXXX)
trap 'rm -rf "$folder"' EXIT
"$uv" build --quiet --wheel --out-dir "$folder" .
wheel=$(echo "$folder"/*.whl)
"${PYTHON:-python3}" -m venv "$folder/env"
export PATH="$folder/env/bin:$PATH"
cd "$folder"
install() {
  say "$tool install $*"
  if [ "$tool" = pip ]; then
    python -m pip install --quiet "$@"
  else
    "$uv" pip install --quiet --python "$folder/env/bin/python" "$@"
  fi
}
if [ "${2:-}" = eval ]; then
  install "dft-factory[eval] @ file://$wheel"
  if "$uv" pip freeze --python "$folder/env/bin/python" | grep -iE '^(llamafactory|torch|transformers)==' >&2; then
    say "dft-factory[eval] brought them"
    exit 1
  fi
  cd "$project"
  python -m tests.support.eval_alone "$folder/evaluation"
  exit
fi
if [ -z "$checkout" ]; then
  install "dft-factory[tested,eval,experiments] @ file://$wheel"
else
  install --editable "$checkout"
  "$uv" pip freeze --python "$folder/env/bin/python" >before
  install "$wheel"
  "$uv" pip freeze --python "$folder/env/bin/python" | grep -v '^dft-factory' >after
  diff before after >changed || { say "other packages changed:"; cat changed >&2; exit 1; }
  say "no other package changed"
fi
"$uv" pip freeze --python "$folder/env/bin/python" | grep -iE 'llama|^(torch|transformers|accelerate|peft|trl)' >&2

dft-factory tiny qwen2.5-coder --out model
mkdir data
cat >data/dataset_info.json <<<'{"sums": {"file_name": "sums.json"}}'
cat >data/sums.json <<'JSON'
[{"instruction": "1 + 1?", "input": "", "output": "2"}, {"instruction": "2 + 3?", "input": "", "output": "5"}]
JSON
cat >dft.yaml <<'YAML'
model_name_or_path: model
stage: sft
do_train: true
finetuning_type: dft
dataset: sums
dataset_dir: data
template: qwen
max_steps: 2
val_size: 1
eval_strategy: steps
eval_steps: 1
logging_steps: 1
use_cpu: true
report_to: none
output_dir: out
YAML
llamafactory-cli train dft.yaml >log 2>&1 || { tail -40 log >&2; exit 1; }
python - <<'PYTHON'
import json
rows = json.load(open("out/trainer_state.json"))["log_history"]
trained = [row for row in rows if "loss" in row]
assert len(trained) == 2 and all(row["nll"] > 10 * row["loss"] > 0 for row in trained), rows
assert [row for row in rows if "eval_nll" in row], rows
print(*(f"step {row['step']}: loss {row['loss']}, nll {row['nll']}" for row in trained), sep="\n")
PYTHON
dft-factory doctor >doctor || { cat doctor >&2; exit 1; }
sed -n '/^Warnings/,$p' doctor
dft-factory recipes copy demo/smollm2_dft >&2
dft-factory data prepare ultrafeedback --source configs/demo/code_instructions.jsonl --out runs/demo/data >/dev/null
llamafactory-cli train configs/demo/smollm2_dft.yaml model_name_or_path=model template=qwen max_steps=1 >>log 2>&1 ||
  { tail -40 log >&2; exit 1; }
if [ -z "$checkout" ]; then
  dft-factory run demo --dry-run >&2
  cat >sums.jsonl <<'JSON'
{"question": "What is 1 + 1?", "answer": ["2"]}
{"question": "What is 2 + 3?", "answer": ["5"]}
JSON
  cat >sums.yaml <<'YAML'
make: {tiny: dft-factory tiny qwen2.5-coder --out $out}
model: $tiny
train:
  recipe: dft.yaml
  data: {prepare: nq, source: sums.jsonl}
  set: {val_size: 0, eval_strategy: "no"}
  variants: [sft, dft]
evaluate:
  - {benchmarks: [nq], data: sums.jsonl, max_new_tokens: 4}
YAML
  dft-factory run sums.yaml --jobs 2
  ls runs/sums/{base,sft,dft}/results.json runs/sums/report.html >&2
fi
say "done"
