"""Saves the gradients of the first optimizer step of any training process, before the step.

Put this folder on PYTHONPATH: torch calls the entry point, in the stock command line and in
torchrun's workers alike, so that what is measured is the gradient itself and not a difference of
weights. RECORD_GRADIENTS names the file that rank 0 writes. RECORD_HEAD_OUTPUTS names a file that
receives the number of elements of every output of a module named ``lm_head``. RECORD_KILL is
``PATH_END:N``: the process kills itself (SIGKILL) when it opens such a file for the Nth time.
RECORD_FSDP_ON_CPU lets torch load what FSDP saves on a CPU, tensors tagged ``cpu:0``.
RECORD_ZERO_ON_CPU makes DeepSpeed wait for all parameters that it gathers.

Under ZeRO every rank holds a part of each gradient, and the optimizer that steps knows flat buffers
only. There the whole gradients are put together before the engine's step, in which all ranks take
part.
"""

import os


def activate():
    if os.environ.get("RECORD_FSDP_ON_CPU"):
        import torch

        torch.serialization.register_package(
            11, lambda storage: None, lambda storage, place: storage if place == "cpu:0" else None
        )
    if os.environ.get("RECORD_ZERO_ON_CPU"):
        _wait_for_gathered_parameters()
    if os.environ.get("RECORD_KILL"):
        _kill_at_open(*os.environ["RECORD_KILL"].rsplit(":", 1))
    outputs = os.environ.get("RECORD_HEAD_OUTPUTS")
    if outputs:
        _record_head_outputs(outputs)
    path = os.environ.get("RECORD_GRADIENTS")
    engines = set()
    if path:
        _record_under_deepspeed(path, engines)
    if not path or os.environ.get("RANK", "0") != "0":
        return
    from torch.optim.optimizer import register_optimizer_step_pre_hook

    def record(optimizer, args, kwargs):
        import gc

        import torch

        if os.path.exists(path) or engines:
            return
        wanted = {id(p) for group in optimizer.param_groups for p in group["params"]}
        named = {}
        models = [m for m in gc.get_objects() if isinstance(m, torch.nn.Module)]
        # The outermost module that holds every parameter of the optimizer, unwrapped from DDP.
        for model in models:
            names = {id(p): n for n, p in model.named_parameters(remove_duplicate=True)}
            wrapped = type(model).__name__ == "DistributedDataParallel"
            if wanted <= names.keys() and not wrapped and len(names) >= len(named):
                named = names
        gradients = {
            named[id(p)]: p.grad.detach().clone()
            for group in optimizer.param_groups
            for p in group["params"]
            if p.grad is not None
        }
        torch.save(gradients, path)

    register_optimizer_step_pre_hook(record)


def _wait_for_gathered_parameters():
    """DeepSpeed 0.18.4 gathers many parameters at once and waits for the last of them only.

    That is right on a GPU, where a stream keeps their order, and wrong with gloo, which has two
    threads. ``docs/upstream/deepspeed-gloo-gather.md`` is the report.
    """
    import torch.distributed

    gather = torch.distributed.all_gather_into_tensor

    def gather_and_wait(*args, **kwargs):
        work = gather(*args, **kwargs)
        if work is not None:
            work.wait()
        return work

    torch.distributed.all_gather_into_tensor = gather_and_wait


def _record_under_deepspeed(path, engines):
    from torch.nn.modules.module import register_module_forward_pre_hook

    recorded = []

    def wrap_step(engine, args):
        if type(engine).__name__ != "DeepSpeedEngine" or id(engine) in engines:
            return
        engines.add(id(engine))
        step = engine.step

        def recorded_step(*args, **kwargs):
            if not recorded and engine.is_gradient_accumulation_boundary():
                import torch
                from deepspeed.utils import safe_get_full_grad

                recorded.append(True)
                gradients = {
                    name: safe_get_full_grad(parameter).detach().clone()
                    for name, parameter in engine.module.named_parameters()
                    if parameter.requires_grad
                }
                if os.environ.get("RANK", "0") == "0":
                    torch.save(gradients, path)
            return step(*args, **kwargs)

        engine.step = recorded_step

    register_module_forward_pre_hook(wrap_step)


def _record_head_outputs(path):
    from torch.nn.modules.module import register_module_forward_hook

    def record(module, args, output):
        # The head is the only linear layer of the tiny models that is as wide as the vocabulary.
        if type(module).__name__ == "Linear" and module.out_features > 400:
            with open(path, "a") as stream:
                stream.write(f"{output.numel()}\n")

    register_module_forward_hook(record)


def _kill_at_open(path_end, count):
    import signal
    import sys

    opened = []

    def hook(event, args):
        if event == "open" and str(args[0]).endswith(path_end):
            opened.append(args[0])
            if len(opened) == int(count):
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)
