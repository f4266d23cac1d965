"""``llamafactory-cli`` on a machine that Triton takes for one with an NVIDIA GPU.

The loss head hands its CPU tensors to the kernels, and Triton builds its NVIDIA driver for the
first launch: without a compiler that fails here as it does beside a GPU.
"""

from triton.backends.nvidia.driver import CudaDriver

from dft_factory.losses import softmax

CudaDriver.is_active = staticmethod(lambda: True)
softmax.KERNEL_DEVICES = ("cpu",)

if __name__ == "__main__":
    from llamafactory.cli import main

    main()
