"""``--serve-python`` of the tests: takes the command line of vLLM or SGLang, and no other.

The options are those that vLLM 0.33.0 and SGLang 0.5.23 are started with; the server behind them
is :mod:`.scripted_server`. Neither engine runs in these tests.
"""

from __future__ import annotations

import argparse
import json
import sys

from tests.support import scripted_server


def main(words: list[str]) -> None:
    module, *rest = words[1:]
    engine = {"vllm.entrypoints.cli.main": "vllm", "sglang.launch_server": "sglang"}[module]
    parser = argparse.ArgumentParser(allow_abbrev=False)
    if engine == "vllm":
        parser.add_argument("command", choices=["serve"])
        parser.add_argument("model")
        parser.add_argument("--generation-config", choices=["vllm"], required=True)
        parser.add_argument("--disable-uvicorn-access-log", action="store_true")
        parser.add_argument("--tokenizer")
        parser.add_argument("--max-lora-rank", type=int, choices=[8, 16, 32, 64])
        parser.add_argument("--max-loras", type=int)
        parser.add_argument("--lora-modules", nargs="+", type=json.loads, default=[])
        parser.add_argument("--max-model-len", type=int)
    else:
        parser.add_argument("--model-path", dest="model", required=True)
        parser.add_argument("--sampling-defaults", choices=["openai"], required=True)
        parser.add_argument("--tokenizer-path")
        parser.add_argument("--lora-paths", nargs="*", type=json.loads, default=[])
        parser.add_argument("--context-length", type=int)
    parser.add_argument("--enable-lora", action="store_true")
    parser.add_argument("--host", required=True)
    parser.add_argument("--port", required=True)
    parser.add_argument("--served-model-name", required=True)
    parser.add_argument("--dtype", choices=["bfloat16", "float16", "float32"], required=True)
    parser.add_argument("--tensor-parallel-size", type=int, default=1)
    parser.add_argument("--data-parallel-size", type=int, default=1)
    args = parser.parse_args(rest)
    rows = args.lora_modules if engine == "vllm" else args.lora_paths
    key = "name" if engine == "vllm" else "lora_name"
    print("served:", json.dumps(vars(args), sort_keys=True), flush=True)
    names = [args.served_model_name, *(row[key] for row in rows)]
    scripted_server.main(["--port", args.port, "--names", *names])


if __name__ == "__main__":
    main(sys.argv[1:])
